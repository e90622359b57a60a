"""A dozen of the kills of `benchmarks/kills.py`, which has time for hundreds."""

from random import Random

import pytest
import tiny_kills


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder with a run that nobody killed, and how many boundaries it met."""
    work = tmp_path_factory.mktemp("kills")
    boundaries = tiny_kills.finished(work, work / "straight")
    assert boundaries > 150, "there is a lot to be killed between"
    return work, boundaries


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 6))])
def test_a_run_that_is_killed_twice_ends_in_the_same_weights(straight, tmp_path, part):
    """Somewhere in each sixth of a run, and again somewhere while it goes on."""
    work, boundaries = straight
    draw = Random(part)
    place = draw.randrange(part * boundaries // 6, (part + 1) * boundaries // 6) + 1
    assert any(tiny_kills.killed(work, tmp_path / "run", place, None, draw, boundaries))
    expected = tiny_kills.trained(work / "straight")
    assert len(expected) == 2 and tiny_kills.trained(tmp_path / "run") == expected
