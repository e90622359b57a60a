"""What only a CUDA device can show: the whole line there, resuming to the bit, and the same numbers as on a CPU."""

import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
import torch
from foreign_objective import Halves
from objectives.test_stochastic_tokens import DATA as TOKENIZATIONS
from rich.console import Console
from train.test_bags import PATCHES, STAGES, phase_of
from train.test_loop import same, shards, train  # noqa: F401, shards is a fixture
from train.test_spike_detection import PHASE, ROWS, Spoilt

import lilliput
from lilliput.base.errors import MachineError
from lilliput.base.files import sha256
from lilliput.base.units import Steps, Tokens
from lilliput.data.batch import Cursor
from lilliput.data.mixture import Mixture
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.objectives.stochastic_tokens import StochasticTokens
from lilliput.objectives.targets import MultiToken, PrefixToken
from lilliput.ops.newton_schulz import Backend, orthogonalize
from lilliput.optim.adamw import AdamW
from lilliput.optim.muon import Muon
from lilliput.optim.normuon import VARIANTS, NorMuon
from lilliput.optim.optimizer import set_multiplier, state_tensors
from lilliput.plan.synthetic_data import RandomRows
from lilliput.run.pipeline import run
from lilliput.tokenizer.bpe import BPE
from lilliput.train.checkpoint import newest
from lilliput.train.compile import compiled
from lilliput.train.cuda_graphs import CapturedOptimizerStep, forward_backward_of, optimizer_step_of
from lilliput.train.forward_backward import StepInputs
from lilliput.train.machine import Machine
from lilliput.train.memory import give_back
from lilliput.train.metrics_file import steps_of
from lilliput.train.micro_batches import read_rows
from lilliput.train.phase import Stage
from lilliput.train.precision import autocast, precision_of
from lilliput.train.ranks import OneRank
from lilliput.train.rollback import read_incidents
from lilliput.train.spike_detection import Guard
from lilliput.train.trainable import Trainable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature"),
    # PyTorch 2.11 warns of what it does itself while it compiles.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores for float32 matrix multiplication"),
]

CUDA = Machine(device="cuda", precision="bf16", threads=1)
BLOCKS = (DiffusionBlocks(blocks=2), DiffusionBlocks(blocks=2, clean_share=0.5))


@pytest.mark.parametrize("name", tiny.SPECS)
def test_a_run_ends_in_releases_that_write_what_they_write_on_a_cpu(name, tmp_path):
    recipe = tiny.recipe(tmp_path / "data", tiny.SPECS[name])
    releases = run(recipe, tmp_path / "run", CUDA, Console(file=StringIO()))
    again = run(recipe, tmp_path / "again", CUDA, Console(file=StringIO()))
    for one, other in zip(releases, again, strict=True):
        assert sha256(one / "model.safetensors") == sha256(other / "model.safetensors")
    here, there = (lilliput.load(releases[-1], device=device) for device in ("cuda", "cpu"))
    context, choices = "small models learn", ["little", "by", "text"]
    for one, other in zip(here.score(context, choices), there.score(context, choices), strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)
    assert here.generate("small models", greedy=True) == there.generate("small models", greedy=True)


@pytest.mark.parametrize("stages", [STAGES, PATCHES], ids=["bags and multi-token", "patches"])
@pytest.mark.parametrize("stop", [3, 5, 9])
def test_bags_that_shrink_resume_to_the_bit_across_each_switch(shards, tmp_path, stages, stop):  # noqa: F811
    """Weights of further targets fall in every step, inside of graphs too: a replay that kept them would differ."""
    settings = {"phase": phase_of(stages), "machine": CUDA}
    straight, average, metrics = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", stop=stop, **settings)
    resumed, other, _ = train(shards, tmp_path / "resumed", **settings)
    assert same(straight, resumed) and all(torch.equal(average[key], other[key]) for key in average)
    _, _, eager = train(shards, tmp_path / "eager", phase=phase_of(stages), machine=replace(CUDA, compile="off"))
    expected = [line["cross_entropy"] for line in steps_of(eager)]
    assert [line["cross_entropy"] for line in steps_of(metrics)] == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("stop", [5, 9])
def test_several_tokenizations_resume_to_the_bit(shards, tmp_path, stop):  # noqa: F811
    shards["texts"].tokenizer = BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(200)])
    stages = tuple(Stage(share=1 / 3, objective=StochasticTokens(segmentations=count)) for count in (4, 2, 1))
    settings = {"phase": tiny.pretraining(data=TOKENIZATIONS, stages=stages), "machine": CUDA}
    straight, _, _ = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", stop=stop, **settings)
    assert same(straight, train(shards, tmp_path / "resumed", **settings)[0])


@pytest.mark.parametrize("stop", [3, 5])
def test_prefix_tokens_resume_to_the_bit(shards, tmp_path, stop):  # noqa: F811
    """Their weight falls in every step, inside of graphs too."""
    shards["texts"].tokenizer = BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(200)])
    data = Mixture(weights={"texts": 1.0}, prefix_tokens=True)
    fading = {"prefix": PrefixToken(until=0.8), "further": MultiToken(count=2, until=0.9)}
    stages = tuple(Stage(share=0.5, objective=NextToken(bag=bag, **fading)) for bag in (2, 1))
    settings = {"phase": tiny.pretraining(data=data, stages=stages), "machine": CUDA}
    straight, _, metrics = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", stop=stop, **settings)
    assert same(straight, train(shards, tmp_path / "resumed", **settings)[0])
    _, _, eager = train(shards, tmp_path / "eager", **settings | {"machine": replace(CUDA, compile="off")})
    expected = [line["cross_entropy"] for line in steps_of(eager)]
    assert [line["cross_entropy"] for line in steps_of(metrics)] == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("name", tiny.SPECS)
@pytest.mark.parametrize("optimizer", [None, NorMuon(lr=1e-2, adam_lr=1e-2)], ids=["adamw", "normuon"])
@pytest.mark.parametrize(("stop", "precision"), [(1, "bf16"), (7, "bf16"), (9, "bf16"), (9, "fp16")])
def test_resume_is_exact_to_the_bit(shards, tmp_path, name, optimizer, stop, precision):  # noqa: F811
    phase = tiny.pretraining() if optimizer is None else replace(tiny.pretraining(), optimizer=optimizer)
    settings = {"spec": tiny.SPECS[name], "phase": phase, "machine": replace(CUDA, precision=precision)}
    straight, average, _ = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", stop=stop, **settings)
    resumed, other_average, _ = train(shards, tmp_path / "resumed", **settings)
    assert same(straight, resumed)
    assert all(torch.equal(average[key], other_average[key]) for key in average)


@pytest.mark.parametrize("how", ["noise", "nan"])
def test_spoilt_text_is_left_out_to_the_bit(shards, tmp_path, how):  # noqa: F811
    """Of step 11, in replayed graphs: back to step 8, and on behind it, killed on the way or not."""
    settings = {"phase": replace(PHASE, data=Spoilt(how, 10 * ROWS + 5)), "machine": CUDA}
    straight, _, metrics = train(shards, tmp_path / "straight", **settings)
    (incident,) = read_incidents(tmp_path / "straight" / "checkpoints")
    assert (incident["step"], incident["back_to"]) == (11, 8)
    assert ("jumped" if how == "noise" else "not finite") in incident["why"]
    assert [line["step"] for line in metrics if "cross_entropy" in line] == list(range(1, 25))
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", stop=14, **settings)
    assert same(straight, train(shards, tmp_path / "killed", **settings)[0])


def test_text_that_is_no_text_is_skipped_in_fp16(shards, tmp_path):  # noqa: F811
    """Its gradients are not finite at any scale of the loss: the step is not taken, and nothing else is lost."""
    machine = replace(CUDA, precision="fp16")
    _, _, untouched = train(shards, tmp_path / "untouched", phase=PHASE, machine=machine)
    model, _, metrics = train(
        shards, tmp_path, phase=replace(PHASE, data=Spoilt("nan", 10 * ROWS + 5)), machine=machine
    )
    one, other = ([line["skipped"] for line in each if "skipped" in line][-1] for each in (untouched, metrics))
    assert other == one + 1
    assert not read_incidents(tmp_path / "checkpoints")
    assert all(value.isfinite().all() for value in model.parameters())


WIDE = replace(
    tiny.GQA_SPEC,
    width=256,
    layers=4,
    mixer=GQA(heads=4, kv_heads=2, head_width=64, qk_norm=True),
    ffn=SwiGLU(inner=512),
)
"""Of activations that are much larger than anything that stays."""
MANY_ROWS = tiny.pretraining(
    length=512, batch_tokens=64 * 512, tokens=Tokens(6 * 64 * 512), save_every=Steps(2), measure_every=Steps(99)
)


@pytest.fixture
def bound():
    """Bounds the memory of this process to so many bytes, for the length of a test."""

    def set_bound(most):
        give_back("cuda")
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / torch.cuda.mem_get_info()[1]))

    yield set_bound
    torch.cuda.set_per_process_memory_fraction(1.0)
    give_back("cuda")


@pytest.mark.parametrize("missing", [0, 3])  # of the targets: text in another order lacks some
def test_replayed_passes_are_launched_ones_to_the_bit(missing):
    """In several micro-batches, as many times as one likes: a run that goes on launches what the other replays."""
    machine, reader = replace(CUDA, compile="graphs").resolved(), RandomRows(300, document=60)
    model = WIDE.build(seed=0).to("cuda")
    batches = [reader.read(Cursor(), rows, 513)[0] for rows in (16, 8, 16)]
    batches[0].weight[1, 5 : 5 + missing] = 0
    trainable = Trainable.of_phase(model, [NextToken()], seed=0)
    precision = precision_of("cuda", "bf16", trainable)
    inputs = StepInputs(step=0, stage=0, variant=0, progress=0.0, seed=0)
    found = []
    with compiled(model, machine.compile):
        passes = forward_backward_of(machine.compile, trainable, precision, OneRank())
        for _ in range(4):  # the first is launched
            parts = passes(inputs, batches, 40 * 512.0)
            gradients = {name: one.grad.clone() for name, one in model.named_parameters()}
            found.append(gradients | {name: value.clone() for name, value in parts.items()})
            model.zero_grad()
        assert len(passes._graphs) == 3, "one for each number of rows, and one of the first that begins a step"
    for other in found[1:]:
        assert [name for name, value in found[0].items() if not torch.equal(value, other[name])] == []


def test_replayed_updates_are_launched_ones_to_the_bit():
    """At rates that change, and where gradients come to lie elsewhere on the way."""
    ends = {}
    for how in ("blocks", "graphs"):
        model = WIDE.build(seed=0).cuda()
        optimizer = AdamW(lr=1e-2).build(model)
        update, draw = optimizer_step_of(how, optimizer, OneRank()), torch.Generator("cuda").manual_seed(0)
        assert isinstance(update, CapturedOptimizerStep) == (how == "graphs")
        moved = []
        for step in range(9):
            if step == 5:
                moved = [parameter.grad for parameter in model.parameters()]
                optimizer.zero_grad()
            for parameter in model.parameters():
                gradient = torch.randn(parameter.shape, generator=draw, device="cuda")
                parameter.grad = gradient if parameter.grad is None else parameter.grad.copy_(gradient)
            set_multiplier(optimizer, 1 / (1 + step))
            update(0)
        assert len(moved) == len(list(model.parameters()))
        ends[how] = dict(model.named_parameters()) | state_tensors(optimizer, model)
    launched, replayed = ends.values()
    assert [name for name, value in launched.items() if not torch.equal(value, replayed[name])] == []


HALVES = replace(
    tiny.pretraining(steps=24, stages=(Stage(share=1.0, objective=Halves()),)),
    guard=Guard(window=6),
    save_every=Steps(4),
)


@pytest.mark.parametrize("how", ["off", "blocks", "graphs"])
@pytest.mark.parametrize("optimizer", [AdamW(lr=6e-3), NorMuon(lr=6e-3, adam_lr=6e-3)], ids=["adamw", "normuon"])
@pytest.mark.parametrize("stop", [3, 9, 14])
def test_a_foreign_objective_ends_in_the_same_bits(shards, tmp_path, how, optimizer, stop):  # noqa: F811
    """Two variants by turns, each with graphs and an update of its own, noise inside, text of step 11 spoilt."""
    phase = replace(HALVES, optimizer=optimizer, data=Spoilt("nan", 10 * ROWS + 5))
    settings = {"spec": tiny.GQA_SPEC, "phase": phase, "machine": replace(CUDA, compile=how)}
    straight, average, _ = train(shards, tmp_path / "straight", **settings)
    assert read_incidents(tmp_path / "straight" / "checkpoints")[0]["back_to"] == 8
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", stop=stop, **settings)
    killed, other_average, _ = train(shards, tmp_path / "killed", **settings)
    assert same(straight, killed) and all(torch.equal(average[key], other_average[key]) for key in average)
    one, other = (newest(tmp_path / run / "checkpoints", print).tensors for run in ("straight", "killed"))
    assert one["objectives"].keys() == other["objectives"].keys() and len(one["objectives"]) == 4
    assert all(torch.equal(value, other["objectives"][name]) for name, value in one["objectives"].items())


@pytest.mark.parametrize("how", ["off", "graphs"])
@pytest.mark.parametrize("route", BLOCKS, ids=["blocks alone", "mixed"])
@pytest.mark.parametrize(("stop", "precision"), [(5, "bf16"), (9, "bf16"), (14, "fp16")])
def test_denoising_blocks_end_in_the_same_bits(shards, tmp_path, how, route, stop, precision):  # noqa: F811
    """Levels and noise are new in every replay, which moves the layers of its own block: as in eager steps."""
    stages = tuple(Stage(share=share, objective=NextToken(bag=bag, route=route)) for share, bag in ((0.5, 2), (0.5, 1)))
    machine = replace(CUDA, compile=how, precision=precision)
    settings = {"spec": tiny.GQA_SPEC, "phase": phase_of(stages, steps=24), "machine": machine}
    straight, average, metrics = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", stop=stop, **settings)
    killed, other_average, _ = train(shards, tmp_path / "killed", **settings)
    assert same(straight, killed) and all(torch.equal(average[key], other_average[key]) for key in average)
    if how == "graphs":
        eager = settings | {"machine": replace(machine, compile="off")}
        _, _, others = train(shards, tmp_path / "eager", **eager)
        found, expected = ([line["cross_entropy"] for line in steps_of(each)] for each in (metrics, others))
        assert found == pytest.approx(expected, rel=3e-2)


def test_replays_draw_new_noise_and_move_what_their_variant_trains(shards, tmp_path):  # noqa: F811
    """Graphs end where eager steps do, to rounding: were noise or variant those that were captured, far from it."""
    ends = {}
    for how in ("off", "graphs"):
        machine = replace(CUDA, precision="fp32", compile=how)
        train(shards, tmp_path / how, spec=tiny.GQA_SPEC, phase=HALVES, machine=machine)
        saved = newest(tmp_path / how / "checkpoints", print).tensors
        ends[how] = saved["weights"] | saved["objectives"]
    assert ends["off"]["objective.0.rows_seen"] == ends["graphs"]["objective.0.rows_seen"] == 24 * 4
    far = {name: float((value - ends["graphs"][name]).abs().max()) for name, value in ends["off"].items()}
    assert max(far.values()) < 2e-3, far


PROCESS = """
import hashlib, sys
from pathlib import Path
from lilliput.data.shards import Shards
from test_cuda import CUDA, MANY_ROWS, WIDE, train
shards = {"texts": Shards(Path(sys.argv[1]))}
model, _, _ = train(shards, Path(sys.argv[2]), spec=WIDE, phase=MANY_ROWS, machine=CUDA)
print(hashlib.sha256(b"".join(one.detach().cpu().numpy().tobytes() for one in model.parameters())).hexdigest())
"""


def test_processes_that_compile_by_themselves_end_in_the_same_bits(shards, tmp_path):  # noqa: F811
    """A run may go on after a reboot, when nothing that was compiled is left: nothing may depend on what was timed."""

    def ends(name):
        command = [sys.executable, "-c", PROCESS, str(shards["texts"].folder), str(tmp_path / name)]
        there = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / name / "compiled")}
        return subprocess.run(command, cwd=Path(__file__).parent, env=there, capture_output=True, check=True).stdout

    one, other = ends("one"), ends("other")
    assert one and one == other


def losses(metrics):
    return [(line["step"], line["cross_entropy"], line["grad_norm"]) for line in metrics if "grad_norm" in line]


@pytest.mark.parametrize("how", ["off", "blocks", "graphs"])
def test_rows_are_found_where_memory_runs_out(shards, tmp_path, bound, how):  # noqa: F811
    """64 rows do not fit where 16 do, nearly; the weights are those of the rows that were found, killed or not."""
    told = replace(CUDA, compile=how, rows=16)
    found = replace(told, rows="memory")
    settings = {"spec": WIDE, "phase": MANY_ROWS}
    give_back("cuda")
    torch.cuda.reset_peak_memory_stats()
    train(shards, tmp_path / "told", machine=told, **settings)
    bound(1.3 * torch.cuda.max_memory_reserved())
    model, average, metrics = train(shards, tmp_path / "found", machine=found, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", machine=found, stop=13, **settings)
    resumed, _, _ = train(shards, tmp_path / "killed", machine=found, **settings)
    bound(torch.cuda.mem_get_info()[1])
    records = read_rows(tmp_path / "found" / "checkpoints")
    assert all(one["rows"] < 64 for one in records) and {one["stage"] for one in records} == {0, 1}
    (tmp_path / "again" / "checkpoints").mkdir(parents=True)
    record = (tmp_path / "found" / "checkpoints" / "rows.json").read_bytes()
    (tmp_path / "again" / "checkpoints" / "rows.json").write_bytes(record)
    again, other_average, other_metrics = train(shards, tmp_path / "again", machine=found, **settings)
    assert losses(metrics) == losses(other_metrics), records
    assert same(model, again) and all(torch.equal(average[key], other_average[key]) for key in average)
    if read_rows(tmp_path / "killed" / "checkpoints") == records:
        assert same(model, resumed)
    if len({one["rows"] for one in records}) == 1:
        said = replace(told, rows=records[0]["rows"])
        assert same(model, train(shards, tmp_path / "said", machine=said, **settings)[0])


def test_where_one_row_does_not_fit_it_says_how_much_there_was(shards, tmp_path, bound):  # noqa: F811
    torch.cuda.synchronize()
    phase = replace(MANY_ROWS, length=16_384, batch_tokens=2 * 16_384, tokens=Tokens(4 * 2 * 16_384))
    give_back("cuda")
    bound(torch.cuda.memory_reserved() + 200 * 2**20)
    with pytest.raises(MachineError, match="one row of 16,384 positions .*cuda: .* this process may have") as error:
        train(shards, tmp_path, spec=WIDE, phase=phase, machine=replace(CUDA, rows="memory"))
    assert "shorter rows" in error.value.hint


@pytest.mark.parametrize("name", tiny.SPECS)
def test_fp32_training_reaches_the_loss_of_a_cpu(shards, tmp_path, name):  # noqa: F811
    phase = tiny.pretraining(steps=20)
    machines = {"cuda": replace(CUDA, precision="fp32"), "cpu": Machine(device="cpu", precision="fp32", threads=1)}
    ends = {
        device: train(shards, tmp_path / device, spec=tiny.SPECS[name], phase=phase, machine=machine)[2][-1]
        for device, machine in machines.items()
    }
    assert ends["cuda"]["heldout"]["texts"] == pytest.approx(ends["cpu"]["heldout"]["texts"], abs=5e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "optimizer",
    [
        *(NorMuon(lr=1e-2, adam_lr=1e-2, variant=variant) for variant in VARIANTS),
        Muon(lr=1e-2, adam_lr=1e-2),
        AdamW(lr=1e-2),
        AdamW(lr=1e-2, cautious=True),
    ],
    ids=[*VARIANTS, "muon", "adamw", "cautious adamw"],
)
def test_no_step_makes_the_host_wait(optimizer, precision):
    model = tiny.ODIN_SPEC.build(seed=0).cuda()
    built = optimizer.build(model)
    set_multiplier(built, 1.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            with autocast("cuda", precision):
                built.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(now.isfinite().all() for now in model.parameters())
    assert not any(torch.equal(now, first) for now, first in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_fused_orthogonalisation_is_as_close_as_the_naive_one(precision):
    matrices = torch.randn(3, 256, 640, device="cuda")
    exact = orthogonalize(matrices.double(), backend=Backend.REFERENCE)
    with autocast("cuda", precision):
        naive, fused = (orthogonalize(matrices, backend=each) for each in (Backend.REFERENCE, Backend.TORCH))
    errors = [float((found - exact).norm() / exact.norm()) for found in (naive, fused)]
    assert errors[1] < 1.5 * errors[0] + 1e-5 and errors[0] < 0.1
