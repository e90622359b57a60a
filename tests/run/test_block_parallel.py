"""Two hosts without a shared disk, as two torchruns with run folders of their own, through the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parents[2]
RECIPE = """
from lilliput.base.units import Steps, Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.hgrn2 import HGRN2
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.optim.adamw import AdamW
from lilliput.optim.ema import Ema
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.recipe import Recipe, Release
from lilliput.tokenizer.bpe import BPE
from lilliput.train.phase import Phase, Stage

shape = dict(length=32, batch_tokens=4 * 32, data=Mixture(weights={"texts": 1.0}), optimizer=AdamW(lr=6e-3))
route = DiffusionBlocks(blocks=2, freeze_shared=True)
recipe = Recipe(
    name="hosts",
    about="Blocks on two hosts, then both together.",
    corpora={"texts": TextFiles(paths=("texts.jsonl",))},
    tokenizer=BPE(vocab=300),
    tokenizer_corpora=("texts",),
    split=Split(share=0.1),
    model=ModelSpec(vocab=300, width=32, layers=2, mixer=HGRN2(heads=2), ffn=SwiGLU(inner=48)),
    timeline=(
        Phase(
            name="blocks",
            tokens=Tokens(400 * 4 * 32),
            stages=(Stage(share=1.0, objective=NextToken(route=route)),),
            save_every=Steps(20),
            **shape,
        ),
        Phase(name="end-to-end", tokens=Tokens(400 * 4 * 32), ema=Ema(decay=0.9), save_every=Steps(20), **shape),
        Release(name="hosts", layout=HGRN2Format(context=512), suite="quickstart", heldout="texts"),
    ),
)
"""
MACHINE = """
from lilliput.train.block_parallel import BlockParallel
from lilliput.train.machine import Machine

machine = Machine(device="cpu", precision="fp32", threads=1, exchange=BlockParallel(machines=2, every=25, limit=5.0))
"""


@pytest.fixture
def desk(tmp_path):
    tiny.write_corpora(tmp_path)
    (tmp_path / "hosts.py").write_text(RECIPE)
    (tmp_path / "machine.py").write_text(MACHINE)
    return tmp_path


def environment():
    """Variables of a process that imports this checkout, and what the tests themselves can import."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def host(desk, rank, port):
    """Start torchrun of a host; its workers are its children."""
    torchrun = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1", "--max-restarts", "3"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(port), "-m"]
    command = ["lilliput", "train", "hosts.py", "--machine", "machine.py", "--out", f"runs/{rank}"]
    with open(desk / f"{rank}.txt", "w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *torchrun, *command],
            cwd=desk,
            env=environment() | {"OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def train_alone(desk, until="blocks"):
    """Train on one machine in the run folder `one`, as the machine file says but for its exchange."""
    (desk / "one.py").write_text((desk / "machine.py").read_text().partition(", exchange")[0] + ")\n")
    command = ["lilliput", "train", "hosts.py", "--machine", "one.py", "--until", until, "--out", "runs/one"]
    alone = subprocess.run([sys.executable, "-m", *command], cwd=desk, env=environment(), capture_output=True)
    assert alone.returncode == 0, alone.stderr.decode()


def both(desk):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [host(desk, rank, port) for rank in (0, 1)]


def kill_worker(desk, agent, rank, phase, step):
    """Kill the worker of a host once its phase has a checkpoint of a step."""
    wanted = desk / f"runs/{rank}/phases/{phase}/checkpoints"
    deadline = time.monotonic() + 100
    while not any(int(one.name[5:]) >= step for one in wanted.glob("step-??????")):
        assert time.monotonic() < deadline and agent.poll() is None, (desk / f"{rank}.txt").read_text()
        time.sleep(0.01)
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent.pid)], capture_output=True, text=True)
    for worker in found.stdout.split():
        os.kill(int(worker), signal.SIGKILL)


def record(desk, rank, phase):
    return json.loads((desk / f"runs/{rank}/parts/phases.{phase}.json").read_text())["outputs"]


@pytest.mark.slow
def test_two_hosts_train_blocks_and_then_together_through_kills(desk):
    first, second = both(desk)
    kill_worker(desk, second, 1, "00-blocks", 100)
    kill_worker(desk, second, 1, "01-end-to-end", 100)
    kill_worker(desk, first, 0, "01-end-to-end", 200)
    for rank, agent in enumerate((first, second)):
        assert agent.wait(200) == 0, (desk / f"{rank}.txt").read_text()
    train_alone(desk)
    assert record(desk, 0, "00-blocks")["weights"] == record(desk, "one", "00-blocks")["weights"], "as on one machine"
    for phase in ("00-blocks", "01-end-to-end"):
        assert record(desk, 0, phase) == record(desk, 1, phase)
        for rank in (0, 1):
            lines = (desk / f"runs/{rank}/phases/{phase}/metrics.jsonl").read_text().splitlines()
            steps = [json.loads(line)["step"] for line in lines if "seconds" in json.loads(line)]
            assert steps == list(range(1, 401))


@pytest.mark.slow
def test_two_hosts_take_steps_together_through_kills(desk):
    (desk / "hosts.py").write_text(RECIPE.replace("freeze_shared=True", "freeze_shared=False"))
    (desk / "machine.py").write_text(MACHINE.replace("machines=2", 'machines=2, shared="allreduce"'))
    first, second = both(desk)
    kill_worker(desk, second, 1, "00-blocks", 100)
    kill_worker(desk, first, 0, "00-blocks", 240)
    kill_worker(desk, second, 1, "01-end-to-end", 100)
    for rank, agent in enumerate((first, second)):
        assert agent.wait(200) == 0, (desk / f"{rank}.txt").read_text()
    for phase in ("00-blocks", "01-end-to-end"):
        assert record(desk, 0, phase) == record(desk, 1, phase)


@pytest.mark.slow
def test_hosts_with_other_token_files_are_refused(desk):
    for rank in (0, 1):
        command = ["lilliput", "data", "hosts.py", "--out", f"runs/{rank}"]
        made = subprocess.run([sys.executable, "-m", *command], cwd=desk, env=environment(), capture_output=True)
        assert made.returncode == 0, made.stderr.decode()
        with open(desk / "texts.jsonl", "a") as file:
            file.write(json.dumps({"id": "more", "text": tiny.sentences(201)}) + "\n")
    (desk / "texts.jsonl").rename(desk / "away.jsonl")  # hosts keep the token files that they have
    for rank, agent in enumerate(both(desk)):
        assert agent.wait(200) != 0
        text = (desk / f"{rank}.txt").read_text()
        assert "differs:" in text and "(rank 0)" in text and "rsync -a" in text, text
