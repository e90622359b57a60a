"""The recipe of two Strix Halo machines at toy size: two torchruns on loopback, from text to the base release."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """
from dataclasses import replace

from lilliput.recipes.odinnext_138m import recipe as whole

recipe = replace(whole, timeline=whole.timeline[:4])
"""
MACHINE = """
from dataclasses import replace

from lilliput.machines.two_strix_halo import machine as two

exchange = replace(two.exchange, every=4)
machine = replace(two, device="cpu", precision="fp32", threads=1, compile="off", exchange=exchange)
"""


@pytest.mark.slow
def test_two_machines_come_to_the_base_release_of_odinnext(tmp_path):
    (tmp_path / "odin.py").write_text(RECIPE)
    (tmp_path / "machine.py").write_text(MACHINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = []
    for rank in (0, 1):
        torchrun = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
        torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(port), "-m"]
        command = ["lilliput", "run", "odin.py", "--shrink", "--machine", "machine.py", "--out", f"runs/{rank}"]
        with open(tmp_path / f"{rank}.txt", "w") as out:
            machines.append(
                subprocess.Popen(
                    [sys.executable, "-m", "torch.distributed.run", *torchrun, *command],
                    cwd=tmp_path,
                    env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            )
    for rank, one in enumerate(machines):
        assert one.wait(170) == 0, (tmp_path / f"{rank}.txt").read_text()
    for phase in ("00-accelerated", "01-end-to-end"):
        one, other = (json.loads((tmp_path / f"runs/{n}/parts/phases.{phase}.json").read_text()) for n in (0, 1))
        assert one["outputs"]["weights"] == other["outputs"]["weights"], "each machine has the whole model"
        lines = (tmp_path / f"runs/1/phases/{phase}/metrics.jsonl").read_text()
        assert '"bytes_sent"' in lines, "the link was used"
    base = "releases/OdinNext-138M-Base/README.md"
    assert (tmp_path / "runs/0" / base).is_file() and not (tmp_path / "runs/1" / base).exists()
