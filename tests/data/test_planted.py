"""Planted faults: each filter of curation finds nearly all of its own, and hardly anything else."""

import pytest
from tiny_planted import COUNT, Found, found

pytest.importorskip("datatrove")
pytest.importorskip("rensa")
pytest.importorskip("ftfy")

LEAST = {"near-duplicates": (0.92, 0.99), "repeated lines": (1.0, 0.8), "repeated runs": (1.0, 0.8)}
"""Recall and precision where they are not both nearly 1: prose of a few sentences does repeat itself."""


@pytest.fixture(scope="module")
def all_found(tmp_path_factory) -> dict[str, Found]:
    return {one.planted: one for one in found(tmp_path_factory.mktemp("planted"))}


@pytest.mark.parametrize(
    "planted",
    "another language|too few words|hash signs|word lists|repeated lines|repeated runs|menus|code|placeholder text|"
    "duplicates|near-duplicates|benchmark items|mojibake|personal data".split("|"),
)
def test_recall_and_precision(all_found: dict[str, Found], planted: str) -> None:
    recall, precision = LEAST.get(planted, (0.98, 0.98))
    one = all_found[planted]
    assert one.count == COUNT and one.recall >= recall and one.precision >= precision, one
