"""--more-tokens: a finished run trains for longer, to the bit as one that was meant to, and loses nothing."""

import signal
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO

import pytest
import tiny
from rich.console import Console
from tiny_commands import Running, lilliput, refused, trained, workshop

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.base.units import Steps, Tokens
from lilliput.cli.resolve import resolve
from lilliput.more_tokens import with_more_tokens
from lilliput.objectives.next_token import NextToken
from lilliput.optim.schedule import Cosine, WarmupStableDecay
from lilliput.plan import plan
from lilliput.recipe import read_recipe
from lilliput.report.heldout_curve import asked
from lilliput.report.page import write_report
from lilliput.report.records import continued, read_run
from lilliput.run import before_training, pipeline
from lilliput.run.command_record import Command, RecipeOptions
from lilliput.run.listing import overview, remove, since, spare, states
from lilliput.shrink import shrink
from lilliput.train.machine import Machine
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.phase import Stage, StepPlan

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
PRETRAIN = tiny.pretraining(
    steps=10,
    stages=(Stage(share=1.0, objective=NextToken()),),
    schedule=WarmupStableDecay(warmup=Steps(2), decay=Steps(3)),
)
MORE = str(8 * 128)
"""Tokens of eight steps."""


def train(recipe, folder, command=None):
    screen = StringIO()
    pipeline.train(recipe, folder, MACHINE, Console(file=screen, width=200), command)
    return screen.getvalue()


def lengthen(run, *more):
    target = resolve(str(run), more_tokens=more)
    train(target.recipe, run, target.command)
    return target


@contextmanager
def interrupted(monkeypatch, *, after):
    """Ctrl-C after a step."""
    see = MetricsLogger.log_step

    def killed(self, step, *numbers):
        see(self, step, *numbers)
        if step == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MetricsLogger, "log_step", killed)
        yield


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A recipe of one phase, an average and a release, and the folder of its text."""
    folder = tmp_path_factory.mktemp("longer")
    recipe = tiny.recipe(folder / "data", tiny.GQA_SPEC)
    return replace(recipe, timeline=(PRETRAIN, *recipe.timeline[1:3]))


@pytest.fixture(scope="module")
def run(one, tmp_path_factory):
    """A run that was trained for longer twice, and what was said."""
    folder = tmp_path_factory.mktemp("run") / "run"
    train(one, folder)
    before = trained(folder)
    notes = [lengthen(folder, text).notes for text in (MORE, "pretrain-2=640")]
    return folder, before, notes


def test_it_equals_a_run_that_was_longer_from_the_beginning(one, run, tmp_path):
    folder, before, _ = run
    long = replace(PRETRAIN, tokens=Tokens((7 + 5 + 5) * 128))
    train(replace(one, timeline=(long, *one.timeline[1:])), tmp_path / "long")
    (expected,) = trained(tmp_path / "long").values()
    assert trained(folder) == before | {"01-pretrain-2": trained(folder)["01-pretrain-2"], "02-pretrain-3": expected}


def test_the_recipe_of_the_run_says_what_it_does(one, run):
    folder, _, notes = run
    recipe = read_recipe(folder)
    names = [getattr(entry, "name", type(entry).__name__) for entry in recipe.timeline]
    assert names == ["pretrain", "pretrain-2", "pretrain-3", "UseEma", "tiny-base"]
    assert [entry.resumes for entry in recipe.timeline[:3]] == [None, "pretrain", "pretrain-2"]
    assert notes[0] == ["pretrain-2: 1,024 tokens from step 7 of pretrain, before its decay"]
    assert recipe == with_more_tokens(one, [MORE, "640"])
    before = trained(folder)
    assert "resumes" not in train(recipe, folder) and trained(folder) == before, "there is nothing to do"


def test_it_is_killed_and_goes_on(one, run, tmp_path, monkeypatch):
    """Ctrl-C inside; the run knows what it is to become, and --more-tokens is no way to get there."""
    folder = tmp_path / "run"
    train(one, folder)
    with interrupted(monkeypatch, after=6):
        lengthen(folder, MORE)
    assert overview(folder).state == "pretrain-2: step 6, saved at 4"
    with pytest.raises(RunError, match=r"'pretrain-2' is not finished[\s\S]*lilliput train .*run; then"):
        resolve(str(folder), more_tokens=["640"])
    with pytest.raises(RunError, match=r"was trained longer, and this recipe does not have its phase 'pretrain-2'"):
        train(one, folder)
    said = train(read_recipe(folder), folder)
    assert "pretrain-2: resumes at step 4 of 8; it was interrupted at step 6, and this is its last checkpoint" in said
    assert trained(folder).items() < trained(run[0]).items()


def test_a_run_that_was_killed_before_its_first_checkpoint_says_that_it_begins_again(one, tmp_path, monkeypatch):
    with interrupted(monkeypatch, after=2):
        train(one, tmp_path / "run")
    said = train(one, tmp_path / "run")
    assert "pretrain: begins again: it was interrupted at step 2, before its first checkpoint" in said
    again = train(one, tmp_path / "run")
    assert "begins again" not in again and "resumes at" not in again


def test_what_cannot_be_is_refused_and_changes_nothing(one, tmp_path):
    folder = tmp_path / "run"
    before_training.data(one, folder, Console(file=StringIO()))
    with pytest.raises(RunError, match="'pretrain' is not finished"):
        resolve(str(folder), more_tokens=[MORE])
    train(one, folder)
    before = (folder / "recipe.json").read_bytes()
    for text, says in {
        "384": "384 more tokens would not train longer than 'pretrain'.*give 512 or more",
        "0": "is not a number of tokens",
        "many": "is not a number of tokens",
        "=5": "is not a number of tokens",
        "sft=1e3": "no phase 'sft'",
    }.items():
        with pytest.raises(LilliputError, match=f"(?s){says}"):
            resolve(str(folder), more_tokens=[text])
    remove(folder, states(folder))
    with pytest.raises(RunError, match="the state before the decay of 'pretrain' is missing"):
        resolve(str(folder), more_tokens=[MORE])
    assert (folder / "recipe.json").read_bytes() == before


def test_a_phase_is_resumed_once(one):
    longer = with_more_tokens(one, [MORE])
    with pytest.raises(LilliputError, match=r"resumed already, by 'pretrain-2'[\s\S]*--more-tokens pretrain-2=1000"):
        with_more_tokens(longer, ["pretrain=1000"])
    assert with_more_tokens(longer, [MORE]) == with_more_tokens(one, [MORE, f"pretrain-2={MORE}"])


def test_the_objective_is_that_of_the_end_and_the_name_is_free(one):
    staged = replace(one, timeline=(tiny.pretraining(name="sft-2"), replace(one.timeline[2], name="sft-2-2")))
    _, phase, _ = with_more_tokens(staged, ["4000"]).timeline
    assert (phase.name, phase.resumes) == ("sft-2-3", "sft-2")
    assert phase.stages == (Stage(share=1.0, objective=NextToken()),)
    assert phase.schedule.warmup == Steps(0) and StepPlan(phase).steps == 31


def test_a_schedule_without_a_stable_rate_goes_on_at_its_end(one):
    cosine = replace(one, timeline=(replace(PRETRAIN, schedule=Cosine(warmup=Steps(2))), *one.timeline[1:]))
    phase = with_more_tokens(cosine, ["640"]).timeline[1]
    assert phase.schedule == Cosine(warmup=Steps(2)) and StepPlan(phase).steps == 5


@pytest.mark.slow
def test_after_another_phase_than_the_last_one_what_follows_is_trained_anew(one, tmp_path):
    whole = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC)
    recipe, folder = replace(whole, timeline=(PRETRAIN, *whole.timeline[3:5])), tmp_path / "run"
    train(recipe, folder)
    before = trained(folder)
    target = lengthen(folder, f"pretrain={MORE}")
    assert target.notes[1] == "sft: trained again after that; its former weights stay in the run folder"
    assert set(trained(folder)) == {"00-pretrain", "02-sft", "01-pretrain-2", "03-sft"}
    assert before.items() < trained(folder).items() and trained(folder)["03-sft"] != before["02-sft"]


def test_the_command_says_how_to_do_it_in_one_go(one, tmp_path):
    """Of a recipe by name it is made sure of, of a file it is known as long as options do not get in the way."""
    command = Command(recipe="quickstart", shrink=True, overrides=("seed=1",))
    recipe = with_more_tokens(command.make(), ["pretrain=6000"])
    longer = command.extended_with(RecipeOptions(more_tokens=("pretrain=6000",)), recipe)
    assert longer == replace(command, more_tokens=("pretrain=6000",)) and longer.make() == recipe
    noted = Command(recipe="gone.py", more_tokens=("6000",))
    assert noted.extended_with(RecipeOptions(more_tokens=("7000",)), recipe) == replace(
        noted, more_tokens=("6000", "7000")
    )
    dtype, clip = "timeline.quickstart-base.dtype=BF16", "timeline.pretrain.clip=0.5"
    assert noted.extended_with(RecipeOptions(overrides=(dtype, "seed=2")), recipe) == replace(
        noted, overrides=(dtype, "seed=2")
    )
    for touched in (clip, "timeline.pretrain-2.clip=0.5", "timeline.0.clip=0.5"):
        assert noted.extended_with(RecipeOptions(overrides=(touched,)), recipe) is None


def test_what_is_noted_of_older_recipes_is_the_same(one):
    """A phase that resumes none has the plain form, so the hash, that it had before there were such phases."""
    assert "resumes" not in to_plain(PRETRAIN)
    assert to_plain(with_more_tokens(one, [MORE]).timeline[1])["resumes"] == "pretrain"


def test_a_plan_counts_the_state_before_a_decay(one):
    first, second = plan(with_more_tokens(one, [MORE]))["phases"]
    assert first["checkpoints"] == second["checkpoints"]
    cosine = replace(one, timeline=(replace(PRETRAIN, schedule=Cosine(warmup=Steps(2))),))
    (without,) = plan(cosine)["phases"]
    assert first["checkpoints"]["bytes"] == 3 / 2 * without["checkpoints"]["bytes"]


def test_a_rehearsal_has_the_same_phases(one):
    small = shrink(with_more_tokens(one, [MORE]))
    assert small.timeline[1].resumes == "pretrain" and StepPlan(small.timeline[1]).steps == 12


def test_report_and_comparison_follow_the_line(run):
    """What came after the step that was gone back to is trained, and is not on the way to the last weights."""
    folder, _, _ = run
    page = write_report(folder).read_text(encoding="utf-8")
    assert "goes on from step 7 of pretrain, before its decay" in page and "step 5 of pretrain-2" in page
    assert f"<dd>{(7 + 5 + 5) * 128:,}</dd>" in page and "6 steps after those at which later phases resumed" in page
    curve = asked(str(folder)).heldout("texts")
    steps = [(point.step, point.tokens // 128) for point in curve.points]
    assert steps == sorted(steps, key=lambda pair: pair[1]) and steps[-1] == (5, 7 + 5 + 5)
    assert curve.finished and (10, 10) not in steps
    alone = asked(f"{folder}:pretrain").heldout("texts")
    assert alone.points[-1].tokens == 10 * 128


def test_what_was_replaced_counts_neither_in_the_plan_nor_in_the_report(run):
    folder, _, _ = run
    made, read = plan(read_recipe(folder)), read_run(folder)
    assert made["totals"]["tokens"] == (7 + 5 + 5) * 128 == made["corpora"][0]["tokens_read"]
    assert made["totals"]["steps"] == 17 == sum(map(len, read.line))
    assert [phase["replaced"]["steps"] for phase in made["phases"]] == [3, 3, 0]
    assert [phase["replaced"]["by"] for phase in made["phases"]] == ["pretrain-2", "pretrain-3", None]


def test_curves_of_a_phase_that_resumes_begin_where_it_resumed(run):
    read = read_run(run[0])
    first, second, third = read.phases
    whole = continued(continued(first, second), third)
    assert [line["tokens"] for line in whole.steps] == [128 * step for step in range(1, 18)]
    assert [line["step"] for line in whole.steps] == list(range(1, 18))
    assert [line["cross_entropy"] for line in whole.steps[7:12]] == [line["cross_entropy"] for line in second.steps[:5]]
    resumed = [line["step"] for line in whole.incidents if line["incident"] == "resumed"]
    assert resumed == [7, 12] and whole.measured[-1]["tokens"] == 17 * 128


def test_cleaning_keeps_what_training_can_go_on_from(one, tmp_path):
    folder = tmp_path / "run"
    train(one, folder)
    (checkpoints,) = spare(folder)
    (state,) = states(folder)
    assert "the state before its decay stay" in checkpoints.why and state.name == "phases/00-pretrain/before-decay"
    remove(folder, [checkpoints])
    lengthen(folder, MORE)
    assert [one.name for one in since(folder, "phases/01-pretrain-2")] == ["phases/01-pretrain-2"]
    assert RunFolder(folder).record("phases/01-pretrain-2")["from"]["before"]["steps"] == 7


@pytest.mark.slow
def test_the_card_tells_both_phases_and_the_command(tmp_path):
    """Published, killed on its way to be longer, published again beside an edited card, and made again elsewhere."""
    shop = workshop(tmp_path / "shop")
    lilliput("run", "mine.py", "--out", "run", "--machine", "small.py", folder=shop)
    card = shop / "run" / "releases" / "tiny-base" / "README.md"
    card.write_text("Mine.\n" + card.read_text())
    running = Running("train", "run", "--more-tokens", "4000", folder=shop)
    running.wait_for(shop / "run" / "phases" / "01-pretrain-2" / "metrics.jsonl", 7)
    running.signal(signal.SIGKILL)
    running.end(kill=True)
    refused("train", "run", "--more-tokens", "4000", folder=shop, says="lilliput train run")
    lilliput("train", "run", folder=shop)
    assert overview(shop / "run").state == "pretrain-2: trained", "its release is of before"
    said = lilliput("publish", "run", folder=shop).out
    assert "README.md was edited and stays as it is" in said and overview(shop / "run").state == "published"
    text = (shop / "run" / "cards" / "tiny-base.md").read_text()
    assert "| pretrain | 12 | 1,536 |" in text and "| pretrain-2 | 31 | 3,968 |" in text
    assert "| together | 37 | 4,736 |" in text, "6 of the first phase, and 31"
    assert "`pretrain-2` went on from step 6 of `pretrain`, before its decay: the 6 steps" in text
    assert "lilliput run mine.py --more-tokens 4000 --machine small.py" in text
    again = ("train", "mine.py", "--more-tokens", "4000", "--machine", "small.py", "--out", "again")
    lilliput(*again, folder=shop)
    assert trained(shop / "again") == trained(shop / "run")
    refused("run", "mine.py", "--out", "run", folder=shop, says="was trained longer")
