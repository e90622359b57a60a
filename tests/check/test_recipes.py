"""`lilliput check` of whole recipes: ours and the guide's are well, and mistakes end with status 1."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_commands
import torch

from lilliput.base.implemented import is_implemented
from lilliput.check import check
from lilliput.check.small import LAYERS, WIDE, small_model, small_phase
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.per_layer import PerLayer
from lilliput.recipe import load_recipe
from lilliput.train.phase import StepPlan

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "extend.md").read_text()


def from_guide(name, folder):
    """Write a recipe of the guide into a folder."""
    file = folder / name
    file.write_text(re.findall(rf"```python\n(# {re.escape(name)}\n.*?)```", GUIDE, flags=re.S)[0])
    return file


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart", "slm-10m", "mtlm1-200m", "odinnext-138m"])
def test_recipes_of_the_package_are_well(name):
    threads = torch.get_num_threads()
    recipe = load_recipe(name)
    results = list(check(recipe))
    assert [one for one in results if one.state == "failed"] == []
    assert {one.kind for one in results} == {"mixer", "optimizer", "objective", "phase"}
    assert torch.get_num_threads() == threads
    left_out = {one.part for one in results if one.check == "build"}
    assert left_out == {phase.name for phase in recipe.phases.values() if not is_implemented(phase)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["averaging.py", "noisy.py", "my_mixer.py"])
def test_recipes_of_the_guide_are_well(name, tmp_path):
    recipe = load_recipe(str(from_guide(name, tmp_path)))
    assert [one for one in check(recipe) if one.state == "failed"] == []


def test_a_model_is_made_small_as_far_as_its_mixer_lets_it():
    spec = load_recipe("slm-10m").model
    assert small_model(spec) == replace(spec, vocab=64, width=64, layers=LAYERS)
    wide = small_model(replace(spec, width=768, mixer=HGRN2(heads=48)))
    assert (wide.width, wide.layers) == (96, LAYERS), "48 heads divide no width below"
    assert small_model(replace(spec, width=WIDE)).width == WIDE
    hybrid = PerLayer(pattern=(HGRN2(heads=4), HGRN2(heads=4), GQA(heads=4, kv_heads=2, head_width=16)))
    assert small_model(replace(spec, mixer=hybrid)).layers == 6, "whole patterns"


@pytest.mark.parametrize("name", ["quickstart", "mtlm1-200m", "odinnext-138m-best"])
def test_a_phase_is_made_short_with_every_stage(name):
    for phase in load_recipe(name).phases.values():
        small = small_phase(phase)
        plan = StepPlan(small)
        assert 6 <= plan.steps <= 2 * max(3, len(phase.stages)) and plan.rows == 4
        assert {plan.stage(step) for step in range(plan.steps)} == set(range(len(phase.stages)))
        assert (small.optimizer, small.ema, small.clip) == (phase.optimizer, phase.ema, phase.clip)


def test_the_command_tells_what_failed_and_where_and_ends_with_1(tmp_path):
    file = from_guide("averaging.py", tmp_path)
    source = file.read_text().replace(".tril()", ".tril(1)").replace('state["sum"].copy_', 'state["all"].copy_')
    file.write_text(source)
    said = tiny_commands.lilliput("check", file.name, folder=tmp_path, expected=1)
    assert "Traceback" not in said.out + said.err
    failure = (
        r"failed  mixer RunningMean: causality\n +position 1 of 20 changes outputs before it: [\d.]+ apart at .*\n"
    )
    assert re.search(failure + r" +where: averaging\.py:\d+, RunningMeanMixer\.forward, layer 0\n +hint: ", said.out)
    line = next(number for number, text in enumerate(source.splitlines(), 1) if '"all"' in text)
    assert f"KeyError: 'all'\n          where: averaging.py:{line}, in RunningMeanMixer.decode\n" in said.out
    assert re.search(r"^\d+ ok, \d failed, \d skipped$", said.out, flags=re.M)
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["averaging.py"]


def test_the_command_ends_with_0_where_all_is_well(tmp_path):
    from_guide("averaging.py", tmp_path)
    said = tiny_commands.lilliput("check", "averaging.py", "--set", "model.layers=1", "--json", folder=tmp_path)
    plain = json.loads(said.out)
    assert (plain["recipe"], plain["ok"], plain["failed"], plain["skipped"]) == ("averaging", 22, 0, 2)
    first = {"kind": "mixer", "part": "RunningMean", "check": "causality", "state": "ok"}
    assert plain["checks"][0] == first | {"says": "", "where": "", "hint": ""}


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("1 / 0\n")
    tiny_commands.refused("check", "mine.py", folder=tmp_path, says="ZeroDivisionError", where="mine.py")
