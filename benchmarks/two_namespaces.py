"""Does odinnext-138m at toy size come to its base release on two namespaces, with the cable out for a minute?

    sudo python benchmarks/two_namespaces.py FOLDER [--link GBIT:MS] [--pulled 60] [--out FILE.json]

Needs Linux, root and iproute2, as `two_machines.py`, which makes the namespaces and the link. Two torchruns with run
folders of their own train `odinnext-138m --shrink` with the exchange of `two-strix-halo`. When the first blocks are
trained, the link goes down for --pulled seconds. Found: whether both end, whether their weights are the same, whether
there is a base release, and what they said of the cable.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from two_machines import DEVICE, SPACES, Link, linked

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json

ROOT = Path(__file__).parents[1]
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
PHASES = ("00-accelerated", "01-end-to-end")
PATIENCE = 900.0
"""Seconds that both have."""


def start(folder: Path, rank: int) -> subprocess.Popen:
    """Start torchrun of a machine in its namespace, on a core of its own."""
    torchrun = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1", "--max-restarts", "3"]
    torchrun += ["--master-addr", "10.77.0.1", "--master-port", "29777", "-m", "lilliput", "run", "odin.py", "--shrink"]
    torchrun += ["--machine", "machine.py", "--out", f"runs/{rank}"]
    settings = [f"PYTHONPATH={ROOT}", "OMP_NUM_THREADS=1", f"GLOO_SOCKET_IFNAME={DEVICE}"]
    command = ["ip", "netns", "exec", SPACES[rank], "taskset", "-c", str(rank), "env", *settings]
    with open(folder / f"{rank}.txt", "w", encoding="utf-8") as out:
        return subprocess.Popen(
            [*command, sys.executable, "-m", "torch.distributed.run", *torchrun], cwd=folder, stdout=out, stderr=out
        )


def switch(state: str) -> None:
    """Set the link `up` or `down` at one end: no packet passes it."""
    subprocess.run(["ip", "-n", SPACES[1], "link", "set", DEVICE, state], check=True)


def trained(folder: Path, rank: int) -> bool:
    """Return whether a machine has made a step of the first phase."""
    metrics = folder / f"runs/{rank}/phases/{PHASES[0]}/metrics.jsonl"
    return metrics.exists() and metrics.stat().st_size > 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--link", default="1:0.1", help="rate in Gbit/s and one-way delay in ms")
    options.add_argument("--pulled", type=float, default=60.0, help="seconds; 0 for never")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    given.folder.mkdir(parents=True)
    (given.folder / "odin.py").write_text(RECIPE, encoding="utf-8")
    (given.folder / "machine.py").write_text(MACHINE, encoding="utf-8")
    gbit, delay = map(float, given.link.split(":"))
    begun, pulled = time.monotonic(), None
    with linked(Link(gbit, delay / 1e3)):
        machines = [start(given.folder, rank) for rank in (0, 1)]
        while any(one.poll() is None for one in machines) and time.monotonic() - begun < PATIENCE:
            if given.pulled and pulled is None and all(trained(given.folder, rank) for rank in (0, 1)):
                switch("down")
                time.sleep(given.pulled)
                switch("up")
                pulled = time.monotonic() - begun - given.pulled
            time.sleep(0.1)
        codes = [one.poll() for one in machines]
        [one.kill() for one in machines if one.poll() is None]
    found: dict[str, Any] = {"exit_codes": codes, "seconds": time.monotonic() - begun, "pulled_after": pulled}
    if codes == [0, 0]:
        records = [
            [read_json(given.folder / f"runs/{rank}/parts/phases.{phase}.json")["outputs"] for rank in (0, 1)]
            for phase in PHASES
        ]
        found["same_weights"] = [one["weights"] == other["weights"] for one, other in records]
        found["base"] = (given.folder / "runs/0/releases/OdinNext-138M-Base/README.md").is_file()
    said = [(given.folder / f"{rank}.txt").read_text(encoding="utf-8").splitlines() for rank in (0, 1)]
    found["said"] = [[line for line in text if "exchanged" in line or "waiting for" in line] for text in said]
    print(found)
    if given.out:
        asked = {"link": given.link, "pulled": given.pulled}
        write_json(given.out, asked | {"found": found, "environment": environment()})


if __name__ == "__main__":
    main()
