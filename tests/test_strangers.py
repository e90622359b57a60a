"""A dozen folders of `benchmarks/strangers.py`, which has time for hundreds."""

from random import Random

import pytest
from tiny_strangers import Strangers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return Strangers(tmp_path_factory.mktemp("strangers"))


@pytest.mark.parametrize("seed", range(12))
def test_a_folder_of_a_stranger_does_no_harm(strangers, seed):
    for tried in strangers.tried(Random(f"short {seed}"), commands=3):
        assert not tried.wrong, f"{tried.command}, {tried.changes}: {tried.wrong}\n{tried.finished.err}"
