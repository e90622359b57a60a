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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a run from bags to preferences, and the part of the run that each boundary is in."""
    work = tmp_path_factory.mktemp("whole")
    assert tiny_kills.finished(work, work / "straight", timeline=tiny_kills.whole_timeline) is not None
    return work, (work / "straight.parts").read_text().split("\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        "phases/00-pretrain",
        "phases/06-sft",
        "replies/replies",
        "phases/07-seqkd",
        "computed/08-reference",
        "phases/09-dpo",
    ],
)
def test_a_whole_timeline_that_is_killed_in_any_stage_makes_the_same_releases(whole, tmp_path, part):
    """Bags, a stack, SFT, replies of a local teacher, the reference of DPO, and DPO."""
    work, parts = whole
    draw = Random(part)
    place = draw.choice([index for index, each in enumerate(parts, 1) if each == part])
    timeline = tiny_kills.whole_timeline
    assert any(tiny_kills.killed(work, tmp_path / "run", place, None, draw, len(parts), timeline=timeline))
    for hashes, count in ((tiny_kills.trained, 5), (tiny_kills.released, 2)):
        expected = hashes(work / "straight")
        assert len(expected) == count and hashes(tmp_path / "run") == expected


@pytest.fixture(scope="module")
def odinnext(tmp_path_factory):
    """A folder with odinnext-138m at toy size, to its base release, and how many boundaries it met."""
    work = tmp_path_factory.mktemp("odinnext")
    boundaries = tiny_kills.finished(work, work / "straight", timeline=tiny_kills.odinnext_base)
    assert boundaries > 150, "there is a lot to be killed between"
    return work, boundaries


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_odinnext_comes_to_its_base_release_in_the_same_bits(odinnext, tmp_path, part):
    """Blocks in bags, all layers together, and what is published of them."""
    work, boundaries = odinnext
    draw = Random(part)
    place = draw.randrange(part * boundaries // 4, (part + 1) * boundaries // 4) + 1
    assert any(
        tiny_kills.killed(work, tmp_path / "run", place, None, draw, boundaries, timeline=tiny_kills.odinnext_base)
    )
    for hashes, names in (
        (tiny_kills.trained, ["00-accelerated", "01-end-to-end"]),
        (tiny_kills.released, ["OdinNext-138M-Base"]),
    ):
        expected = hashes(work / "straight")
        assert list(expected) == names and hashes(tmp_path / "run") == expected
