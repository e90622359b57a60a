"""A card tells what happened to its run: what it was made with, what changed, which steps were taken back."""

import shutil
from dataclasses import dataclass, replace
from io import StringIO

import pytest
import tiny
import torch
from card_records import record_of
from rich.console import Console

from lilliput.base.files import read_json, verify_checksum, with_checksum, write_json
from lilliput.data.mixture import Mixture
from lilliput.publish.card.card import card
from lilliput.run import pipeline
from lilliput.train.machine import Machine
from lilliput.train.spike_detection import Guard

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
ROWS = 4 * 32
"""Tokens of a step."""


@dataclass(frozen=True, kw_only=True)
class Spiked(Mixture):
    """A mixture with noise instead of text where it covers a position."""

    at: int

    def open(self, tokens):
        return Noisy(super().open(tokens), self.at)


class Noisy:
    def __init__(self, reader, at):
        self._reader, self._at, self.tokens_available = reader, at, reader.tokens_available

    def read(self, cursor, *arguments):
        batch, after = self._reader.read(cursor, *arguments)
        if cursor.of("texts") <= self._at < after.of("texts"):
            noise = torch.randint(300, batch.tokens.shape, generator=torch.Generator().manual_seed(7))
            batch = replace(batch, tokens=noise)
        return batch, after


def how_it_was_trained(text):
    return text.partition("## How it was trained")[2].partition("## Data")[0]


def test_a_quiet_run_needs_two_sentences():
    said = how_it_was_trained(card(record_of(chat=True)))
    assert (
        "Training began and ended on `cpu` (AVX512), products in `bf16`, threads: 2, with lilliput 0.1.0, torch" in said
    )
    assert "No step had to be taken back." in said and "promise" not in said and "Back to step" not in said


def test_a_record_of_before_says_nothing_of_what_it_did_not_note():
    said = how_it_was_trained(card(record_of(chat=False) | {"made_with": None}))
    assert "Training began" not in said and "No step had to be taken back." in said


def test_conversations_are_left_out_by_rows():
    record = record_of(chat=True)
    incident = {"step": 31, "why": "the loss jumped | to <9>", "back_to": 1_020, "from": {}, "to": {"questions": 1_024}}
    record["phases"][1]["incidents"] = [incident | {"step": 1_031}]
    said = how_it_was_trained(card(record))
    assert "| sft | 1,031 | the loss jumped \\| to &lt;9> | 1,020 (11 back) | 1,024 rows of questions |" in said


@pytest.mark.slow
def test_a_spike_and_a_change_of_versions_are_on_the_card_of_a_real_run(tmp_path):
    """The text of step 11 of 24 is noise; before the end the run goes on with another PyTorch than it began with."""
    recipe, run = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC), tmp_path / "run"
    spiked = Spiked(weights={"texts": 1.0}, at=10 * ROWS + 5)
    phase = tiny.pretraining(steps=24, guard=Guard(window=6, loss=4.0), data=spiked)
    recipe = replace(recipe, timeline=(phase, recipe.timeline[2]))
    pipeline.train(recipe, run, MACHINE, Console(file=StringIO()))
    record, checkpoints = verify_checksum(read_json(run / "run.json")), run / "phases" / "00-pretrain" / "checkpoints"
    write_json(run / "run.json", with_checksum(record | {"made_with": record["made_with"] | {"torch": "2.0.0"}}))
    shutil.rmtree(checkpoints.with_name("final"))
    shutil.rmtree(checkpoints / "step-000024")
    (release,) = pipeline.run(recipe, run, None, Console(file=StringIO()), allow_change=True)
    said = how_it_was_trained((release / "README.md").read_text())
    assert "Training began on `cpu` (" in said and "torch 2.0.0" in said and "and ended on" not in said
    assert "promise of equal bits" in said
    assert f'- in phase `pretrain`: `made_with.torch was "2.0.0", not "{torch.__version__}"`' in said
    (row,) = (line for line in said.splitlines() if line.startswith("| pretrain | 11 |"))
    assert "the loss jumped to" in row and "| 8 (3 back) | 384 tokens of texts |" in row
    assert "No step had to be taken back" not in said
