"""Variants for trials in equal time: each one changes the recipe, and what decides about time is measured once."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from lilliput.base.errors import LilliputError
from lilliput.base.spec import to_plain
from lilliput.objectives.targets import MultiToken
from lilliput.recipe import load_recipe
from lilliput.train.phase import Phase

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))
SCRIPT = runpy.run_path(str(FOLDER / "equal_time.py"))
Variant, variants_of = SCRIPT["Variant"], SCRIPT["variants_of"]
RECIPE = load_recipe("slm-10m-hopper")
GROUPS = [line[3:] for line in SCRIPT["VARIANTS"].read_text().splitlines() if line.startswith("## ")]


@pytest.mark.parametrize("group", GROUPS)
def test_every_variant_is_another_recipe_of_the_same_shape(group):
    variants = variants_of([group])
    made = [variant.of(RECIPE) for variant in variants]
    plain = [json.dumps(to_plain(one), sort_keys=True) for one in made]
    assert len({one.name for one in variants}) == len(set(plain)) == len(variants) > 0
    same = json.dumps(to_plain(RECIPE), sort_keys=True)
    assert group == "baseline" or same not in plain
    for recipe in made:
        assert recipe.model.skeleton().parameter_counts()["total"] == 9_968_640
        assert [entry.name for entry in recipe.timeline if isinstance(entry, Phase)] == ["pretrain", "decay"]


def test_names_are_those_of_one_variant_each():
    names = [variant.name for variant in variants_of(GROUPS)]
    assert len(set(names)) == len(names)


def test_a_value_can_be_that_of_another_field():
    same = Variant.read("same: timeline.decay.data==timeline.pretrain.data").of(RECIPE)
    assert same.timeline[1].data == RECIPE.timeline[0].data != RECIPE.timeline[1].data
    objective = "timeline.pretrain.stages.0.objective"
    more = Variant.read(f"more: {objective}.further=MultiToken(count=2, weight=0.5)").of(RECIPE)
    assert more.timeline[0].stages[0].objective.further == MultiToken(count=2, weight=0.5)
    assert more.timeline[1].stages[0].objective.further is None


def test_a_section_that_is_not_there_is_refused():
    with pytest.raises(LilliputError, match="no section bathc") as refused:
        variants_of(["batch", "bathc"])
    assert "batch" in refused.value.hint


def test_the_time_to_a_quality_lies_between_two_lengths_and_is_not_guessed_beyond_them():
    found = runpy.run_path(str(FOLDER / "time_to_quality.py"))
    trials = [{"seconds": seconds, "mean": bits} for seconds, bits in ((90, 1.1), (30, 1.29), (30, 1.31), (60, 1.2))]
    reached = found["by_seconds"](trials, "mean")
    assert list(reached) == [30, 60, 90] and reached[30] == pytest.approx(1.3)
    assert found["seconds_to"](1.25, reached) == pytest.approx(30 * 2**0.5)
    assert found["seconds_to"](1.2, reached) == pytest.approx(60)
    assert found["seconds_to"](1.35, reached) == 30
    assert found["seconds_to"](1.05, reached) is None
