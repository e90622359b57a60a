"""fp16 with a scaled loss: as good as fp32, exact on resuming, and its skipped steps leave nothing behind."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from train.test_loop import MACHINE, Interrupted, same, shards, train  # noqa: F401, shards is a fixture

from lilliput.base.errors import DivergenceError
from lilliput.data.batch import Batch
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.ops import linear
from lilliput.optim.adamw import AdamW
from lilliput.optim.normuon import NorMuon
from lilliput.optim.optimizer import set_multiplier, state_tensors
from lilliput.train import machine, precision
from lilliput.train.checkpoint import newest
from lilliput.train.fp16_range import watch_activations
from lilliput.train.precision import GROWS_AFTER, LARGEST_SCALE, ScaledPrecision, Scaling, WidePrecision, autocast

FP16 = replace(MACHINE, precision="fp16")
NORMUON = NorMuon(lr=1e-2, adam_lr=8e-3)


def batch():
    tokens = torch.randint(0, 300, (2, 17), generator=torch.Generator().manual_seed(5))
    document_ids = (torch.arange(17) > 9).int().expand(2, -1)
    return Batch(tokens=tokens, weight=torch.ones(2, 17), document_ids=document_ids)


def loss(model, terms=(CrossEntropy(), ZLoss())):
    one = batch()
    objective = NextToken(terms=terms)
    module = build_objectives([objective], model, seed=0)[0]
    return module(one, objective.denominator(one), 0, torch.zeros(()), Noise("cpu")).loss


def scaled_by(scale, model):
    scaled = ScaledPrecision("cpu", model)
    scaled.load(scaled.tensors() | {"scale": torch.tensor(scale, dtype=torch.float64)})
    return scaled


class Poisoned:
    """A model one of whose gradients is infinite in some of its backward passes, counted from 0."""

    def __init__(self, spec, name, which):
        self.spec, self.name, self.which = spec, name, which

    def build(self, seed):
        model, passes = self.spec.build(seed), iter(range(10_000))
        poison = lambda grad: torch.full_like(grad, torch.inf) if next(passes) in self.which else None  # noqa: E731
        model.get_parameter(self.name).register_hook(poison)
        return model


@pytest.mark.parametrize("name", ["gqa", "odin"])
def test_fp16_reaches_the_loss_of_fp32(shards, tmp_path, name):  # noqa: F811
    phase = tiny.pretraining(steps=30, optimizer=NORMUON)
    ends = {
        kind: train(shards, tmp_path / kind, spec=tiny.SPECS[name], phase=phase, machine=replace(FP16, precision=kind))
        for kind in ("fp32", "fp16")
    }
    wide, narrow = (ends[kind][2][-1]["heldout"]["texts"] for kind in ends)
    assert abs(wide - narrow) < 0.05
    assert not same(ends["fp32"][0], ends["fp16"][0]), "products were as wide as before"


@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-2), NORMUON], ids=["adamw", "normuon"])
@pytest.mark.parametrize("stop", [1, 6, 11])
def test_a_killed_run_ends_as_one_that_was_not(shards, tmp_path, monkeypatch, optimizer, stop):  # noqa: F811
    """With skips before and after checkpoints, a scale that grows again, and looks at activations."""
    monkeypatch.setattr(precision, "GROWS_AFTER", 3)
    monkeypatch.setattr(precision, "LOOKS_EVERY", 5)
    settings = {"phase": tiny.pretraining(optimizer=optimizer), "machine": FP16}

    def poisoned(start):
        """The straight run's passes 2, 3 and 9, however many of them a first process made."""
        return Poisoned(tiny.GQA_SPEC, "layers.1.ffn.down.weight", {number - start for number in (2, 3, 9)})

    straight, average, metrics = train(shards, tmp_path / "straight", spec=poisoned(0), **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", spec=poisoned(0), stop=stop, **settings)
    reached = newest(tmp_path / "resumed" / "checkpoints", print)
    passes = 0 if reached is None else int(sum(reached.tensors["precision"][key] for key in ("taken", "skipped")))
    resumed, other_average, other_metrics = train(shards, tmp_path / "resumed", spec=poisoned(passes), **settings)
    assert same(straight, resumed)
    assert all(torch.equal(average[key], other_average[key]) for key in average)
    clock = {"seconds", "tokens_per_second"}
    assert [{k: v for k, v in line.items() if k not in clock} for line in metrics] == [
        {k: v for k, v in line.items() if k not in clock} for line in other_metrics
    ]
    scales = [line["loss_scale"] for line in metrics if "loss_scale" in line]
    assert min(scales) == LARGEST_SCALE / 4 and scales[-1] > min(scales)
    assert [line["step"] for line in metrics if "headroom" in line] == [1, 3, 6, 8, 11], "every fifth, and after skips"


def test_an_infinite_gradient_skips_the_step_and_halves_the_scale(shards, tmp_path):  # noqa: F811
    spec = Poisoned(tiny.GQA_SPEC, "layers.0.mixer.query.weight", {4})
    model, average, metrics = train(shards, tmp_path, spec=spec, machine=FP16)
    steps = [line for line in metrics if "loss_scale" in line]
    assert [line["step"] for line in steps] == list(range(1, 13)), "as many steps are taken as were planned"
    assert [line["skipped"] for line in steps] == [0] * 4 + [1] * 8
    assert [line["loss_scale"] for line in steps] == [LARGEST_SCALE] * 4 + [LARGEST_SCALE / 2] * 8
    assert [line["tokens"] for line in steps] == [128 * (line["step"] + line["skipped"]) for line in steps]
    assert all(value.isfinite().all() for value in (*model.parameters(), *average.values()))


def test_a_skipped_step_changes_nothing_but_the_scale():
    model = Poisoned(tiny.ODIN_SPEC, "layers.0.ffn_gate.logit", {1}).build(seed=0)
    optimizer, scaled = NORMUON.build(model), scaled_by(2.0**10, model)
    set_multiplier(optimizer, 1.0)

    def step():
        with scaled.cast():
            total = loss(model)
        scaled.scale(total).backward()
        taken = scaled.step(optimizer.step, float(scaled.clip(1.0)["grad_norm"]), "here")
        optimizer.zero_grad()
        return taken

    def everything():
        state = dict(model.named_parameters()) | state_tensors(optimizer, model)
        return {name: value.detach().clone() for name, value in state.items()}

    assert step()
    before = everything()
    assert not step()
    assert all(torch.equal(value, before[name]) for name, value in everything().items())
    assert scaled.metrics().items() >= {"loss_scale": 2.0**9, "skipped": 1}.items()
    assert step()
    assert not torch.equal(model.embedding.weight, before["embedding.weight"])


def test_gradients_are_those_of_the_loss_itself():
    model, twin = (tiny.HGRN2_SPEC.build(seed=0) for _ in range(2))
    scaled, wide = scaled_by(2.0**10, model), WidePrecision("cpu", "fp32", twin)
    for kind, each in ((scaled, model), (wide, twin)):
        with kind.cast():
            total = loss(each)
        kind.scale(total).backward()
    norms = [kind.clip(0.1)["grad_norm"] for kind in (scaled, wide)]
    assert torch.allclose(*norms, rtol=1e-3) and norms[0] > 0.1
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert (one.grad - other.grad).norm() < 0.02 * other.grad.norm()


def test_the_scale_moves_as_that_of_torch_but_is_bounded():
    scaling, theirs, tracker = Scaling(scale=2.0**8), torch.full((1,), 2.0**8), torch.zeros(1, dtype=torch.int32)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20_000):
        infinite = torch.rand(1, generator=generator) < 3e-4
        scaling.skip() if infinite else scaling.take()
        torch._amp_update_scale_(theirs, tracker, infinite.float(), 2.0, 0.5, GROWS_AFTER)
        assert scaling.scale == theirs.item() < LARGEST_SCALE
    assert scaling.skipped > 3 and scaling.taken + scaling.skipped == 20_000
    for _ in range(12 * GROWS_AFTER):
        scaling.take()
    assert scaling.scale == LARGEST_SCALE


def test_what_no_scale_helps_ends_the_run(shards, tmp_path):  # noqa: F811
    phase = replace(tiny.pretraining(), optimizer=AdamW(lr=1e6))
    with pytest.raises(DivergenceError, match="not finite 20 times in a row, last that of .*weight") as error:
        train(shards, tmp_path, phase=phase, machine=FP16)
    assert "of phase 'pretrain'" in error.value.where and "bf16 or fp32" in error.value.hint


def test_wide_precisions_add_nothing():
    """To the bit: backward, clip, step."""
    model, twin = (tiny.GQA_SPEC.build(seed=0) for _ in range(2))
    ours, theirs = (NORMUON.build(each) for each in (model, twin))
    wide = WidePrecision("cpu", "bf16", model)
    for optimizer in (ours, theirs):
        set_multiplier(optimizer, 1.0)
    for _ in range(2):
        with wide.cast():
            total = loss(model)
        wide.scale(total).backward()
        assert wide.step(ours.step, float(wide.clip(1.0)["grad_norm"]), "here")
        with torch.autocast("cpu", torch.bfloat16):
            total = loss(twin)
        total.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            theirs.step()
        for optimizer in (ours, theirs):
            optimizer.zero_grad()
    assert same(model, twin) and wide.tensors() == wide.metrics() == {}


WIDE_OPS = {
    "_log_softmax", "_softmax", "cos", "cumsum", "exp", "log", "log_sigmoid_backward", "log_sigmoid_forward",
    "logsumexp", "pow", "rsqrt", "sin", "tanh",
}  # fmt: skip


class Witness(TorchDispatchMode):
    """Sees what dtypes an operation of some names gets."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        for argument in arguments:
            if isinstance(argument, torch.Tensor) and argument.is_floating_point():
                self.seen.setdefault(name, set()).add(argument.dtype)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("name", tiny.SPECS)
def test_gates_norms_rotations_and_losses_are_fp32_in_fp16(name):
    model = tiny.SPECS[name].build(seed=0)
    with Witness() as witness:
        with autocast("cpu", "fp16"):
            total = loss(model)
        (total * 2.0**12).backward()
    assert torch.float16 in witness.seen["mm"]
    found = {name: dtypes for name, dtypes in witness.seen.items() if name in WIDE_OPS}
    assert {"logsumexp", "pow", "rsqrt"} <= set(found) and ("log_sigmoid_forward" in found) == (name != "gqa")
    narrow = {name for name, dtypes in found.items() if torch.float16 in dtypes}
    assert narrow <= {"_softmax"}, "that of the logits' gradient, whose sums and results are fp32"
    assert total.dtype == torch.float32


def test_headroom_is_what_is_left_above_the_largest_activation():
    layers = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        layers[0].weight.fill_(0.0).fill_diagonal_(250.0)
        layers[1].weight.fill_(2.0)
    with watch_activations() as headroom:
        layers(torch.tensor([[-1.0, 0.5, 0.0, 0.0]]))
    assert headroom.value() == pytest.approx(65_504 / 250)
    with watch_activations() as headroom, autocast("cpu", "fp16"):
        layers(torch.tensor([[300.0, 0.0, 0.0, 0.0]]))
    assert headroom.value() == 0.0
    layers(torch.tensor([[1e6, 0.0, 0.0, 0.0]]))
    assert headroom.largest() == torch.inf, "nothing is seen any more"


@pytest.mark.parametrize("fused", [False, True], ids=["apart", "as one"])
@pytest.mark.parametrize("name", ["gqa", "odin"])
def test_headroom_sees_every_matrix_of_a_layer(monkeypatch, name, fused):
    """Also those that several projections are one product of, as on a GPU."""
    monkeypatch.setattr(linear, "should_fuse", lambda x: fused)
    matrices = [
        name for name, module in tiny.SPECS[name].skeleton().layers.named_modules() if isinstance(module, nn.Linear)
    ]
    assert len(matrices) == 2 * 7
    with watch_activations() as usual:
        loss(tiny.SPECS[name].build(seed=0))
    for matrix in matrices:
        model = tiny.SPECS[name].build(seed=0)
        with torch.no_grad(), watch_activations() as headroom:
            model.layers.get_submodule(matrix).weight.mul_(1e9)
            loss(model)
        assert headroom.largest() > 1e4 * usual.largest(), matrix


def test_gpus_without_bf16_get_fp16(monkeypatch):
    for able, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert machine._best_precision("cuda") == expected
