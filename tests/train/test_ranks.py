"""Data parallel: two processes over gloo train what one would, exchange once a step, and one goes on after them."""

import os
import signal
import socket
from dataclasses import replace
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import wait

import pytest
import tiny
import torch
from foreign_objective import Halves
from rich.console import Console
from safetensors.torch import load_file

from lilliput.base.errors import MachineError, RecipeError, RunError
from lilliput.base.files import read_json
from lilliput.base.spec import to_plain
from lilliput.more_tokens import with_more_tokens
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.recipe import load_machine
from lilliput.run import pipeline
from lilliput.train import gradient_buckets
from lilliput.train.all_reduce import AllRanks, AllReduce
from lilliput.train.forward_backward import EagerForwardBackward
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import read_metrics
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.micro_batches import read_rows
from lilliput.train.phase import Stage
from lilliput.train.rollback import read_incidents
from lilliput.train.samples import SAMPLES

ONE = Machine(device="cpu", precision="fp32", threads=1, rows=2)
TWO = replace(ONE, exchange=AllReduce(workers=2))
SFT = "phases/02-sft"
PRETRAIN = "phases/00-pretrain"

_forks = get_context("forkserver")
_forks.set_forkserver_preload(["test_train_workers", "torch._dynamo"])


def recipe(work):
    whole = tiny.recipe(work / "data", tiny.HGRN2_SPEC)
    growths = tuple(entry for entry in whole.timeline if type(entry).__name__ != "Release")
    return replace(whole, timeline=growths[:1] + growths[2:])


def longer(work):
    """Pretraining, and as many more tokens as twice its decay and a few steps."""
    whole = recipe(work)
    return with_more_tokens(replace(whole, timeline=whole.timeline[:1]), [str(16 * 128)])


def worker(work, run, machine, rank, port, make, killed_after, signalled_after, struck_at, narrow, apart, told):
    """One of two workers, on one host or apart; tells what it exchanged, by step."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": "0" if apart else str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    seen, send, exchanged = MetricsLogger.log_step, gradient_buckets._send, []
    differentiate, passes = EagerForwardBackward.differentiate, iter(range(1_000))

    def narrowly(self, inputs, batch, *arguments):
        if rank == 1 and next(passes) >= narrow and len(batch.tokens) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return differentiate(self, inputs, batch, *arguments)

    def see(self, step, *numbers):
        seen(self, step, *numbers)
        if step == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == signalled_after:
            os.kill(os.getpid(), signal.SIGTERM)

    def counted(bucket):
        if rank == 1 and len(exchanged) + 1 == struck_at:
            bucket.parameters[0].grad.fill_(torch.inf)
        exchanged.append(bucket.flat.numel())
        return send(bucket)

    MetricsLogger.log_step, gradient_buckets._send = see, counted
    if narrow is not None:
        EagerForwardBackward.differentiate = narrowly
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(143))
    pipeline.train(make(work), run, machine, Console(file=StringIO()))
    told.send(exchanged)


def together(
    work,
    run,
    machine=TWO,
    killed_after=None,
    signalled_after=None,
    struck_at=None,
    narrow=None,
    apart=False,
    processes_of=_forks,
    make=recipe,
):
    """What each worker exchanged, or the exit codes where not all ended by themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [processes_of.Pipe(duplex=False) for _ in range(2)]
    what = (make, killed_after, signalled_after, struck_at, narrow, apart)
    processes = [
        processes_of.Process(target=worker, args=(work, run, machine, rank, port, *what, pipe[1]), daemon=True)
        for rank, pipe in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    wait([process.sentinel for process in processes], 120)
    for process in processes:
        # As torchrun does: where one is gone, NCCL lets the other wait for ever.
        process.join(20 if any(each.exitcode for each in processes) else 120)
        process.kill()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    return [pipe[0].recv() for pipe in pipes] if codes == [0, 0] else codes


def alone(work, run, machine=ONE, **how):
    pipeline.train(recipe(work), run, machine, Console(file=StringIO()), **how)


def weights(run):
    return {
        f"{phase}/{name}": value
        for phase in (PRETRAIN, SFT)
        for name, value in load_file(run / phase / "final" / "weights.safetensors").items()
    }


def far(one, other):
    """The largest difference of two runs' weights."""
    others = weights(other)
    return max(float((value - others[name]).abs().max()) for name, value in weights(one).items())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder with a run by one process, in as many micro-batches as two workers have together."""
    work = tmp_path_factory.mktemp("workers")
    alone(work, work / "one")
    return work


@pytest.fixture(scope="module")
def two(straight):
    """What two workers exchanged, with one micro-batch each a step."""
    return together(straight, straight / "two")


@pytest.fixture(scope="module")
def many(straight):
    """The same with two micro-batches each."""
    return together(straight, straight / "many", replace(TWO, rows=1))


def once_a_step(run):
    """The numbers of an exchange a step, taken or skipped: as many as the phase has parameters."""
    exchanged = []
    for phase in (PRETRAIN, SFT):
        steps = [line for line in read_metrics(run / phase / "metrics.jsonl") if "cross_entropy" in line]
        sizes = load_file(run / phase / "final" / "weights.safetensors").values()
        exchanged += [sum(value.numel() for value in sizes)] * int(len(steps) + steps[-1].get("skipped", 0))
    return exchanged


def numbers(run, until):
    lines = read_metrics(run / PRETRAIN / "metrics.jsonl")[:until]
    flat = [line.pop("heldout", {}) | line for line in lines]
    return [
        value
        for line in flat
        for name, value in line.items()
        if "second" not in name and "bytes" not in name and name not in ("peak_memory", "headline", SAMPLES)
    ]


def test_two_workers_train_what_one_does_and_exchange_once_a_step(straight, two):
    assert two == [once_a_step(straight / "two")] * 2 and len(two[0]) > 12
    assert far(straight / "one", straight / "two") < 1e-5
    assert numbers(straight / "two", 99) == pytest.approx(numbers(straight / "one", 99), rel=1e-5)


def halves(work):
    """Pretraining on an objective that owns parameters, draws noise and trains half of the layers a step."""
    first = recipe(work).timeline[0]
    return replace(recipe(work), timeline=(replace(first, stages=(Stage(share=1.0, objective=Halves()),)),))


def test_two_ranks_draw_and_train_what_one_does(straight):
    """Only what a variant trains is exchanged, and each row has the noise that it has on one rank."""
    exchanged = together(straight, straight / "halves", make=halves)
    pipeline.train(halves(straight), straight / "halves alone", ONE, Console(file=StringIO()))
    ours, theirs = (
        load_file(straight / run / PRETRAIN / "final/weights.safetensors") for run in ("halves", "halves alone")
    )
    assert max(float((value - theirs[name]).abs().max()) for name, value in ours.items()) < 1e-5
    whole = sum(value.numel() for value in ours.values())
    assert exchanged[0] == exchanged[1] and all(0 < sent < 0.7 * whole for sent in exchanged[0])
    assert numbers(straight / "halves", 6)[1:] == pytest.approx(numbers(straight / "halves alone", 6)[1:], rel=1e-4)


def denoising(work):
    """Pretraining of one block a step, with a share of ordinary loss through all layers."""
    first, route = recipe(work).timeline[0], DiffusionBlocks(blocks=2, clean_share=0.5)
    stages = (Stage(share=1.0, objective=NextToken(route=route)),)
    return replace(recipe(work), timeline=(replace(first, stages=stages),))


def test_two_ranks_denoise_what_one_does_and_exchange_the_block_alone(straight):
    exchanged = together(straight, straight / "blocks", make=denoising)
    pipeline.train(denoising(straight), straight / "blocks alone", ONE, Console(file=StringIO()))
    ours, theirs = (
        load_file(straight / run / PRETRAIN / "final/weights.safetensors") for run in ("blocks", "blocks alone")
    )
    assert max(float((value - theirs[name]).abs().max()) for name, value in ours.items()) < 1e-4
    whole = sum(value.numel() for value in ours.values())
    assert exchanged[0] == exchanged[1] and all(0 < sent < whole for sent in exchanged[0])
    assert numbers(straight / "blocks", 6)[1:] == pytest.approx(numbers(straight / "blocks alone", 6)[1:], rel=1e-4)


@pytest.mark.slow
def test_two_workers_go_on_before_a_decay_and_one_is_killed_there(straight):
    """They begin with the same state, each from the disk, and again after a kill in the second phase."""
    together(straight, straight / "longer", make=longer)
    codes = together(straight, straight / "cut", make=longer, killed_after=14)
    assert codes[0] == -signal.SIGKILL
    together(straight, straight / "cut", make=longer)
    pipeline.train(longer(straight), straight / "longer alone", ONE, Console(file=StringIO()))
    last = [
        load_file(straight / run / "phases/01-pretrain-2/final/weights.safetensors")
        for run in ("longer", "cut", "longer alone")
    ]
    for name, value in last[0].items():
        assert torch.equal(value, last[1][name]) and torch.allclose(value, last[2][name], atol=1e-4)


@pytest.mark.slow
def test_only_the_last_of_several_micro_batches_exchanges(straight, many):
    assert many == [once_a_step(straight / "many")] * 2
    early = 4  # later, steps as long as these tests take have made more of what was rounded otherwise
    assert numbers(straight / "many", early) == pytest.approx(numbers(straight / "one", early), rel=1e-5)


@pytest.mark.slow
def test_workers_agree_on_the_rows_that_fit_everywhere(straight, many):
    """Two rows fit on one of them; both take one, as if that had been said, and as the record has it."""
    found = straight / "found"
    assert together(straight, found, replace(TWO, rows="memory"), narrow=0) == [once_a_step(found)] * 2
    assert far(straight / "many", found) == 0
    for phase, stages in ((PRETRAIN, ((0, 0), (6, 1))), (SFT, ((0, 0), (3, 1)))):
        records = read_rows(found / phase / "checkpoints")
        assert [(one["from"], one["stage"], one["rows"]) for one in records] == [(*stage, 1) for stage in stages]


def test_one_worker_that_runs_out_later_ends_both(straight):
    """Nobody waits for it forever."""
    assert together(straight, straight / "out", replace(TWO, rows="memory"), narrow=6) == [1, 1]
    assert read_rows(straight / "out" / PRETRAIN / "checkpoints")[0]["rows"] == 2


def test_one_goes_on_where_two_were_killed(straight):
    codes = together(straight, straight / "killed", killed_after=7)
    assert codes[0] == -signal.SIGKILL
    with pytest.raises(RunError, match="machine.exchange.type was"):
        alone(straight, straight / "killed")
    alone(straight, straight / "killed", allow_change=True)
    assert far(straight / "one", straight / "killed") < 1e-5, "the same rows in the same order"
    (change,) = read_json(straight / "killed" / "run.json")["changes"]
    assert change["phase"] == PRETRAIN


def test_a_signal_to_one_worker_stops_both_after_the_same_step(straight, two):
    assert together(straight, straight / "told", signalled_after=5) == [143, 1], "as their handlers have it"
    saved = sorted(path.name for path in (straight / "told" / PRETRAIN / "checkpoints").iterdir())
    assert saved[-1] == "step-000006"
    assert together(straight, straight / "told")[0] == once_a_step(straight / "told")[6:]
    assert far(straight / "two", straight / "told") == 0, "as many workers end in the same bits"


@pytest.mark.slow
def test_what_strikes_one_worker_is_an_incident_of_both(straight, two):
    exchanged = together(straight, straight / "struck", struck_at=7)
    (incident,) = read_incidents(straight / "struck" / PRETRAIN / "checkpoints")
    assert (incident["step"], incident["back_to"]) == (7, 4)
    assert len(exchanged[0]) == len(exchanged[1]) == len(two[0]) + 3, "steps 5 to 7 twice"


@pytest.mark.slow
@pytest.mark.parametrize(("narrow", "tolerance"), [("fp16", 1e-2), ("bf16", 2e-2)])
def test_gradients_may_travel_in_half_the_bytes(straight, two, narrow, tolerance):
    together(straight, straight / narrow, replace(TWO, exchange=AllReduce(workers=2, gradient_dtype=narrow)))
    assert numbers(straight / narrow, 4) == pytest.approx(numbers(straight / "one", 4), rel=tolerance)
    assert far(straight / "one", straight / narrow) > 0, "something was rounded"


def test_gradients_do_not_travel_in_what_nobody_knows():
    with pytest.raises(RecipeError, match="gradient_dtype cannot be 'int8'"):
        AllReduce(gradient_dtype="int8")
    with pytest.raises(RecipeError, match="backend cannot be 'mpi'"):
        AllReduce(backend="mpi")


def test_the_backend_is_named_only_where_it_was_chosen():
    """Runs of before keep their hash."""
    assert "backend" not in to_plain(AllReduce(workers=2))
    assert to_plain(AllReduce(workers=2, backend="gloo"))["backend"] == "gloo"


@pytest.mark.slow
def test_gloo_may_be_named(straight, two):
    """On a processor it is what `auto` takes; the gradients of GPUs pass through it likewise."""
    together(straight, straight / "gloo", replace(TWO, exchange=AllReduce(workers=2, backend="gloo")))
    assert far(straight / "two", straight / "gloo") == 0


def test_workers_that_are_not_there_are_missed(straight, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(MachineError, match="has 2 workers, and none") as error:
        alone(straight, straight / "missing", TWO)
    assert "torchrun --nproc-per-node 2" in error.value.hint
    with pytest.raises(MachineError, match="CUDA graphs cannot exchange gradients"):
        Machine(compile="graphs", exchange=AllReduce())
    assert load_machine("two-cpus").exchange == AllReduce(workers=2)


def test_rows_are_shared_in_their_order():
    ranks = AllRanks.__new__(AllRanks)
    ranks.count = 2
    assert ranks.rows(0, 8) == [(0, 4), (1, 4)] and ranks.rows(0, 5) == [(0, 3), (1, 2)]
    with pytest.raises(MachineError, match="a step of 1 rows cannot be shared by 2 ranks"):
        ranks.rows(0, 1)
