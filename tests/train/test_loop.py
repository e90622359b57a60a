"""The loop: resume to the bit, micro-batches, checkpoints that are whole, plans that follow from tokens."""

import math
from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from rich.console import Console

from lilliput.base.errors import DataError, MachineError, RecipeError, RunError
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.adamw import AdamW
from lilliput.optim.ema import Ema, NoEma
from lilliput.tokenizer.bpe import BPE
from lilliput.train import checkpoint, loop
from lilliput.train.grad_clip import GradientClipper
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import measured_of, read_metrics, released, steps_of
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.phase import KEPT_FOLDER, Stage, StepPlan
from lilliput.train.resuming import BEFORE_DECAY
from lilliput.train.validation import make_validator

MACHINE = Machine(device="cpu", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    texts, _ = tiny.write_corpora(folder)
    tokenizer = BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(200)])
    write_shards(TextFiles(paths=(str(texts),)), tokenizer, Split(share=0.1), folder / "texts")
    return {"texts": Shards(folder / "texts")}


def train(
    shards, folder, *, spec=tiny.HGRN2_SPEC, phase=None, machine=MACHINE, seed=3, stop=None, keep=False, begin=None
):
    """Train a phase and return the model, its average and its metrics.

    `stop` interrupts before a step, `keep` keeps the state before the decay, and `begin` gives one to begin with.
    """
    phase = phase or tiny.pretraining()
    model = spec.build(seed=0).to(machine.device)
    folder.mkdir(parents=True, exist_ok=True)
    reader = phase.data.open(shards)
    if stop is not None:
        reader = Interrupted(reader, stop)
    average = loop.Trainer(
        model,
        phase,
        reader,
        machine,
        folder=folder / "checkpoints",
        seed=seed,
        report=lambda line: None,
        before_decay=folder / BEFORE_DECAY if keep else None,
        kept=folder / KEPT_FOLDER,
        begin=begin,
    ).train(
        lambda step: MetricsLogger(
            folder / "metrics.jsonl", Console(file=StringIO()), phase.name, StepPlan(phase).steps, step, 2.0
        ),
        make_validator(shards, phase.length, machine),
    )
    return model, average, read_metrics(folder / "metrics.jsonl")


class Interrupted:
    """A reader that is pulled out after so many reads."""

    def __init__(self, reader, reads):
        self.reader, self.reads = reader, reads

    def read(self, *arguments):
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return self.reader.read(*arguments)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", tiny.SPECS)
@pytest.mark.parametrize("stop", [1, 5, 7, 9])
def test_resume_is_exact_to_the_bit(shards, tmp_path, name, stop):
    """Stops lie before the first checkpoint, after one, across the stage boundary at step 6, and after two."""
    straight, average, metrics = train(shards, tmp_path / "straight", spec=tiny.SPECS[name])
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", spec=tiny.SPECS[name], stop=stop)
    resumed, other_average, other_metrics = train(shards, tmp_path / "resumed", spec=tiny.SPECS[name])
    assert same(straight, resumed)
    assert all(torch.equal(average[key], other_average[key]) for key in average)
    clock = {"seconds", "tokens_per_second"}
    assert [{k: v for k, v in line.items() if k not in clock} for line in metrics] == [
        {k: v for k, v in line.items() if k not in clock} for line in other_metrics
    ]


def test_the_loss_falls_and_the_record_says_so(shards, tmp_path):
    _, _, metrics = train(shards, tmp_path, phase=tiny.pretraining(steps=30, measure_every=Share(0.5)))
    steps = [line for line in metrics if "cross_entropy" in line]
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert steps[-1]["tokens"] == 30 * 4 * 32
    assert steps[-1]["cross_entropy"] < 0.8 * steps[0]["cross_entropy"]
    measured = [line["heldout"]["texts"] for line in metrics if "heldout" in line]
    assert len(measured) == 2 and measured[1] < measured[0]


def test_norms_by_role_make_up_the_norm_and_are_taken_before_clipping(shards, tmp_path):
    _, _, metrics = train(shards, tmp_path, phase=tiny.pretraining(steps=3, clip=1e-3))
    for line in steps_of(metrics):
        parts = [value for name, value in line.items() if name.startswith("grad_norm/")]
        assert len(parts) >= 3 and math.hypot(*parts) == pytest.approx(line["grad_norm"], rel=1e-5)


def test_clipping_is_that_of_torch_to_the_bit():
    model, twin = tiny.HGRN2_SPEC.build(seed=0), tiny.HGRN2_SPEC.build(seed=0)
    for place, (one, other) in enumerate(zip(model.parameters(), twin.parameters(), strict=True)):
        if place != 2:  # a layer may be left out of a step
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
    assert torch.equal(GradientClipper(model).clip(0.5)["grad_norm"], norm)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert one.grad is other.grad is None or torch.equal(one.grad, other.grad)


def test_live_weights_are_measured_besides_the_average(shards, tmp_path):
    _, _, metrics = train(shards, tmp_path / "average", phase=tiny.pretraining(steps=6, ema=Ema(decay=0.9)))
    (last,) = measured_of(metrics)[-1:]
    held = last["heldout"]
    assert (last["step"], last["tokens"]) == (6, metrics[-2]["tokens"])
    assert set(held) == {"texts", "texts/live"} and held["texts"] != held["texts/live"]
    assert released(last) == {"texts": held["texts"]}
    _, _, metrics = train(shards, tmp_path / "alone", phase=tiny.pretraining(steps=6, ema=NoEma()))
    assert set(measured_of(metrics)[-1]["heldout"]) == {"texts"}


def test_incidents_stay_beside_the_metrics(shards, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path, stop=5)
    phase = replace(tiny.pretraining(), optimizer=AdamW(lr=1e30))
    with pytest.raises(RunError, match="is not finite"):
        train(shards, tmp_path, phase=phase)
    found = read_metrics(tmp_path / "incidents.jsonl")
    assert (found[0]["incident"], found[0]["step"]) == ("resumed", 4)
    assert found[-1]["incident"] == "set back" and "not finite" in found[-1]["what"]


def test_the_peak_of_memory_is_that_of_this_process(tmp_path):
    with MetricsLogger(tmp_path / "metrics.jsonl", Console(file=StringIO()), "one", 1, 0, None, device="cpu") as watch:
        watch.log_step(1, 8, 8, {"cross_entropy": 1.0})
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert 50e6 < line["peak_memory"] < 100e9


def test_micro_batches_change_nothing_but_rounding(shards, tmp_path):
    whole, _, _ = train(shards, tmp_path / "whole")
    split, _, _ = train(shards, tmp_path / "split", machine=replace(MACHINE, rows=1))
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-4)


def test_bf16_reaches_nearly_the_same_loss(shards, tmp_path):
    phase = replace(tiny.pretraining(steps=30), optimizer=AdamW(lr=3e-3))
    wide = train(shards, tmp_path / "fp32", phase=phase)[2]
    narrow = train(shards, tmp_path / "bf16", phase=phase, machine=replace(MACHINE, precision="bf16"))[2]
    assert abs(wide[-1]["heldout"]["texts"] - narrow[-1]["heldout"]["texts"]) < 0.15


def test_a_diverged_run_stops_before_the_bad_step(shards, tmp_path):
    phase = replace(tiny.pretraining(), optimizer=AdamW(lr=1e30))
    with pytest.raises(RunError, match="is not finite"):
        train(shards, tmp_path, phase=phase)


def test_any_seed_will_do(shards, tmp_path):
    train(shards, tmp_path, seed=2**70 + 1)


def test_nothing_held_out_is_said_before_training(shards):
    class Empty:
        heldout_size = 0
        folder = "texts"

    with pytest.raises(DataError, match="nothing of 'texts' is held out"):
        make_validator({"texts": Empty()}, 32, MACHINE)


def test_another_seed_or_stage_is_another_run(shards, tmp_path):
    one, _, _ = train(shards, tmp_path / "a")
    stages = (Stage(share=1.0, objective=NextToken()),)
    other, _, _ = train(shards, tmp_path / "b", phase=replace(tiny.pretraining(), stages=stages))
    assert not same(one, other), "the z-loss of the first stage must matter"


def test_a_term_ends_with_its_stage_and_the_rest_goes_on(shards, tmp_path):
    """A z-loss of the first 40%: text, schedule and moments go on as where it never ends."""
    charged = NextToken(terms=(CrossEntropy(), ZLoss(weight=0.1)))
    stages = (Stage(share=0.4, objective=charged), Stage(share=0.6, objective=NextToken()))
    model, _, metrics = train(shards, tmp_path / "ends", phase=tiny.pretraining(steps=10, stages=stages))
    steps = steps_of(metrics)
    assert [line["step"] for line in steps if "z_loss" in line] == [1, 2, 3, 4]
    all_along = (Stage(share=1.0, objective=charged),)
    longer, _, others = train(shards, tmp_path / "goes on", phase=tiny.pretraining(steps=10, stages=all_along))
    others = steps_of(others)
    assert all(
        line[name] == other[name] for name in ("lr", "tokens") for line, other in zip(steps, others, strict=True)
    )
    equal = [line["cross_entropy"] == other["cross_entropy"] for line, other in zip(steps, others, strict=True)]
    assert equal == [True] * 5 + [False] * 5, "the fifth update is the first one without it"
    assert not same(model, longer)


def test_checkpoints_are_rotated_and_hashed(shards, tmp_path):
    train(shards, tmp_path)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000008", "step-000012"]
    reports = []
    assert checkpoint.newest(folder, reports.append).progress.step == 12
    damaged = folder / "step-000012" / "optimizer.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    assert checkpoint.newest(folder, reports.append).progress.step == 8
    assert len(reports) == 1 and "optimizer.safetensors" in reports[0]
    (folder / "step-000008" / "weights.safetensors").unlink()
    with pytest.raises(RunError, match="all 2 checkpoints are damaged"):
        checkpoint.newest(folder, reports.append)


def test_a_half_written_checkpoint_counts_as_none(tmp_path):
    (tmp_path / "step-000004.partial").mkdir()
    (tmp_path / "step-000008").mkdir()
    (tmp_path / "step-000008" / "weights.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path, print) is None


def test_a_plan_follows_from_tokens():
    phase = tiny.pretraining()
    assert StepPlan(phase).steps == 12 and StepPlan(phase).rows == 4
    assert [StepPlan(phase).stage(step) for step in (0, 5, 6, 11)] == [0, 0, 1, 1]
    bagged = replace(
        phase,
        tokens=Tokens(128 * 100),
        stages=(Stage(share=0.5, objective=NextToken(bag=4)), Stage(share=0.5, objective=NextToken(bag=2))),
    )
    assert StepPlan(bagged).steps == 100 // 3, "half the steps read 4 tokens a position, half 2"
    assert [step for step in range(1, 13) if StepPlan(phase).is_due(Steps(5), step)] == [5, 10, 12]
    assert [step for step in range(1, 13) if StepPlan(phase).is_due(Share(0.25), step)] == [3, 6, 9, 12]
    assert [step for step in range(1, 13) if StepPlan(phase).is_due(Share(0.92), step)] == [12], "not at 11, too"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_tokens": 100}, "no multiple of length"),
        ({"stages": (Stage(share=0.5, objective=NextToken()),)}, "do not add up to 1"),
        ({"tokens": Tokens(10)}, "less than one step"),
    ],
)
def test_impossible_phases_are_refused(changes, says):
    with pytest.raises(RecipeError, match=says) as error:
        replace(tiny.pretraining(), **changes)
    assert "pretrain" in error.value.where


def test_a_bag_reads_its_own_length_of_text(shards, tmp_path):
    phase = tiny.pretraining(
        steps=8, stages=(Stage(share=1.0, objective=NextToken(bag=2)),), length=16, batch_tokens=64
    )
    _, _, metrics = train(shards, tmp_path, phase=phase)
    assert metrics[0]["tokens"] == 2 * 64


def test_micro_rows_add_up():
    assert Machine(rows=3).micro_batch_sizes(8, 100) == [3, 3, 2]
    assert Machine(positions=250).micro_batch_sizes(8, 100) == [2, 2, 2, 2]
    assert Machine(positions=50).micro_batch_sizes(2, 100) == [1, 1]


def test_a_machine_settles_what_it_has():
    resolved = Machine(device="cpu").resolved()
    assert (
        resolved.precision in ("fp32", "bf16") and isinstance(resolved.threads, int) and resolved.resolved() == resolved
    )
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="no device 'cuda'"):
            Machine(device="cuda").resolved()
