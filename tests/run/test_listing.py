"""Run folders from outside: what they hold, what may go, and that nothing else does."""

import shutil
from dataclasses import replace
from io import StringIO

import pytest
import tiny
from rich.console import Console

from lilliput.api import load
from lilliput.base.errors import LilliputError, RecipeError, RunError
from lilliput.base.files import PARTIAL, read_json, sha256, write_json
from lilliput.base.run_folder import RunFolder, differences
from lilliput.base.spec import to_plain
from lilliput.base.units import Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.evals.suites import HELDOUT
from lilliput.more_tokens import with_more_tokens
from lilliput.report.page import write_report
from lilliput.run import before_training, pipeline
from lilliput.run.listing import find, overview, remove, shards, since, spare
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import measured_of, read_metrics

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
CONSOLE = Console(file=StringIO())


def hashes(folder):
    return {path.parent.name: sha256(path) for path in folder.rglob("model.safetensors")}


def heldout_score(folder, release):
    scores = read_json(folder / "evals" / f"{release}.json")["scores"]
    return next(score for score in scores if score["task"] == HELDOUT.display)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run made verb by verb, with its overview after each."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = tiny.recipe(folder / "data", tiny.GQA_SPEC)
    states = []
    for step in (
        lambda: before_training.tokenizer(recipe, folder / "run", CONSOLE),
        lambda: before_training.data(recipe, folder / "run", CONSOLE),
        lambda: pipeline.train(recipe, folder / "run", MACHINE, CONSOLE),
        lambda: pipeline.publish(recipe, folder / "run", CONSOLE),
    ):
        step()
        states.append(overview(folder / "run").state)
    return recipe, folder / "run", states


def test_each_verb_does_its_part(run):
    _, folder, states = run
    assert states == ["tokenizer", "token files", "sft: trained", "published"]
    assert overview(folder).releases == ("tiny-base", "tiny-instruct")
    assert find(folder.parent) == [folder] == find(folder)


def test_the_headline_is_the_released_figure_and_says_what_it_was_before_fine_tuning(run):
    _, folder, _ = run
    before = measured_of(read_metrics(folder / "phases/00-pretrain/metrics.jsonl"))[-1]["heldout"]["texts"]
    note = f"{before:.4f} before sft, which was trained on other data"
    score = heldout_score(folder, "tiny-instruct")
    assert note in score["note"] and note in (folder / "releases/tiny-instruct/README.md").read_text()
    page = write_report(folder).read_text()
    assert f"<b>{score['value']:.3f}</b> bits per byte<small>held-out text, tiny-instruct; {note}</small>" in page
    assert "before" not in heldout_score(folder, "tiny-base")["note"]


def test_a_release_older_than_its_run_is_told(run, tmp_path):
    recipe, folder, _ = run
    shutil.copytree(folder, tmp_path / "run")
    longer = with_more_tokens(recipe, ["sft=1e6"])
    write_json(tmp_path / "run" / "recipe.json", to_plain(longer))
    found = overview(tmp_path / "run")
    assert list(found.outdated) == ["tiny-instruct"] and found.state != "published"
    with pytest.warns(UserWarning, match=r"tiny-instruct is older than sft-2, whose training is not finished; renew"):
        load(tmp_path / "run")
    assert not overview(folder).outdated and load(folder)
    assert "is older than sft-2" in write_report(tmp_path / "run").read_text()


@pytest.mark.slow
def test_verbs_one_by_one_make_the_models_that_run_makes(run, tmp_path):
    recipe, folder, _ = run
    pipeline.run(recipe, tmp_path / "whole", MACHINE, CONSOLE)
    assert hashes(tmp_path / "whole") == hashes(folder)


def test_publish_never_trains(run, tmp_path):
    recipe, _, _ = run
    with pytest.raises(RunError, match="not been trained"):
        pipeline.publish(recipe, tmp_path / "run", CONSOLE)
    before_training.data(recipe, tmp_path / "run", CONSOLE)
    with pytest.raises(RunError, match="lilliput train"):
        pipeline.publish(recipe, tmp_path / "run", CONSOLE)
    assert not (tmp_path / "run" / "phases").exists()


def test_publishing_without_a_release_is_refused_with_what_can_be_done(tmp_path):
    recipe = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC)
    with pytest.raises(RecipeError, match="makes no release of what it trains") as caught:
        pipeline.publish(replace(recipe, timeline=recipe.timeline[:1]), tmp_path / "run", CONSOLE)
    assert f"lilliput generate {tmp_path / 'run'}" in caught.value.hint


def test_a_changed_recipe_never_throws_training_away(run):
    recipe, folder, _ = run
    longer = replace(recipe.timeline[0], tokens=Tokens(20 * 4 * 32))
    before = hashes(folder)
    with pytest.raises(
        RunError,
        match=r"phase.tokens.count was 1536, not 2560[\s\S]*hint: to resume, repeat the --set [\s\S]*lilliput clean",
    ):
        pipeline.train(replace(recipe, timeline=(longer, *recipe.timeline[1:])), folder, None, CONSOLE)
    pipeline.run(recipe, folder, None, CONSOLE)
    assert hashes(folder) == before


def test_what_a_trained_phase_rests_on_is_not_replaced_either(run):
    """Neither tokenizer nor token files, whatever the verb: they were what the refusal would be too late for."""
    recipe, folder, _ = run
    before = {
        path: path.read_bytes() for path in (folder / "tokenizer", folder / "shards") for path in path.rglob("*.json")
    }
    other = replace(recipe, tokenizer=replace(recipe.tokenizer, vocab=290), model=replace(recipe.model, vocab=290))
    for verb in (before_training.tokenizer, before_training.data, pipeline.publish):
        with pytest.raises(RunError, match="trained on other tokens: tokenizer.vocab was 300, not 290"):
            verb(other, folder, CONSOLE)
        with pytest.raises(RunError, match="seed was 0, not"):
            verb(replace(recipe, seed=5), folder, CONSOLE)
    assert {path: path.read_bytes() for path in before} == before
    pipeline.run(recipe, folder, None, CONSOLE)


def test_spare_parts_go_and_the_run_stays_whole(run):
    recipe, folder, _ = run
    (folder / f"report.html{PARTIAL}").write_text("half")
    (folder / f"notes{PARTIAL}").write_text("somebody's own")
    found = spare(folder)
    assert {one.name for one in found} == {
        "phases/00-pretrain/checkpoints",
        "phases/04-sft/checkpoints",
        f"report.html{PARTIAL}",
    }
    before = hashes(folder)
    assert remove(folder, found) == sum(one.size for one in found) > 0
    assert not spare(folder) and (folder / f"notes{PARTIAL}").read_text() == "somebody's own"
    pipeline.run(recipe, folder, None, CONSOLE)
    assert hashes(folder) == before


def test_token_files_are_written_again(run):
    recipe, folder, _ = run
    remove(folder, shards(folder))
    assert not list((folder / "shards").glob("*"))
    before = hashes(folder)
    pipeline.run(recipe, folder, None, CONSOLE)
    assert hashes(folder) == before and len(shards(folder)) == 2


@pytest.mark.slow
def test_giving_a_part_up_gives_up_what_came_after(run):
    recipe, folder, _ = run
    found = since(folder, "phases/04-sft")
    assert [one.name for one in found] == ["phases/04-sft", "releases/tiny-instruct", "evals/tiny-instruct"]
    before = hashes(folder)
    remove(folder, found)
    assert overview(folder).releases == ("tiny-base",)
    pipeline.run(recipe, folder, None, CONSOLE)
    assert hashes(folder) == before
    with pytest.raises(LilliputError, match="one of: tokenizer, shards/texts, shards/chats, phases/00-pretrain"):
        since(folder, "phases/00-pretrian")


@pytest.mark.slow
def test_a_card_that_somebody_edited_stays(run):
    recipe, folder, _ = run
    release, card = folder / "releases" / "tiny-base", folder / "cards" / "tiny-base.md"
    readme, before = release / "README.md", hashes(folder)
    written = readme.read_bytes()
    assert card.read_bytes() == written

    def publish():
        screen = StringIO()
        pipeline.publish(recipe, folder, Console(file=screen, width=200))
        return screen.getvalue()

    assert "edited" not in publish() and readme.read_bytes() == written
    own = written.replace(b"## License", b"## With thanks to\r\n\nthe cat.\n\n## License")
    readme.write_bytes(own)
    assert "kept as cards/tiny-base.edited.md" in since(folder, "releases/tiny-base")[0].why
    assert f"tiny-base: README.md was edited and stays as it is; the card as of now is {card}\n" in publish()
    assert readme.read_bytes() == own and card.read_bytes() == written
    (release / "model.safetensors").unlink()  # so that the whole folder is made again
    assert "edited" in publish() and hashes(folder) == before
    assert readme.read_bytes() == own and card.read_bytes() == written
    card.unlink()  # as in a run of before there were any
    assert "edited" in publish() and readme.read_bytes() == own
    readme.write_bytes(written)
    card.write_bytes(own)  # as a kill leaves them between the two
    assert "edited" not in publish() and card.read_bytes() == written
    readme.unlink()
    assert "edited" not in publish() and readme.read_bytes() == written


def test_nothing_is_removed_from_a_run_in_use(run):
    _, folder, _ = run
    with RunFolder(folder), pytest.raises(RunError, match="another process"):
        remove(folder, shards(folder))
    assert shards(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(LilliputError, match="folder does not exist"):
        spare(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_differences_name_the_place():
    old = {"a": {"b": [1, 2]}, "c": 1}
    assert differences(old, {"a": {"b": [1, 3]}, "d": 2}) == [
        "a.b.1 was 2, not 3",
        "c was 1, not null",
        "d was null, not 2",
    ]
    assert not differences(old, old)


@pytest.mark.slow
def test_what_weights_were_trained_on_is_theirs_for_good(tmp_path):
    """A line more in a text: no verb replaces tokenizer and token files, nor makes others where they are gone."""
    recipe = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC)
    folder, texts = tmp_path / "run", tmp_path / "data" / "texts.jsonl"
    pipeline.train(recipe, folder, MACHINE, CONSOLE)
    rests = {path: path.read_bytes() for name in ("tokenizer", "shards") for path in (folder / name).rglob("*.*")}
    texts.write_text(texts.read_text() + '{"text": "one more line"}\n')
    for verb in (before_training.tokenizer, before_training.data, pipeline.publish):
        screen = StringIO()
        verb(recipe, folder, Console(file=screen, width=200))
        assert "texts: the text has changed since the run read it, the run goes on with what" in screen.getvalue()
        assert {path: path.read_bytes() for path in rests} == rests
    assert overview(folder).state == "published"
    other = replace(recipe, corpora=recipe.corpora | {"texts": TextFiles(paths=("elsewhere.jsonl",))})
    with pytest.raises(RunError, match=r"trained on another corpus: texts.paths.0 was .*elsewhere.jsonl"):
        pipeline.publish(other, folder, CONSOLE)
    (folder / "shards" / "texts" / "index.json").unlink()
    for verb in (before_training.data, pipeline.publish):
        with pytest.raises(RunError, match="shards/texts is damaged and cannot be made again"):
            verb(recipe, folder, CONSOLE)
    assert {path: path.read_bytes() for path in rests if path.exists()} == {
        path: data for path, data in rests.items() if path != folder / "shards" / "texts" / "index.json"
    }


def test_another_text_under_the_same_relative_name_is_told_of_and_read_before_training_only(tmp_path, monkeypatch):
    """A run that was copied to a folder with texts of its own under that name, and came back."""
    recipe = tiny.recipe(tmp_path / "here" / "data", tiny.GQA_SPEC)
    recipe = replace(recipe, corpora=recipe.corpora | {"texts": TextFiles(paths=("data/texts.jsonl",))})
    recipe = replace(recipe, timeline=recipe.timeline[:1])
    monkeypatch.chdir(tmp_path / "here")
    before_training.data(recipe, tmp_path / "here" / "run", CONSOLE)
    there = tmp_path / "there"
    shutil.copytree(tmp_path / "here" / "run", there / "run")
    (there / "data").mkdir()
    lines = (tmp_path / "here" / "data" / "texts.jsonl").read_text().splitlines(keepends=True)
    (there / "data" / "texts.jsonl").write_text("".join(reversed(lines)) + '{"text": "one line more"}\n')
    monkeypatch.chdir(there)
    for verb, said in ((before_training.data, "it is read again"), (pipeline.train, "")):
        screen = StringIO()
        settings = (MACHINE,) if verb is pipeline.train else ()
        verb(recipe, there / "run", *settings, Console(file=screen, width=200))
        assert ("texts: the text has changed since the run read it" in screen.getvalue()) == bool(said)
        assert said in screen.getvalue()
    monkeypatch.chdir(tmp_path / "here")
    screen = StringIO()
    before_training.data(recipe, there / "run", Console(file=screen, width=200))
    assert "the run goes on with what it was trained on" in screen.getvalue()
