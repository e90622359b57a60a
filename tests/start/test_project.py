"""Files of every purpose: they load, are planned and trained; and what is said of them."""

from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import pytest
import tiny
from rich.console import Console

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.spec import to_plain
from lilliput.base.units import Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.plan.cost import Cost, Measured, Pass
from lilliput.recipe import load_machine, load_recipe
from lilliput.run import pipeline
from lilliput.shrink import shrink
from lilliput.start import PURPOSES, Answers, make, project, readable, write
from lilliput.start.sizes import corpus_tokens, notes
from lilliput.sweep.axes import read_over, variants
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, StepPlan


def measured(recipe, machine, report):
    """In the place of a probe: 2 ms a row, 1 ms an update."""
    one = Pass(seconds=0.002, repeats=1, rows=1, activations=1_000)
    cost = Cost(passes=(one,), update=Measured(seconds=0.001, repeats=1))
    return {place: cost for place, entry in enumerate(recipe.timeline) if isinstance(entry, Phase)}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with texts and chats, and a machine whose speed is known."""
    tiny.write_corpora(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(project, "probe", measured)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    return tmp_path


def answers(name, folder, **changes):
    purpose = PURPOSES[name]
    sources = {source: readable(purpose, source, [f"{source}.jsonl"]) for source in purpose.sources}
    return Answers(
        **{"purpose": purpose, "minutes": 10, "folder": folder, "device": "cpu", "sources": sources} | changes
    )


def silently(line):
    """Hear a report, and say nothing."""


@pytest.fixture(params=PURPOSES)
def made(request, desk):
    wanted = answers(request.param, desk / f"my-{request.param}")
    return wanted, make(wanted, silently)


def test_files_load_and_derive_from_the_recipe_of_the_purpose(made):
    wanted, found = made
    write(found)
    assert sorted(path.name for path in wanted.folder.parent.iterdir() if "my-" in path.name) == [wanted.folder.name]
    recipe, base = load_recipe(str(wanted.folder / "recipe.py")), wanted.purpose.base()
    assert recipe.name == wanted.folder.name and to_plain(recipe.model) == to_plain(base.model)
    assert [type(entry) for entry in recipe.timeline] == [type(entry) for entry in base.timeline]
    assert all(getattr(recipe.corpora[name], "paths") == paths for name, paths in wanted.sources.items())  # noqa: B009
    machine = load_machine(str(wanted.folder / "machine.py"))
    assert machine == replace(Machine(device="cpu").resolved(), rows="auto", positions="auto", compile="auto")
    assert (
        max(
            len(line)
            for text in found.files.values()
            for line in text.splitlines()
            if str(wanted.folder.parent) not in line
        )
        <= 120
    )


def test_the_plan_is_that_of_the_files_and_takes_the_minutes(made):
    wanted, found = made
    phases = [entry for entry in _written(found, wanted).timeline if isinstance(entry, Phase)]
    assert [one["steps"] for one in found.plan["phases"]] == [StepPlan(phase).steps for phase in phases]
    trainings = 4 if wanted.purpose.mixers_of else 1
    taken = trainings * found.plan["totals"]["cost"]["seconds"]
    assert 0.75 * 600 < taken <= 600, "and a little for measurements"
    assert "tokens a parameter" in found.notes[0] and str(wanted.folder / "recipe.py") in found.command


def _written(found, wanted):
    write(found)
    return load_recipe(str(wanted.folder / "recipe.py"))


def test_the_same_answers_make_the_same_files(made):
    wanted, found = made
    assert make(wanted, silently) == found


@pytest.mark.slow
def test_a_rehearsal_trains(made, tmp_path):
    wanted, found = made
    recipe = shrink(_written(found, wanted))
    pipeline.train(recipe, tmp_path / "run", Machine(device="cpu", threads=1), Console(file=StringIO()))
    trained = list((tmp_path / "run").glob("phases/*/final/weights.safetensors"))
    assert len(trained) == sum(isinstance(entry, Phase) for entry in recipe.timeline)


def test_an_ablation_compares_both_mixers_with_nothing_after_them(desk):
    wanted = answers("ablation", desk / "mine")
    recipe = _written(make(wanted, silently), wanted)
    both = variants(recipe, [read_over(wanted.purpose.over())], [0])
    assert [type(one.recipe.model.mixer).__name__ for one in both] == ["HGRN2", "GQA"]
    assert both[1].recipe.model == load_recipe("quickstart-gqa").model and len(recipe.timeline) == 1


def test_streams_are_as_long_as_what_is_read(desk):
    wanted = answers("leaderboard", desk / "mine", minutes=60)
    recipe = _written(make(wanted, silently), wanted)
    read = int(recipe.timeline[0].tokens)
    assert sum(int(corpus.tokens) for corpus in recipe.corpora.values()) == pytest.approx(read, abs=4)
    assert 0.0001 < recipe.split.share <= 0.05 and recipe.timeline[1].name == "mine"


def test_paths_of_any_name_are_written_as_they_are(desk):
    for name in ('it\'s "mine"', "back\\slash", "línea\n", "folder"):
        (desk / name).mkdir()
        (desk / name / "a.txt").write_text("A text of some words.\n" * 50)
        wanted = answers("base", desk / "mine", sources={"texts": readable(PURPOSES["base"], "texts", [name])})
        texts = _written(make(wanted, silently), wanted).corpora["texts"]
        assert texts.paths == (str(desk / name),)
        for path in wanted.folder.iterdir():
            path.unlink()
        wanted.folder.rmdir()


def test_nothing_is_written_over_and_nothing_left_half_written(desk, monkeypatch):
    wanted = answers("try", desk / "mine")
    found = make(wanted, silently)
    monkeypatch.setattr(project, "refuse_taken", silently)  # it came since that looked
    wanted.folder.mkdir()
    (wanted.folder / "recipe.py").write_text("mine")
    with pytest.raises(RunError, match="already exists"):
        write(found)
    assert [path.read_text() for path in desk.rglob("recipe.py")] == ["mine"]
    monkeypatch.setattr(project, "move", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(replace(found, folder=desk / "other"))
    assert not list(desk.glob("other*"))


def _interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("minutes", [0, -3, float("nan"), float("inf"), 1e9])
def test_minutes_that_are_none_are_refused(minutes, tmp_path):
    with pytest.raises(LilliputError, match="training cannot take"):
        answers("try", tmp_path / "mine", minutes=minutes)


def test_few_tokens_and_many_passes_are_said(desk):
    (desk / "long.txt").write_text("A text of some words.\n" * 40_000)
    recipe = replace(load_recipe("own-text"), corpora={"texts": TextFiles(paths=("long.txt",))})
    tokens = corpus_tokens(recipe)
    assert tokens == {"texts": 220_000}

    def said(read):
        phase = replace(recipe.timeline[0], tokens=Tokens(read))
        found = project.plan(replace(recipe, timeline=(phase, recipe.timeline[1])))
        return notes(found, tokens, 600)

    (few,) = said(440_000)
    assert "0.11 tokens a parameter" in few and "20 or more are usual" in few and "d " in few
    enough, often = said(88_000_000)
    assert enough.endswith(": 23 tokens a parameter") and "texts is read about 400 times" in often


def test_conversations_are_counted_and_many_are_left_uncounted(desk, monkeypatch):
    recipe = load_recipe("own-chat")
    found = replace(
        recipe, corpora={**recipe.corpora, "chats": replace(recipe.corpora["chats"], paths=("chats.jsonl",))}
    )
    assert 1_000 < corpus_tokens(found)["chats"] < 3_000
    monkeypatch.setattr("lilliput.start.sizes.SAMPLE", 100)
    assert corpus_tokens(found)["chats"] is None


def test_a_busy_machine_is_said(desk, monkeypatch):
    quiet = make(answers("try", desk / "mine"), silently)
    monkeypatch.setattr("os.getloadavg", lambda: (64.0, 0.0, 0.0))
    busy = make(answers("try", desk / "mine"), silently)
    assert busy.files == quiet.files and busy.notes[:-1] == quiet.notes and "a load of 64.0" in busy.notes[-1]


def test_doctor_and_machine_say_the_same(monkeypatch):
    from lilliput import doctor

    assert doctor.devices()[-1] == "cpu" and "cores" in doctor.described("cpu")
    monkeypatch.setattr(doctor, "Machine", lambda: SimpleNamespace(resolved=lambda: SimpleNamespace(device="cuda")))
    assert doctor.devices() == ["cuda", "cpu"]
