"""What a sweep would train, and what its numbers mean: variants, mistakes, intervals, comparisons, budgets."""

import math
from dataclasses import replace

import pytest
import tiny
from scipy import stats

from lilliput.base.errors import RecipeError
from lilliput.nn.gqa import GQA
from lilliput.sweep.axes import SweepAxis, expanded, read_over, variants
from lilliput.sweep.metric import Outcome, choose
from lilliput.sweep.results import estimate, results, student_quantile
from lilliput.sweep.table import markdown, table

LR = "timeline.pretrain.optimizer.lr"
COST = {"parameters": 7, "steps": 1, "tokens": 100, "positions": 100, "operations": 10**9}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny.recipe(tmp_path_factory.mktemp("sweep"))


def over(path, *values):
    return SweepAxis(path=path, values=values)


def test_variants_are_all_combinations_seed_after_seed(recipe):
    overs = expanded(recipe, [read_over("timeline.0.optimizer.lr=1e-3,0.020"), read_over("model.ffn.inner=24,48")])
    made = variants(recipe, overs, [5, 6])
    assert [one.name for one in made[:4]] == [
        "lr=0.001,inner=24,seed=5",
        "lr=0.001,inner=48,seed=5",
        "lr=0.02,inner=24,seed=5",
        "lr=0.02,inner=48,seed=5",
    ]
    assert [one.seed for one in made] == [5] * 4 + [6] * 4 == [one.recipe.seed for one in made]
    assert made[7].recipe.timeline[0].optimizer.lr == 0.02 and made[7].recipe.model.ffn.inner == 48
    assert made[7].setting.values == {LR: 0.02, "model.ffn.inner": 48}
    assert recipe.timeline[0].optimizer.lr == 6e-3, "the recipe itself stays"


def test_names_tell_fields_apart_and_are_safe_for_folders(recipe):
    overs = expanded(recipe, [over(LR, "1", "2"), over("timeline.sft.optimizer.lr", "3", "4")])
    assert variants(recipe, overs, [0])[0].name == "pretrain.optimizer.lr=1,sft.optimizer.lr=3,seed=0"
    odd = variants(recipe, expanded(recipe, [over("about", "a/b", "a b")]), [0])
    assert all("/" not in one.name and " " not in one.name for one in odd) and odd[0].name != odd[1].name


def test_a_unit_is_swept_by_its_number(recipe):
    (found,) = expanded(recipe, [over("timeline.pretrain.tokens.count", "2e3", "3000")])
    assert found == over("timeline.pretrain.tokens", "2000", "3000")
    assert variants(recipe, [found], [0])[1].name == "tokens=3000,seed=0"


def test_parts_are_varied_by_name(recipe):
    bare = replace(recipe, timeline=recipe.timeline[:1])
    given = "model.mixer=HGRN2(heads=4),GQA(heads=4,kv_heads=2,head_width=16)"
    (mixers,) = expanded(bare, [read_over(given)])
    assert mixers.values == ("HGRN2(heads=4)", "GQA(heads=4, kv_heads=2, head_width=16)")
    made = variants(bare, [mixers], [0, 1])
    assert made[1].recipe.model.mixer == GQA(heads=4, kv_heads=2, head_width=16)
    assert made[3].overrides == ("model.mixer=GQA(heads=4, kv_heads=2, head_width=16)", "seed=1")
    assert made[0].setting.title == "mixer=HGRN2(heads=4)" and "(" not in made[0].name
    assert [one.name for one in made] == [f"mixer={kind},seed={seed}" for seed in (0, 1) for kind in ("HGRN2", "GQA")]
    in_full = variants(bare, [mixers], [0], in_full=True)
    assert in_full[0].name.startswith("mixer=HGRN2-heads=4,"), "as sweeps of format 1 have it"
    grown = replace(mixers, values=(*mixers.values, "HGRN2(heads=2)"))
    names = [one.name for one in variants(bare, [grown], [0])]
    assert names[:2] == ["mixer=HGRN2,seed=0", "mixer=GQA,seed=0"] and names[2].startswith("mixer=HGRN2-")
    units = expanded(bare, [read_over("timeline.pretrain.ema=0.9,NoEma(),Ema(decay=0.99)")])
    assert units == [over("timeline.pretrain.ema", "Ema(decay=0.9)", "NoEma()", "Ema(decay=0.99)")]
    (tuples,) = expanded(bare, [read_over("model.mixer.forget_timescales=(2, 50.0),none")])
    assert [one.recipe.model.mixer.forget_timescales for one in variants(bare, [tuples], [0])] == [(2, 50.0), None]


def test_the_seed_alone_is_varied(recipe):
    assert expanded(recipe, [], seeds=3) == []
    made = variants(recipe, [], [0, 1, 2])
    assert [one.name for one in made] == ["seed=0", "seed=1", "seed=2"] and made[2].overrides == ("seed=2",)
    outcomes = {one.name: Outcome(value=1.0 + one.seed, seconds=2.0) for one in made}
    costs = {one.setting.name: COST for one in made}
    found = results("tiny", choose(recipe, None), [], made, outcomes, costs)
    (alone,) = found["settings"]
    assert alone["mean"] == 2.0 and alone["deviation"] == 1.0 and alone["difference"] is None
    assert "standard deviation of 1.0000. With" in found["notes"][0] and "within 6.0849 of each" in found["notes"][0]
    assert [str(column.header) for column in table(found).columns] == ["mean ± 95%", "params", "FLOPs"]


@pytest.mark.parametrize(
    ("overs", "fixed", "says"),
    [
        (["timeline.pretrain.clip"], [], "has no values"),
        (["timeline.pretrain.clip=1,"], [], "has no values"),
        (["timeline.pretrain.clip=1"], [], "the only value"),
        (["model.mixer=HGRN2(hads=2)"], [], "nearest names: heads"),
        ([], [], "nothing is varied"),
        (["timeline.pretrian.clip=1,2"], [], "nearest names: pretrain"),
        (["timeline.pretrain.clip=1,two"], [], "'two' cannot replace"),
        (["timeline.pretrain.clip=1,1.0"], [], "the same value as '1'"),
        (["timeline.pretrain.clip=1,2", "timeline.0.clip=3,4"], [], "given twice"),
        (["timeline.pretrain.clip=1,2"], ["timeline.0.clip=1"], "--set timeline.0.clip=1"),
        (["seed=1,2"], [], "--seeds"),
        (["model.mixer=HGRN2(heads=2),HGRN3(heads=2)"], [], "nearest names: HGRN2"),
        (["model.mixer=HGRN2(heads=2),HGRN2(head=2)"], [], "nearest names: heads"),
        (["model.mixer=HGRN2(heads=2),HGRN2( heads=2 )"], [], "the same value"),
        (["model.mixer=HGRN2(heads=2),HGRN2(heads=2"], [], "cannot be read"),
        (["timeline.pretrain.batch_tokens=128,100"], [], "no multiple of length"),
    ],
)
def test_mistakes_are_refused_with_what_where_and_hint(recipe, overs, fixed, says):
    with pytest.raises(RecipeError) as refused:
        expanded(recipe, [read_over(text) for text in overs], fixed)
    assert says in str(refused.value) and "--over" in refused.value.where and refused.value.hint


def test_the_metric_is_the_text_that_releases_are_judged_by(recipe):
    metric = choose(recipe, None)
    assert (metric.name, metric.unit) == ("pretrain.texts", "bits per byte")
    assert choose(recipe, "sft.chats").unit == "nats per answer token"
    with pytest.raises(RecipeError, match="'sft.chat'") as refused:
        choose(recipe, "sft.chat")
    assert "sft.chats" in refused.value.hint
    chat_only = replace(recipe, timeline=recipe.timeline[3:5])
    assert choose(chat_only, None).name == "sft.chats"


def test_quantiles_are_those_of_scipy():
    for freedom in (*range(1, 31), 99, 1000):
        for level in (0.9, 0.95, 0.99):
            expected = stats.t.ppf((1 + level) / 2, freedom)
            assert math.isclose(student_quantile(freedom, level), expected, rel_tol=1e-9), (freedom, level)
    assert round(student_quantile(1), 4) == 12.7062 and round(student_quantile(2), 4) == 4.3027


def test_an_interval_by_hand():
    """1, 2, 6: the mean is 3, the sample's variance (4 + 1 + 9) / 2 = 7, t of two degrees of freedom 4.3027."""
    found = estimate([1.0, 2.0, 6.0])
    assert found.mean == 3.0 and found.half_width == pytest.approx(4.302653 * math.sqrt(7 / 3), rel=1e-6)
    alone = estimate([1.5])
    assert alone.interval is None and alone.excludes_zero is None


def compared(recipe, numbers, costs=None, **changes):
    """Results of settings whose seeds came out as `numbers`, in the order of the grid."""
    overs = expanded(recipe, [over(LR, *(str(place + 1) for place in range(len(numbers))))])
    seeds = range(max(len(row) for row in numbers))
    every = variants(recipe, overs, list(seeds))
    outcomes = {}
    for one in every:
        row = numbers[int(one.setting.values[LR]) - 1]
        outcomes[one.name] = Outcome(value=row[one.seed], seconds=2.0) if one.seed < len(row) else Outcome()
    same = {one.setting.name: COST for one in every}
    return results("tiny", choose(recipe, None), overs, every, outcomes | changes, same | (costs or {}))


def test_differences_are_paired_by_seed(recipe):
    """Seeds differ by 1, settings by 0.1 in every seed: the pairs see it, the means alone could not."""
    found = compared(recipe, [[1.0, 2.0, 3.0], [1.1, 2.1, 3.1001], [0.9, 2.5, 3.0]])
    assert found["best"] == "lr=1"
    best, near, noisy = found["settings"]
    assert best["difference"] is None and best["told_apart"] is None
    assert near["interval"][0] < best["mean"] and near["told_apart"] is True
    assert near["difference"]["mean"] == pytest.approx(0.1, abs=1e-4)
    assert noisy["told_apart"] is False and noisy["difference"]["interval"][0] < 0 < noisy["difference"]["interval"][1]


def test_what_is_missing_or_failed_is_said_and_not_compared(recipe):
    found = compared(recipe, [[2.0, 2.1], [1.0], [3.0, 3.1]], **{"lr=3,seed=1": Outcome(failure="not finite")})
    assert (found["variants"], found["finished"], found["failed"]) == (6, 4, 1)
    assert found["best"] == "lr=1", "a mean over fewer seeds is not compared while others have more"
    assert found["settings"][1]["seeds"] == {"0": 1.0, "1": None} and found["settings"][1]["interval"] is None
    text = markdown(found)
    assert "1 of 6 variants are not trained yet" in text and "1 of 2" in text and "lr=3, seed 1: not finite" in text
    nothing = compared(recipe, [[], [], []] and [[1.0], []])
    assert "not trained yet" in markdown(nothing) and nothing["settings"][1]["mean"] is None


def test_positions_are_a_column_where_they_are_not_as_many_as_tokens(recipe):
    def columns(costs):
        lines = markdown(compared(recipe, [[1.0], [2.0]], costs)).splitlines()
        header, _, *settings = [[one.strip(" *") for one in line.split("|")] for line in lines if line.startswith("| ")]
        return {name: [row[place] for row in settings] for place, name in enumerate(header)}

    assert "positions" not in columns({})
    found = columns({"lr=2": COST | {"positions": 25}})
    assert found["tokens"] == ["100", "100"] and found["positions"] == ["100", "25"]


def test_one_seed_and_unequal_budgets_are_said(recipe):
    costs = {"lr=2": COST | {"parameters": 9, "tokens": 200, "positions": 200}}
    notes = " ".join(compared(recipe, [[1.0], [2.0]], costs)["notes"])
    assert "One seed" in notes and "100 tokens (lr=1) to 200 (lr=2)" in notes and "operations" not in notes
    assert "7 parameters (lr=1) to 9 (lr=2)" in notes
    assert not compared(recipe, [[1.0, 1.1], [2.0, 2.1]])["notes"]
