"""The recipes of the package: the numbers of their cards, what they lack, and where their texts come from."""

import json
import math
from dataclasses import replace
from typing import ClassVar

import pytest
import tiny
import tiny_partitions

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.implemented import check_implemented, unimplemented_parts
from lilliput.base.spec import from_plain, to_plain
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Clean, Filtered
from lilliput.data.corpora.teacher import Teacher
from lilliput.growth.use_ema import UseEma
from lilliput.optim.ema import Ema
from lilliput.overrides import replace_sources
from lilliput.plan import plan
from lilliput.recipe import Recipe, Release, load_recipe, names
from lilliput.train.phase import Phase, StepPlan

PARAMETERS = {
    "slm-10m": [9_968_640],
    "mtlm1-200m": [109_529_856, 194_482_944],
    "mtlm1-152m": [88_296_192, 152_015_616],
    "odinnext-138m": [138_449_696, 138_449_696, 138_451_232],
    "odinnext-138m-best": [138_449_696, 138_449_696, 138_451_232],
}
"""Of the first model, and after every growth."""


def phase(recipe: Recipe, name: str) -> Phase:
    return next(entry for entry in recipe.timeline if isinstance(entry, Phase) and entry.name == name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_size_of_a_card_is_exact(name):
    recipe = load_recipe(name)
    spec, sizes = recipe.model, [recipe.model.skeleton().parameter_counts()["total"]]
    for entry in recipe.timeline:
        if not isinstance(entry, Phase | Release):
            spec = entry.shape(spec)
            sizes.append(spec.skeleton().parameter_counts()["total"])
    assert sizes == PARAMETERS[name]


@pytest.mark.parametrize("name", names("lilliput.recipes"))
def test_every_recipe_comes_back_from_its_json_and_plans(name):
    recipe = load_recipe(name)
    assert from_plain(json.loads(json.dumps(to_plain(recipe)))) == recipe
    assert plan(recipe)["recipe"] == name


def test_slm_follows_the_schedule_of_its_card():
    pretrain = phase(load_recipe("slm-10m"), "pretrain")
    steps, begin, peak = StepPlan(pretrain).steps, 40_531, pretrain.optimizer.lr
    assert steps == 47_683 and begin == steps - int(0.15 * steps)

    def rate(step):
        if step < 1_000:
            return 3e-3 * step / 1_000
        if step < begin:
            return 3e-3
        return 3e-4 + 0.5 * (1 + math.cos(math.pi * (step - begin) / (steps - begin))) * (3e-3 - 3e-4)

    for step in (0, 1, 999, 1_000, begin - 1, begin, begin + 1, 44_000, steps - 1):
        assert peak * pretrain.schedule(step, steps) == pytest.approx(rate(step), rel=1e-12), step


def test_slm_decays_what_has_two_dimensions_and_nothing_else():
    recipe = load_recipe("slm-10m")
    optimizer = phase(recipe, "pretrain").optimizer.build(recipe.model.build(seed=0))
    decays = {(value.ndim >= 2, group["weight_decay"]) for group in optimizer.param_groups for value in group["params"]}
    assert decays == {(True, 0.1), (False, 0.0)}


@pytest.mark.parametrize("name", ["mtlm1-200m", "mtlm1-152m"])
def test_both_halves_of_mtlm_warm_up_and_fall_to_a_tenth(name):
    recipe = load_recipe(name)
    for half in (phase(recipe, "base"), phase(recipe, "refine")):
        steps = StepPlan(half).steps
        assert steps == int(3.5e9) // 65_536
        assert half.schedule(0, steps) == 1 / 300 and half.schedule(299, steps) == half.schedule(300, steps) == 1.0
        assert half.schedule(steps - 1, steps) == pytest.approx(0.1, abs=1e-6)


def test_mtlm_reads_the_corpora_of_its_card_in_two_blends():
    recipe = load_recipe("mtlm1-200m")
    first, second = (phase(recipe, name).data for name in ("base", "refine"))
    assert set(first.weights) == set(second.weights) == {"cosmopedia", "fineweb-edu", "fineweb", "knowledge"}
    assert sum(first.weights.values()) == pytest.approx(1) and sum(second.weights.values()) == pytest.approx(1)
    assert first.seed != second.seed and first.weights != second.weights
    needed = {name: 3.5e9 * (first.weights[name] + second.weights[name]) for name in first.weights}
    for corpus in plan(recipe)["corpora"]:
        assert corpus["tokens_read"] == pytest.approx(needed[corpus["name"]], rel=1e-3)
        assert 0.7 < corpus["passes"] < 1, "as much text is read as the phases need, and a little more"


def test_licenses_and_weights_are_those_of_the_cards():
    told = {name: (load_recipe(name).license, load_recipe(name).releases) for name in PARAMETERS}
    licenses = {name: license for name, (license, _) in told.items()}
    assert (licenses["slm-10m"], licenses["mtlm1-200m"], licenses["mtlm1-152m"]) == ("apache-2.0", "mit", "mit")
    dtypes = {name: {release.dtype for release in releases.values()} for name, (_, releases) in told.items()}
    assert dtypes == {
        "slm-10m": {"BF16"},
        "mtlm1-200m": {"F32"},
        "mtlm1-152m": {"F32"},
        "odinnext-138m": {"F16"},
        "odinnext-138m-best": {"F16"},
    }
    for name in ("mtlm1-200m", "mtlm1-152m"):
        before, after = told[name][1].values()
        assert before.suite == after.suite and before.name != after.name, "a leap is measured on equal questions"


def test_odinnext_reads_as_much_text_a_step_as_its_card_says():
    accelerated = phase(load_recipe("odinnext-138m"), "accelerated")
    steps = StepPlan(accelerated)
    read = [accelerated.batch_tokens * stage.objective.tokens_per_position for stage in accelerated.stages]
    assert read == [2**21, 2**20, 2**19]
    assert steps.stage(3_259) == 0 and 3_259 * read[0] == 6_834_618_368  # the early checkpoint's 6.8 billion


def test_the_best_odinnext_superposes_for_a_fifth_and_a_tenth_of_its_steps():
    pretrain = phase(load_recipe("odinnext-138m-best"), "pretrain")
    steps = StepPlan(pretrain)
    assert [steps.stage(step) for step in (0, 22_797, 22_798, 34_197, 34_198, steps.steps - 1)] == [0, 0, 1, 1, 2, 2]
    assert pretrain.ema == Ema(decay=0.999) and not unimplemented_parts(load_recipe("odinnext-138m-best"))


def test_claims_without_effect_are_told_and_not_armed():
    assert any("soft-cap" in claim for claim in load_recipe("odinnext-138m").card_claims)
    assert any("z-loss" in claim for claim in load_recipe("slm-10m").card_claims)


class ToCome(UseEma):
    """A growth that nobody has built yet."""

    not_implemented: ClassVar[str] = "a growth of tomorrow"


def test_missing_parts_are_named_with_their_place():
    built = load_recipe("odinnext-138m")
    check_implemented(built)
    recipe = replace(built, timeline=(*built.timeline[:2], ToCome(), *built.timeline[3:]))
    assert unimplemented_parts(recipe) == ["timeline.2: ToCome, a growth of tomorrow"]
    with pytest.raises(RecipeError, match="timeline.2: ToCome") as error:
        check_implemented(recipe)
    assert "recipe 'odinnext-138m'" in str(error.value)
    check_implemented(recipe.until("end-to-end"))


def test_a_teacher_refuses_impossible_numbers_and_does_not_pretend():
    prompts = ChatFiles(paths=("none.jsonl",))
    for settings in ({"replies": 0}, {"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}):
        with pytest.raises(RecipeError):
            Teacher(model="m", prompts=prompts, license="l", **settings)
    with pytest.raises(DataError, match="from the run that asked"):
        next(iter(Teacher(model="m", prompts=prompts, license="l").conversations()))


def test_a_corpus_of_the_hub_is_read_from_files_instead(tmp_path):
    texts, chats = map(str, tiny.write_corpora(tmp_path))
    recipe = load_recipe("odinnext-138m")
    local = replace_sources(recipe, {"natural": (texts,), "instructions": (chats,), "replies": (chats,)})
    assert local.corpora == {
        "natural": TextFiles(paths=(texts,)),
        "instructions": ChatFiles(paths=(chats,)),
        "replies": ChatFiles(paths=(chats,)),
    }
    mix = str(tiny_partitions.write_folder(tmp_path / "mix", documents=1))
    natural = recipe.corpora["natural"]
    assert replace_sources(recipe, {"natural": (mix,)}).corpora["natural"] == replace(natural, dataset=mix)
    assert replace_sources(recipe, {}) == recipe


def test_a_source_may_name_its_column_and_filters_stay(tmp_path):
    texts, chats = map(str, tiny.write_corpora(tmp_path))
    recipe = tiny.recipe(tmp_path / "own")
    filtered = Filtered(source=TextFiles(paths=("old.jsonl",), text="body", group="site"), filters=(Clean(),))
    recipe = replace(recipe, corpora=dict(recipe.corpora) | {"texts": filtered})
    moved = replace_sources(recipe, {"texts": (texts,), "chats:turns": (chats,)}).corpora
    assert moved["texts"] == replace(filtered, source=TextFiles(paths=(texts,), text="body", group="site"))
    assert moved["chats"] == ChatFiles(paths=(chats,), messages="turns")
    assert replace_sources(recipe, {"texts:title": (texts,)}).corpora["texts"].source.text == "title"


def test_wrong_sources_are_refused_at_once(tmp_path):
    texts, _ = map(str, tiny.write_corpora(tmp_path))
    recipe = load_recipe("slm-10m")
    with pytest.raises(RecipeError, match="no corpus 'finewebedu'") as error:
        replace_sources(recipe, {"finewebedu": (texts,)})
    assert "nearest names: fineweb-edu" in str(error.value)
    with pytest.raises(DataError, match="no file or folder"):
        replace_sources(recipe, {"fineweb-edu": (str(tmp_path / "absent.jsonl"),)})
    with pytest.raises(DataError, match="no path is given"):
        replace_sources(recipe, {"fineweb-edu": ()})
