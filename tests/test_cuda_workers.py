"""Ranks on CUDA: two GPUs train what one does, exchange once a step, one resumes their run; gloo, and blocks."""

from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from run.test_block_parallel import both, desk, record, train_alone  # noqa: F401, desk is a fixture
from train.test_ranks import PRETRAIN, alone, far, numbers, once_a_step, together, weights

from lilliput.base.files import read_json
from lilliput.train.all_reduce import AllReduce
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import read_metrics

pytestmark = [
    pytest.mark.gpu,
    # PyTorch 2.11 warns of what it does itself while it compiles.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores for float32 matrix multiplication"),
]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two CUDA devices")

ONE = Machine(device="cuda", precision="fp32", threads=1, rows=2, compile="off")
TWO = replace(ONE, exchange=AllReduce(workers=2))
SPAWN = get_context("spawn")  # a process that has met CUDA cannot be forked


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a run by one GPU, in as many micro-batches as two have together."""
    folder = tmp_path_factory.mktemp("workers")
    alone(folder, folder / "one", ONE)
    return folder


@pytest.fixture(scope="module")
def straight(work):
    """That folder with a run by two GPUs, too, and what they exchanged."""
    return work, together(work, work / "two", TWO, processes_of=SPAWN)


@two_gpus
def test_two_gpus_train_what_one_does_and_exchange_once_a_step(straight):
    work, exchanged = straight
    assert exchanged == [once_a_step(work / "two")] * 2 and len(exchanged[0]) > 12
    largest = max(float(value.abs().max()) for value in weights(work / "one").values())
    assert far(work / "one", work / "two") < 1e-5 * max(1.0, largest)
    assert numbers(work / "two", 99) == pytest.approx(numbers(work / "one", 99), rel=1e-5)


def test_gloo_carries_the_gradients_of_gpus(work):
    """Two hosts with one GPU each may share it here, which NCCL would refuse."""
    machine = replace(ONE, exchange=AllReduce(workers=2, backend="gloo", gradient_dtype="bf16"))
    exchanged = together(work, work / "gloo", machine, apart=True, processes_of=SPAWN)
    assert exchanged == [once_a_step(work / "gloo")] * 2 and len(exchanged[0]) > 12
    assert numbers(work / "gloo", 4) == pytest.approx(numbers(work / "one", 4), rel=2e-2)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_two_hosts_share_a_gpu_and_train_blocks_and_then_together(desk, precision):  # noqa: F811
    """In fp32 the blocks are those of one host, to the bit; in fp16 each host has a loss scale of its own.

    Nothing is compiled: processes that compile side by side may settle on kernels that add in another order.
    """
    machine = desk / "machine.py"
    on_gpu = machine.read_text().replace('"cpu", precision="fp32"', f'"cuda", compile="off", precision="{precision}"')
    assert "cuda" in on_gpu
    machine.write_text(on_gpu)
    for rank, agent in enumerate(both(desk)):
        assert agent.wait(200) == 0, (desk / f"{rank}.txt").read_text()
    for phase in ("00-blocks", "01-end-to-end"):
        assert record(desk, 0, phase)["weights"] == record(desk, 1, phase)["weights"]
    train_alone(desk, until="end-to-end")
    hosts, one = (read_metrics(desk / f"runs/{run}/phases/01-end-to-end/metrics.jsonl") for run in (0, "one"))
    if precision == "fp32":
        assert record(desk, 0, "00-blocks")["weights"] == record(desk, "one", "00-blocks")["weights"]
        losses = [[line["cross_entropy"] for line in lines if "cross_entropy" in line][:20] for lines in (hosts, one)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), "2e-6 on a processor; after a hundred steps they part"
    apart = {"fp32": 3e-2, "fp16": 1e-1}[precision]  # 400 steps of four rows: 2% and 6% were seen
    assert hosts[-1]["heldout"]["texts"] == pytest.approx(one[-1]["heldout"]["texts"], rel=apart)


@two_gpus
def test_two_gpus_end_in_the_same_bits_again(straight):
    work, _ = straight
    together(work, work / "again", TWO, processes_of=SPAWN)
    assert far(work / "two", work / "again") == 0


@two_gpus
def test_one_gpu_resumes_where_two_were_killed(straight):
    work, _ = straight
    together(work, work / "killed", TWO, killed_after=7, processes_of=SPAWN)
    alone(work, work / "killed", ONE, allow_change=True)
    assert far(work / "one", work / "killed") < 1e-5, "the same rows in the same order"
    (change,) = read_json(work / "killed" / "run.json")["changes"]
    assert change["phase"] == PRETRAIN


@two_gpus
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_compiled_layers_exchange_once_a_step_in_any_precision(straight, precision):
    """Beside one GPU that rounds as they do: so small a model has gradients that bf16 changes by a tenth."""
    work, _ = straight
    compiles = {"precision": precision, "compile": "blocks"}
    alone(work, work / f"one-{precision}", replace(ONE, **compiles))
    exchanged = together(work, work / precision, replace(TWO, **compiles), processes_of=SPAWN)
    assert exchanged == [once_a_step(work / precision)] * 2
    early = 2  # of rate 0, and of half of it
    assert numbers(work / precision, early) == pytest.approx(numbers(work / f"one-{precision}", early), rel=1e-2)
