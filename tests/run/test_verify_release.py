"""A published folder is checked against its records, in its run and elsewhere: what was altered is named."""

import io
import json
import shutil

import pytest
import tiny
from rich.console import Console

from lilliput.base.errors import ExportError, LilliputError, RunError
from lilliput.base.files import read_json, verify_checksum, with_checksum, write_json
from lilliput.publish.card.travelling import RECORD_FILE
from lilliput.publish.export import CARD_FILE
from lilliput.run.pipeline import run
from lilliput.run.verify_release import verify_release
from lilliput.train.machine import Machine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    recipe = tiny.recipe(folder / "data", tiny.SPECS["hgrn2"])
    run(recipe, folder / "run", Machine(device="cpu", precision="fp32", threads=1), Console(file=io.StringIO()))
    return folder / "run"


@pytest.fixture
def whole(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def resealed(file, change):
    """A record that somebody altered, with a checksum that fits again."""
    value = verify_checksum(read_json(file))
    change(value)
    write_json(file, with_checksum(value))


def test_releases_of_a_run_hold_in_it_and_elsewhere(whole, tmp_path):
    for name in ("tiny-base", "tiny-instruct"):
        folder = whole / "releases" / name
        inside = verify_release(folder)
        assert inside.figures > 150 and inside.items is not None and inside.items > 100 and not inside.added
        outside = verify_release(shutil.copytree(folder, tmp_path / name))
        assert (outside.figures, outside.parameters, outside.items) == (inside.figures, inside.parameters, None)


def test_words_of_ones_own_are_no_contradiction(whole):
    card = whole / "releases" / "tiny-base" / CARD_FILE
    card.write_text(card.read_text().replace("## Facts", "Thanks to 3 people.\n\n## Facts"))
    assert len(verify_release(card.parent).added) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record["evaluation"]["scores"][1].update(value=0.999), "no share of"),
        (lambda record: record["evaluation"]["scores"][1].update(stderr=0.0001), "standard error"),
        (lambda record: record["phases"][0].update(tokens=7), "phases.0.tokens was"),
        (lambda record: record["release"]["parameters"].update(total=5), "the record 5"),
        (lambda record: record["release"].update(sha256="0" * 64), "has the SHA-256"),
        (lambda record: record["release"].update(bytes=1), "bytes, the record 1"),
        (lambda record: record["corpora"]["texts"].update(index_sha256="0"), "corpora.texts.index_sha256"),
        (lambda record: record["evaluation"].update(averages=[{"name": "ii", "value": 1, "stderr": 0, "formula": ""}]),
         "average ii"),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_the_run_or_itself_is_refused(whole, change, said):
    folder = whole / "releases" / "tiny-base"
    resealed(folder / RECORD_FILE, change)
    with pytest.raises(ExportError, match="contradict each other") as refused:
        verify_release(folder)
    assert said in refused.value.what and refused.value.hint


def test_a_figure_of_the_card_that_is_not_the_records_is_named(whole):
    card = whole / "releases" / "tiny-base" / CARD_FILE
    text = card.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| Parameters |")]
    card.write_text(text.replace(line, line.replace("| ", "| 9", 2).replace("9Parameters", "Parameters")))
    with pytest.raises(ExportError, match="where the record has"):
        verify_release(card.parent)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("\n| Task |", "\n<table><tr><td>MMLU</td><td>61.0%</td></tr></table>\n\n| Task |", "no record has line"),
        ("\n## Facts", "\n  | MMLU | 61.0% |\n\n## Facts", "no record has line"),
        ("  results:\n", "  results:\n  - metrics: [{type: accuracy, value: 0.61}]\n", "model-index.0.results"),
        ("- name: tiny-base", "- name: tiny-70b", "value tiny-70b where the record has tiny-base"),
        ("library_name: ", "library_name: [", "the card cannot be read"),
    ],
)
def test_rows_and_scores_that_no_record_has_are_refused(whole, before, after, said):
    card = whole / "releases" / "tiny-base" / CARD_FILE
    card.write_text(card.read_text().replace(before, after, 1))
    with pytest.raises(ExportError) as refused:
        verify_release(card.parent)
    assert said in refused.value.what and refused.value.where == str(card)
    assert "remove README.md and publish the release again" in refused.value.hint


def test_items_that_give_another_score_are_named(whole):
    items = whole / "evals" / "tiny-base" / "items.jsonl"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    for row in rows:
        if "acc" in row:
            row["acc"] = 1.0
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ExportError, match="its items give 1.000000"):
        verify_release(whole / "releases" / "tiny-base")


def test_a_folder_that_is_not_whole_is_refused(whole, tmp_path):
    folder = whole / "releases" / "tiny-base"
    (folder / RECORD_FILE).rename(tmp_path / RECORD_FILE)
    with pytest.raises(ExportError, match="no record.json"):
        verify_release(folder)
    write_json(folder / RECORD_FILE, with_checksum({"release": {}}))
    with pytest.raises(LilliputError, match="record"):
        verify_release(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="not the file that was released"):
        verify_release(folder)
