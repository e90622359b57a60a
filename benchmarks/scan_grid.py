"""Are the gated scan's kernels faster, and right, with their work cut in other ways?

    python benchmarks/scan_grid.py [--kernel gradients] [--budget 200] [--keep] [--out FILE.json] [--device cpu]

A cut may be miscompiled, and an illegal access ends every later call of its process. So each cut is compiled and
checked in a process of its own, several at a time; then those that are right are timed one after the other, and what
is WRONG or fails is reported as such. What the budget of seconds does not reach is reported as left out.

With --keep the fastest ones are checked together and kept for `Machine(tiles="tuned")` on this device.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch
from scan import Case, Clock, cut_as, errors, is_right, one_by_one

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.ops import tile_cache
from lilliput.ops.gla.triton_tiles import NAME, Tile, Tiles, tiles_for

KERNELS = {
    "gradients": "64,64,4,2 64,64,4,1 64,32,4,2 64,128,4,1 64,32,4,1 64,64,4,1,168 64,64,4,2,168 64,64,4,3 64,64,8,2 "
    "64,128,8,1 128,64,8,2",
    "outputs": "64,128,4,2,168 64,128,4,2,128 64,128,4,2 64,128,4,1,168 64,128,4,3,168 64,128,4,1 128,128,4,2 "
    "64,64,4,2,168 128,128,8,1",
    "states": "64,64,4,2 64,64,4,2,128 64,64,4,3 64,128,8,2,128 128,64,4,2 64,128,4,2,168 64,128,4,2 128,64,8,2 "
    "128,128,8,2 64,64,4,1",
}
"""Tiles of each kernel, the likeliest first: key and value channels, warps, iterations loaded ahead, and registers of a
thread where they are not the compiler's choice."""
LENGTHS = (32, 128)
"""Other lengths of a chunk than the shipped one."""


def cuts(shipped: Tiles, only: str | None) -> Iterator[tuple[str, Tiles]]:
    """Names of kernels, and tiles of which that kernel's is not as shipped."""
    for length in (shipped.chunk, *LENGTHS):
        for name, texts in KERNELS.items():
            for text in texts.split()[: None if length == shipped.chunk else 3]:
                if only in (None, name):
                    tile = Tile(*map(int, text.split(",")))
                    yield name, shipped._replace(chunk=length, **{name: tile})


def text_of(tiles: Tiles) -> str:
    return json.dumps(tiles)


def tiles_of(text: str) -> Tiles:
    chunk, *tiles = json.loads(text)
    return Tiles(chunk, *(Tile(*tile) for tile in tiles))


def check(tiles: Tiles, device: str) -> dict:
    """Errors of values and gradients."""
    on_gpu = device == "cuda"
    case = Case("grid", torch.bfloat16 if on_gpu else torch.float16, 333 if on_gpu else 37, documents=True)
    with cut_as(tiles):
        found = errors(case, device)
    return {"errors": found, "right": is_right(found, case)}


def measure(name: str, tiles: Tiles, device: str) -> dict:
    """Milliseconds of the kernel's launches in a forward and backward pass."""
    with cut_as(tiles):
        return {"times": one_by_one((32, 2048) if device == "cuda" else (1, 64), Clock(device, repeats=10), name)}


def apart(what: str, name: str, tiles: Tiles, device: str, until: float) -> dict:
    """The answer of a process of its own, or how it failed."""
    left = until - time.monotonic()
    if left <= 0:
        return {"left_out": "the budget is spent"}
    command = [sys.executable, __file__, "--only", what, name, text_of(tiles), "--device", device]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired:
        return {"left_out": "the budget is spent"}
    if finished.returncode:
        lines = [line for line in finished.stderr.splitlines() if "Error" in line]
        return {"failed": lines[-1][:110] if lines else f"exit status {finished.returncode}"}
    return json.loads(finished.stdout.splitlines()[-1])


def fastest(shipped: Tiles, tried: list[tuple[str, Tiles]], found: list[dict]) -> Tiles:
    """Of each kernel the tile that took least, with the chunk as shipped; the shipped one where none was measured."""
    best, least = shipped, dict.fromkeys(KERNELS, float("inf"))
    for (name, tiles), entry in zip(tried, found, strict=True):
        took = sum(entry["times"].values()) if "times" in entry else float("inf")
        if tiles.chunk == shipped.chunk and took < least[name]:
            best, least[name] = best._replace(**{name: getattr(tiles, name)}), took
    return best


def say(name: str, tiles: Tiles, entry: dict) -> None:
    errors = entry.get("errors", {})
    furthest = f"errors up to {max(errors.values()):.1e}" if errors else ""
    times = "  ".join(f"{time:7.3f} ms" for time in entry.get("times", {}).values())
    verdict = "WRONG " if entry.get("right") is False else ""
    rest = times or verdict + furthest or entry.get("failed") or entry["left_out"]
    print(f"{name:10} chunk {tiles.chunk:3}  {tuple(getattr(tiles, name))!s:16} {rest}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kernel", choices=KERNELS)
    arguments.add_argument("--budget", type=float, default=200)
    arguments.add_argument("--keep", action="store_true")
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    arguments.add_argument("--only", nargs=3, metavar=("WHAT", "KERNEL", "TILES"), help="one cut, in this process")
    given = arguments.parse_args()
    if given.keep and given.kernel:
        arguments.error("--keep is of all kernels: leave --kernel out")
    if given.only:
        what, name, tiles = given.only[0], given.only[1], tiles_of(given.only[2])
        print(json.dumps(check(tiles, given.device) if what == "check" else measure(name, tiles, given.device)))
        return
    began = time.monotonic()
    shipped = tiles_for(torch.bfloat16, torch.device(given.device))
    tried = list(cuts(shipped, given.kernel))
    found: list[dict] = [{} for _ in tried]
    # Half of the time at most goes to checks, so that some of it is left to measure in.
    with ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 2) // 2))) as pool:
        until = began + given.budget / 2
        waiting = {pool.submit(apart, "check", *cut, given.device, until): n for n, cut in enumerate(tried)}
        for done in as_completed(waiting):
            n = waiting[done]
            found[n] |= done.result()
            say(*tried[n], found[n])
    for n, cut in enumerate(tried):
        if found[n].get("right"):
            found[n] |= apart("measure", *cut, given.device, began + given.budget)
            say(*cut, found[n])
    if given.keep:
        best = fastest(shipped, tried, found)
        checked = apart("check", "all", best, given.device, time.monotonic() + given.budget)
        if not checked.get("right"):
            raise SystemExit(f"nothing is kept: {best} is not right, {checked}")
        print(f"kept in {tile_cache.save(NAME, best, given.device)}: {best}")
    if given.out:
        named = zip(tried, found, strict=True)
        entries = [{"kernel": name, "tiles": str(tiles), **entry} for (name, tiles), entry in named]
        write_json(given.out, {"environment": environment(), "grid": entries})


if __name__ == "__main__":
    main()
