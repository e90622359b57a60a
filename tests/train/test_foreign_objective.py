"""The seam of objectives: one that owns parameters, draws, has variants and another headline trains like any other."""

from dataclasses import dataclass, replace

import pytest
import tiny
import torch
import torch.nn.functional as F
from foreign_objective import Halves
from torch import nn
from train.test_loop import MACHINE, same, shards, train  # noqa: F401, shards is a fixture
from train.test_spike_detection import ROWS, Spoilt, numbers

from lilliput.base.errors import RecipeError
from lilliput.base.units import Steps
from lilliput.data.batch import Batch
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import Losses
from lilliput.optim.adamw import AdamW
from lilliput.optim.normuon import NorMuon
from lilliput.train import checkpoint
from lilliput.train.metrics_file import headline_of, recent_loss, steps_of
from lilliput.train.phase import Stage
from lilliput.train.rollback import read_incidents
from lilliput.train.spike_detection import Guard
from lilliput.train.trainable import Trainable


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of rows, with what a reference model thinks of each."""

    corpora: tuple[str, ...] = ("texts",)

    def bytes_per_token(self, tokens):
        return None

    def open(self, tokens):
        return PairReader(tiny.pretraining().data.open(tokens))


class PairReader:
    def __init__(self, reader):
        self.reader = reader

    def read(self, cursor, rows, length, overlap=1):
        batch, after = self.reader.read(cursor, 2 * rows, length, 1)
        pairs = batch.map(lambda one: one.unflatten(0, (rows, 2)))
        extras = {"reference": -0.01 * pairs.tokens.sum(-1) / length}
        return Batch(tokens=pairs.tokens, weight=pairs.weight, document_ids=pairs.document_ids, extras=extras), after

    def skip(self, cursor, rows, length, overlap=1):
        return self.reader.skip(cursor, 2 * rows, length, 1)


@dataclass(frozen=True, kw_only=True)
class Preference:
    """The first of two rows is to be the likelier one, more so than for the reference (arXiv 2305.18290)."""

    tokens_per_position: int = 2
    headline: str = "preference"

    def row_length(self, length):
        return length + 1

    def denominator(self, batch):
        return float(len(batch.tokens))

    def build(self, model, parts):
        return PreferenceModule(model)


class PreferenceModule(nn.Module):
    variants = 1

    def __init__(self, model):
        super().__init__()
        self.model = model

    def active(self, variant):
        return self.model.parameters()

    def forward(self, batch, denominator, variant, progress, noise):
        rows = batch.tokens.flatten(0, 1)
        logits = self.model(rows[:, :-1]).float()
        likely = -F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none").view(len(rows), -1)
        chosen, rejected = (likely.mean(-1).view(-1, 2) - batch.extras["reference"]).unbind(-1)
        loss = -F.logsigmoid(chosen - rejected).sum() / denominator
        return Losses(loss, {"preference": loss.detach()})

    def evaluate(self, batch):
        return None


HALVES = (Stage(share=1.0, objective=Halves()),)
PHASE = tiny.pretraining(steps=16, stages=HALVES)
OWN = ["objective.0.network.bias", "objective.0.network.weight", "objective.0.rows_seen", "objective.0.scale"]


def last(folder):
    return checkpoint.newest(folder / "checkpoints", print).tensors


def equal_checkpoints(one, other):
    ours, theirs = last(one), last(other)
    assert ours.keys() == theirs.keys()
    for kind, tensors in ours.items():
        assert tensors.keys() == theirs[kind].keys()
        unlike = [name for name, value in tensors.items() if not torch.equal(value, theirs[kind][name])]
        assert not unlike, (kind, unlike)


def test_what_it_owns_moves_is_averaged_and_saved(shards, tmp_path):  # noqa: F811
    phase = replace(PHASE, optimizer=NorMuon(lr=6e-3, adam_lr=6e-3))
    model, average, metrics = train(shards, tmp_path, phase=phase)
    first = tiny.HGRN2_SPEC.build(seed=0)
    saved = last(tmp_path)
    assert sorted(saved["objectives"]) == OWN
    assert saved["objectives"]["objective.0.rows_seen"] == 16 * 4 and saved["objectives"]["objective.0.scale"] != 0.5
    assert {f"{name}/exp_avg" for name in OWN if "rows" not in name} <= saved["optimizer"].keys()
    assert {name for name in OWN if "rows" not in name} <= saved["average"].keys()
    assert average.keys() == dict(model.named_parameters()).keys(), "what objectives own ends with the phase"
    assert torch.equal(model.embedding.weight, first.embedding.weight), "no variant trains it: it does not even decay"
    assert not torch.equal(model.layers[0].ffn.down.weight, first.layers[0].ffn.down.weight)
    assert not torch.equal(model.layers[-1].ffn.down.weight, first.layers[-1].ffn.down.weight)
    steps = steps_of(metrics)
    assert {headline_of(line) for line in metrics} == {"denoising"}
    assert all("cross_entropy" not in line and line["grad_norm/objective"] > 0 for line in steps)
    assert recent_loss(steps[-4:]) < recent_loss(steps[:4])
    assert [line["heldout"]["texts"] for line in metrics if "heldout" in line][-1] > 0


def test_a_variant_moves_nothing_that_it_does_not_train(shards, tmp_path):  # noqa: F811
    """Neither by a gradient nor by decay, momentum of other steps or the average."""
    trainable = Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), [Halves()], seed=0)
    upper = {name for name in dict(trainable.named_parameters()) if name.startswith("layers.1")}
    assert upper and not upper & trainable.active(0, 0).keys() and upper <= trainable.active(0, 1).keys()
    train(shards, tmp_path, phase=replace(PHASE, save_every=Steps(1), optimizer=AdamW(lr=6e-3, weight_decay=1.0)))
    moved = []
    for step in (15, 16):
        tensors = checkpoint.load(checkpoint.at_step(tmp_path / "checkpoints", step)).tensors
        moved.append(tensors["weights"] | {f"{name}/average": one for name, one in tensors["average"].items()})
    still = {name for name, value in moved[0].items() if torch.equal(value, moved[1][name])}
    halves = ["layers.0.ffn.down.weight", "layers.1.ffn.down.weight"]
    assert sum(name in still for name in halves) == 1
    assert all((name in still) == (f"{name}/average" in still) for name in moved[0] if "/" not in name)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_killed_run_ends_in_the_same_bits(shards, tmp_path, stop):  # noqa: F811
    """The frozen copy is one of the first weights, and the second variant's momentum is where it was."""
    _, _, metrics = train(shards, tmp_path / "straight", phase=PHASE)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", phase=PHASE, stop=stop)
    _, _, others = train(shards, tmp_path / "killed", phase=PHASE)
    equal_checkpoints(tmp_path / "straight", tmp_path / "killed")
    assert numbers(metrics) == numbers(others)


@pytest.mark.parametrize("stop", [None, 14])
def test_a_rollback_does_not_rebuild_it_around_trained_weights(shards, tmp_path, stop):  # noqa: F811
    """As one that never saw the spoilt text, whose window is left out, but for the steps counted on the way."""
    phase = replace(PHASE, data=Spoilt("nan", 10 * ROWS + 5), guard=Guard(window=6))
    _, _, metrics = train(shards, tmp_path / "straight", phase=phase)
    (incident,) = read_incidents(tmp_path / "straight" / "checkpoints")
    assert (incident["step"], incident["back_to"]) == (11, 8)
    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            train(shards, tmp_path / "killed", phase=phase, stop=stop)
    _, _, others = train(shards, tmp_path / "killed", phase=phase)
    equal_checkpoints(tmp_path / "straight", tmp_path / "killed")
    assert numbers(metrics) == numbers(others)


def test_a_rolled_back_run_is_one_whose_text_skips_the_window(shards, tmp_path):  # noqa: F811
    """The copy of the first weights that a rollback keeps is the one that a run from those weights makes."""

    class Skips:
        corpora = ("texts",)

        def bytes_per_token(self, tokens):
            return 2.0

        def open(self, tokens):
            self.reader = tiny.pretraining().data.open(tokens)
            return self

        def read(self, cursor, *arguments):
            if cursor.of("texts") == 8 * ROWS:
                cursor = type(cursor).from_plain({"texts": 11 * ROWS})
            return self.reader.read(cursor, *arguments)

    phase = replace(PHASE, data=Spoilt("nan", 10 * ROWS + 5))
    train(shards, tmp_path / "spoilt", phase=phase)
    train(shards, tmp_path / "skips", phase=replace(PHASE, data=Skips()))
    equal_checkpoints(tmp_path / "spoilt", tmp_path / "skips")


def test_micro_batches_draw_the_same_noise(shards, tmp_path):  # noqa: F811
    _, _, metrics = train(shards, tmp_path / "whole", phase=PHASE)
    _, _, others = train(shards, tmp_path / "parts", phase=PHASE, machine=replace(MACHINE, rows=1))
    for one, other in zip(steps_of(metrics)[:6], steps_of(others)[:6], strict=True):
        assert one["denoising"] == pytest.approx(other["denoising"], rel=1e-4)


def test_equal_objectives_of_a_phase_are_one_module(shards, tmp_path):  # noqa: F811
    stages = (Stage(share=0.25, objective=Halves()), Stage(share=0.5, objective=NextToken()), *HALVES)
    stages = (*stages[:2], replace(stages[2], share=0.25))
    _, _, metrics = train(shards, tmp_path, phase=replace(PHASE, stages=stages))
    saved = last(tmp_path)
    assert sorted(saved["objectives"]) == OWN and saved["objectives"]["objective.0.rows_seen"] == 8 * 4
    assert [headline_of(line) for line in steps_of(metrics)] == ["denoising"] * 4 + ["cross_entropy"] * 8 + [
        "denoising"
    ] * 4
    trainable = Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), [Halves(), Halves(pull=0.2)], seed=0)
    assert len(trainable.objectives) == 2 and trainable.stages[0] is not trainable.stages[1]


def test_what_no_variant_trains_is_named():
    class Idle(Halves):
        def build(self, model, parts):
            module = super().build(model, parts)
            module.forgotten = nn.Parameter(torch.zeros(()))
            return module

    with pytest.raises(RecipeError, match=r"no variant of the phase's objectives trains objective\.0\.forgotten"):
        Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), [Idle()], seed=0)


def test_what_an_objective_lacks_is_named():
    class Lacking(Halves):
        def build(self, model, parts):
            return nn.Identity()

    with pytest.raises(RecipeError, match="Identity has no active, evaluate, variants"):
        Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), [Lacking()], seed=0)


@pytest.mark.parametrize("rows", [4, 1])
def test_pairs_with_extras_are_trained_on_and_resumed(shards, tmp_path, rows):  # noqa: F811
    """A pair is never split, and what comes with it goes where it goes; held-out numbers are not defined."""
    machine = replace(MACHINE, rows=rows)
    phase = replace(PHASE, data=Pairs(), stages=(Stage(share=1.0, objective=Preference()),))
    straight, _, metrics = train(shards, tmp_path / "straight", phase=phase, machine=machine)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", phase=phase, machine=machine, stop=6 * 4 // rows)
    killed, _, others = train(shards, tmp_path / "killed", phase=phase, machine=machine)
    assert same(straight, killed) and numbers(metrics) == numbers(others)
    steps = steps_of(metrics)
    assert steps[0]["preference"] == pytest.approx(0.7, abs=0.3) and steps[-1]["preference"] < steps[0]["preference"]
    assert {value for line in metrics for value in line.get("heldout", {}).values()} == {None}
