"""The data of a run, looked at: the rows that training reads, decoded, with their sources."""

import json
import os
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
from rich.console import Console
from typer.testing import CliRunner

from lilliput.base.errors import DataError, RecipeError, RunError
from lilliput.cli.app import app
from lilliput.computations.reference_log_probabilities import ReferenceLogProbabilities
from lilliput.data.batch import Cursor
from lilliput.data.corpora.pairs import PairFiles
from lilliput.data.pair_data import PairData
from lilliput.run import before_training
from lilliput.run.data_facts import data_facts
from lilliput.run.run_data import RunData
from lilliput.train.phase import StepPlan, phase_folder
from lilliput.train.resuming import CHECKPOINTS
from lilliput.train.rollback import Incidents, LossSpike


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The data of texts, conversations and pairs, encoded and not trained on."""
    folder = tmp_path_factory.mktemp("look")
    base = tiny.recipe(folder / "texts")
    answers = [[{"role": "assistant", "content": text}] for text in ("yes", "no")]
    rows = [
        {"prompt": [{"role": "user", "content": f"Is {n} a number?"}], "chosen": answers[0], "rejected": answers[1]}
        for n in range(40)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = tiny.pretraining(
        name="prefer", length=128, batch_tokens=4 * 128, data=PairData(corpus="pairs", reference="reference")
    )
    made = replace(
        base,
        corpora={**base.corpora, "pairs": PairFiles(paths=(str(folder / "pairs.jsonl"),))},
        timeline=(
            *base.without_releases().timeline,
            ReferenceLogProbabilities(name="reference", corpus="pairs"),
            pairs,
        ),
    )
    before_training.data(made, folder / "run", Console(file=StringIO()))
    return folder / "run"


def texts(row):
    return ["".join(stretch.text for stretch in one.stretches) for one in row.documents]


def test_rows_of_text_are_those_of_the_corpus_and_the_same_every_time(run):
    found = RunData(run)
    rows = found.rows(found.phase(None), 1, 9)  # more than a step has
    assert rows == RunData(run).rows(0, 1, 9) and [row.number for row in rows] == list(range(9))
    train = []
    for document in found.recipe.corpora["texts"].documents():
        if not found.recipe.split.is_heldout(document.group):
            train.append(document.text)
    for row in rows:
        assert row.source.corpus == "texts" and sum(one.tokens for one in row.documents) == 33
        for text, number in zip(texts(row), row.source.documents, strict=True):
            assert text.removeprefix("<|endoftext|>") in train[number]
        # The first token is the last one of the row before: no target here.
        assert [stretch.is_target for one in row.documents for stretch in one.stretches][:2] == [False, True]


def test_ids_of_documents_are_read_from_the_corpus(run):
    found = RunData(run)
    texts_by_id = {document.id: document.text for document in found.recipe.corpora["texts"].documents()}
    rows = found.rows(0, 1, 5)
    numbers = {number for row in rows for number in row.source.documents}
    ids = found.document_ids("texts", numbers)
    assert ids.keys() == numbers
    for row in rows:
        for text, number in zip(texts(row), row.source.documents, strict=True):
            assert text.removeprefix("<|endoftext|>") in texts_by_id[ids[number]]
    told = CliRunner().invoke(app, ["data", str(run), "--show", "--ids", "--rows", "1"])
    assert told.exit_code == 0 and f"── document {rows[0].source.documents[0]}, d" in told.output, told.output
    (path,) = map(Path, found.recipe.corpora["texts"].paths)
    stat = path.stat()
    try:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
        with pytest.raises(DataError, match="the text of texts has changed"):
            found.document_ids("texts", numbers)
    finally:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_step_is_found_as_training_reads_it_text_that_was_left_out_aside(run):
    found = RunData(run)
    steps = list(found.cursors(0))
    assert steps[0] == Cursor() and len(steps) == StepPlan(found.recipe.phases[0]).steps + 1
    assert found.rows(0, 3, 2) == found.rows(0, 1, 10)[8:]
    folder = run / phase_folder(0, found.recipe.phases[0]) / CHECKPOINTS
    folder.mkdir(parents=True)
    progress = type("Progress", (), {"step": 1, "cursor": steps[1]})
    try:
        Incidents(folder).add(LossSpike("the loss is not finite", 2, steps[2]), progress, 3, "here")
        assert list(found.cursors(0))[1] == steps[2]
    finally:
        (folder / "incidents.json").unlink()


def test_answers_are_targets_and_nothing_else(run):
    found = RunData(run)
    for row in found.rows(found.phase("sft"), 1, 3):
        assert row.source.row is not None and not row.is_of_pairs
        for one in row.documents:
            learned = "".join(stretch.text for stretch in one.stretches if stretch.is_target)
            read = "".join(stretch.text for stretch in one.stretches if not stretch.is_target)
            if one.stretches:
                assert "comes after" in learned and "What comes after" in read and learned.endswith("<|im_end|>")
    (row, *_) = found.rows(found.phase("prefer"), 1, 1)
    chosen, rejected = row.documents[:2]
    assert row.is_of_pairs and "yes" in chosen.stretches[1].text and "no" in rejected.stretches[1].text


def test_what_is_not_there_is_an_error_that_says_how_to_make_it(run, tmp_path):
    found = RunData(run)
    with pytest.raises(RecipeError, match="there is no phase 'sfd'"):
        found.phase("sfd")
    with pytest.raises(RunError, match="there is no step 13"):
        found.rows(0, 13, 1)
    with pytest.raises(RunError):
        RunData(tmp_path)
    record = run / "parts" / "shards.texts.json"
    kept = record.read_bytes()
    try:
        record.unlink()
        with pytest.raises(DataError, match="no token files of 'texts'"):
            RunData(run).rows(0, 1, 1)
        facts = data_facts(RunData(run), None)  # of what is there
        assert [one.name for one in facts.corpora] == ["chats", "pairs"]
        assert [one.phase for one in facts.mixture] == ["sft", "prefer"]
    finally:
        record.write_bytes(kept)
