"""What do two machines and a cable gain, by exchange, against one machine?

    sudo python benchmarks/two_machines.py FOLDER [--seconds 60] [--only ARM...] [--links GBIT:MS...] [--out FILE.json]

Needs Linux, root, iproute2 and two idle cores; whatever else runs on them is measured with it. Two network namespaces
stand for the machines, with a core each (taskset, one thread). Their link is a pair of TUN devices: a relay of this
process carries each packet from one to the other after a delay, and limits the rate where `tc` has no tbf.

A model of odinnext-138m's parts at toy size (--shrink) is trained for --seconds at a constant rate, and measured on
held-out text with the average of its weights, at about twelve points:

    one          one machine, end to end
    data         two, data parallel over gloo, fp32 gradients
    data bf16    the same in bf16
    outer        two, an outer step every --every steps, changes in bf16, the paper's outer optimizer
    outer mean   the same, and an outer step takes the mean of weights
    blocks       two, half of the time in blocks of their own (means of what blocks share), then data parallel in bf16
    joint        the same, and blocks take each step together: gradients of what they share are added up, in bf16
    stack        blocks with bags of 4, 2 and 1 in the blocks, as the card has them

A core is some thousand times slower than a mini-PC with Strix Halo, by products: as measured here (fp32, one thread),
and as others measured there (36.9 TFLOP/s, `lilliput/machines/strix_halo.py`). So links are scaled, too, and both are
printed. With `--scale step` an exchange of all gradients, and a round trip, take the share of a step that they have for
odinnext-138m with its 524,288 positions a step. With `--scale flops` rates are divided, and delays multiplied, by the
ratio of FLOP/s alone: steps here are shorter, so an exchange in each of them weighs a hundred times more than there.
A delay below half a millisecond is not added, as the relay takes about as long itself.

Bytes are those that metrics count, and those of the interfaces, which carry headers, too, and at the end of a phase of
blocks each machine's part of the last checkpoint. A run that FOLDER/results.json has is not made again.
"""

import argparse
import asyncio
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json
from lilliput.data.batch import Cursor
from lilliput.model import ModelSpec
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import Objective, build_objectives
from lilliput.plan.synthetic_data import RandomRows
from lilliput.recipes import odinnext_138m
from lilliput.shrink import TEXT, shrink

STRIX_HALO = 36.9e12
"""FLOP/s of fp16 products."""
CARD = {"parameters": 138_449_696, "positions": odinnext_138m.BATCH}
ROWS, LENGTH = 16, 256
SPACES, DEVICE, PORT = ("lilliput0", "lilliput1"), "lilli", 29_500
PIECE = 2_000
"""Characters of a document made of documentation: few long ones could not be held out in part."""
SHORTEST = 5e-4
"""Seconds of a delay that is added."""
POINTS, ENDLESS = 12, 1_000_000
LINKS = ("9:0.1", "9:10", "1:0.1", "1:10")
DATA = 'BlockParallel(machines=2, gradient_dtype="{dtype}", limit={limit})'
BLOCKS = (
    'BlockParallel(machines=2, owners=(0, 0, 1, 1), shared="periodic", every={every}, gradient_dtype="bf16", '
    "limit={limit})"
)
OUTER = 'OuterSteps(machines=2, every={every}, gradient_dtype="bf16", limit={limit}{more})'
ARMS = {
    "one": ("Alone()", "plain"),
    "data": (DATA.replace("{dtype}", "none"), "plain"),
    "data bf16": (DATA.replace("{dtype}", "bf16"), "plain"),
    "outer": (OUTER.replace("{more}", ""), "plain"),
    "outer mean": (OUTER.replace("{more}", ", lr=1.0, momentum=0.0"), "plain"),
    "blocks": (BLOCKS, "blocks"),
    "joint": (BLOCKS.replace("periodic", "allreduce"), "blocks"),
    "stack": (BLOCKS, "stack"),
}
"""The exchange of each, and the kind of its steps."""
RECIPE = """
from dataclasses import replace

from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.data.split import Split
from lilliput.optim.ema import Ema
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.recipes.odinnext_138m import accelerated, end_to_end
from lilliput.recipes.odinnext_138m import recipe as card
from lilliput.shrink import shrink
from lilliput.train.phase import StepPlan
from lilliput.train.spike_detection import NoGuard

small = shrink(card)


def phase(made, steps, every, stages=None):
    made = replace(
        made, length={length}, batch_tokens={rows} * {length}, stages=stages or made.stages, ema=Ema(decay=0.9),
        schedule=WarmupStableDecay(warmup=Steps(max(1, min(20, steps // 4))), decay=Share(0.0)),
        save_every=Steps(10**6), measure_every=Share(min(1.0, every / steps)),
        guard=NoGuard(),  # one that set a machine back would set it back to the beginning
    )
    tokens = sum(stage.share * stage.objective.tokens_per_position for stage in made.stages) * made.batch_tokens
    made = replace(made, tokens=Tokens(int(steps * tokens) + 1))
    return made


pure = (replace(accelerated.stages[-1], share=1.0),)
kind, steps = {kind!r}, {block_steps}
first = () if kind == "plain" else (phase(accelerated, steps, steps, pure if kind == "blocks" else None),)
recipe = replace(
    small,
    corpora={{"natural": TextFiles(paths=({texts!r},))}},
    split=Split(share={share}),
    timeline=(*first, phase(end_to_end, {endless}, {every})),
    card_claims={{}},
)
"""
MACHINE = """
from lilliput.train.block_parallel import BlockParallel
from lilliput.train.machine import Machine
from lilliput.train.outer_steps import OuterSteps
from lilliput.train.ranks import Alone

machine = Machine(device="cpu", precision="fp32", threads=1, exchange={exchange})
"""


class Link(NamedTuple):
    """A cable between two machines."""

    gbit: float
    delay: float
    """Seconds, one way."""

    @property
    def name(self) -> str:
        return f"{self.gbit:g} Gbit/s, {1e3 * self.delay:g} ms"


class Scale(NamedTuple):
    """The factors between a link of mini-PCs and the one here."""

    rate: float
    delay: float

    def of(self, link: Link) -> Link:
        return Link(link.gbit / self.rate, link.delay * self.delay)


class Relay:
    """One direction of the link: packets leave a device, and arrive in another one after a delay."""

    def __init__(self, loop: asyncio.AbstractEventLoop, source: int, target: int, link: Link, limits: bool):
        self._loop, self._source, self._target, self._link, self._limits = loop, source, target, link, limits
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._free = 0.0  # when the cable has carried all that it was given
        loop.add_reader(source, self._take)

    def _take(self) -> None:
        packet, now = os.read(self._source, 65_536), self._loop.time()
        if self._link.delay < SHORTEST and not self._limits:
            self._write(packet)
            return
        self._free = max(self._free, now) + (len(packet) * 8 / (self._link.gbit * 1e9) if self._limits else 0.0)
        self._waiting.append((self._free + self._link.delay, packet))
        if len(self._waiting) == 1:
            self._loop.call_at(self._waiting[0][0], self._hand_on)

    def _hand_on(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._loop.time() + 1e-4:
            self._write(self._waiting.popleft()[1])
        if self._waiting:
            self._loop.call_at(self._waiting[0][0], self._hand_on)

    def _write(self, packet: bytes) -> None:
        with suppress(OSError):  # its queue is full, as that of a switch may be: TCP sends again
            os.write(self._target, packet)


@contextmanager
def linked(link: Link) -> Iterator[None]:
    """Two namespaces, 10.77.0.1 and 10.77.0.2, and a link between them."""
    for space in SPACES:
        subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)
        _ip("netns", "add", space)
    devices, limits = [], False
    for rank, space in enumerate(SPACES):
        devices.append(_tun(f"{DEVICE}{rank}"))
        _ip("link", "set", f"{DEVICE}{rank}", "netns", space)
        _ip("-n", space, "link", "set", f"{DEVICE}{rank}", "name", DEVICE)
        _ip("-n", space, "addr", "add", f"10.77.0.{rank + 1}/24", "dev", DEVICE)
        for device in ("lo", DEVICE):
            _ip("-n", space, "link", "set", device, "up")
        _ip("-n", space, "link", "set", DEVICE, "txqueuelen", "5000")
        a_second = round(link.gbit * 1e9 / 8)
        packet = min(
            65_000, max(1_500, a_second // 1_000)
        )  # a millisecond: Python relays a thousand a second with ease
        _ip("-n", space, "link", "set", DEVICE, "mtu", str(packet))
        rate, bucket = f"{8 * a_second}bit", ["burst", str(2 * packet + 1_000), "limit", str(2**24)]
        command = ["tc", "-n", space, "qdisc", "add", "dev", DEVICE, "root", "tbf", "rate", rate, *bucket]
        limits |= subprocess.run(command).returncode != 0
    loop = asyncio.new_event_loop()
    for source, target in (devices, devices[::-1]):
        Relay(loop, source, target, link, limits)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for space, device in zip(SPACES, devices, strict=True):
            for process in subprocess.check_output(["ip", "netns", "pids", space], text=True).split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)  # a worker outlives its torchrun, in a session of its own
            os.close(device)
            _ip("netns", "del", space)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _tun(name: str) -> int:
    """Make a device whose packets this process reads and writes."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0001 | 0x1000))  # TUNSETIFF: IP, no header
    return device


def carried() -> int:
    """Return the bytes that both interfaces have sent so far."""
    total = 0
    for space in SPACES:
        shown = subprocess.run(["ip", "-n", space, "-s", "-j", "link", "show", DEVICE], capture_output=True, check=True)
        total += json.loads(shown.stdout)[0]["stats64"]["tx"]["bytes"]
    return total


def flops() -> float:
    """Return the FLOP/s of one thread in fp32 products."""
    one, other, best = torch.randn(1024, 1024), torch.randn(1024, 1024), 0.0
    for _ in range(8):
        begun = time.perf_counter()
        torch.mm(one, other)
        best = max(best, 2 * 1024**3 / (time.perf_counter() - begun))
    return best


def step_seconds() -> dict[str, float]:
    """Return the seconds of forward and backward of a step on one thread, by kind of step."""
    spec = shrink(odinnext_138m.recipe).model
    assert isinstance(spec, ModelSpec)
    objectives: dict[str, Objective] = {
        "plain": odinnext_138m.end_to_end.stages[0].objective,
        "blocks": odinnext_138m.accelerated.stages[-1].objective,
        "stack": odinnext_138m.accelerated.stages[0].objective,
    }
    found = {}
    for kind, objective in objectives.items():
        module, times = build_objectives([objective], spec.build(seed=0), seed=0)[0], []
        batch = RandomRows(spec.vocab).read(Cursor(), ROWS, objective.row_length(LENGTH))[0]
        batch, denominator, noise = replace(batch, row=torch.arange(ROWS)), objective.denominator(batch), Noise("cpu")
        noise.begin_step(0, 0)
        for _ in range(4):
            begun = time.perf_counter()
            module(batch, denominator, 0, torch.zeros(()), noise).loss.backward()
            times.append(time.perf_counter() - begun)
        found[kind] = min(times)
    return found


class Desk:
    """The folder of a comparison, and all that its runs share."""

    def __init__(self, given: argparse.Namespace):
        self.given, self.folder = given, given.folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)
        self.flops, self.steps = flops(), step_seconds()
        self.parameters = sum(one.numel() for one in shrink(odinnext_138m.recipe).model.build(seed=0).parameters())
        ratio = STRIX_HALO / self.flops
        there = CARD["parameters"] * CARD["positions"] / STRIX_HALO
        seconds = self.parameters * ROWS * LENGTH / self.flops / there  # of a step here, to one there
        smaller = self.parameters / CARD["parameters"]
        self.scale = Scale(ratio, ratio) if given.scale == "flops" else Scale(seconds / smaller, seconds)

    def write(self, arm: str, here: Link) -> Path:
        """Write the recipe and the machine of an arm, with run folders that have the token files."""
        exchange, kind = ARMS[arm]
        machines = 1 if arm == "one" else 2
        traffic = self.parameters * (4 if arm == "data" else 2) * 8 / (here.gbit * 1e9) + 4 * here.delay
        exchanges = arm.startswith("data") or kind != "plain"  # in each step that is measured
        seconds = self.steps["plain"] / machines + (traffic if exchanges else 0.0)
        every = max(1, round(self.given.seconds / POINTS / seconds))
        if arm.startswith("outer"):  # where there is one model
            every = max(1, round(every / self.given.every)) * self.given.every
        block_steps = max(8, round(self.given.seconds / 2 / (self.steps[kind] / machines)))
        place = self.folder / f"{arm.replace(' ', '-')}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        self._recipe(place / "recipe.py", kind, block_steps, every)
        limit = round(30 * max(1.0, self.scale.delay), 1)
        text = exchange.replace("{every}", str(self.given.every)).replace("{limit}", str(limit))
        (place / "machine.py").write_text(MACHINE.format(exchange=text))
        for rank in range(machines):
            shutil.copytree(self._prepared(), place / f"run{rank}")
        return place

    def _recipe(self, path: Path, kind: str, block_steps: int, every: int) -> None:
        texts = self.given.texts or self.folder / "texts.jsonl"
        if not texts.exists():
            with open(texts, "w") as file:
                for one in replace(TEXT, package_bytes=1_000_000).documents():
                    for begin in range(0, len(one.text), PIECE):
                        row = {"id": f"{one.id} {begin}", "text": one.text[begin : begin + PIECE]}
                        file.write(json.dumps(row) + "\n")
        words = {"length": LENGTH, "rows": ROWS, "kind": kind, "block_steps": block_steps, "every": every}
        share = self.given.held_out
        path.write_text(RECIPE.format(texts=str(texts.absolute()), share=share, endless=ENDLESS, **words))

    def _prepared(self) -> Path:
        """Return a run folder with tokenizer and token files alone, made once."""
        made = self.folder / "prepared"
        if not (self.folder / "prepared.done").exists():
            self._recipe(self.folder / "prepared.py", "plain", 8, 8)
            command = [sys.executable, "-m", "lilliput", "data", "prepared.py", "--out", "prepared"]
            subprocess.run(command, cwd=self.folder, check=True)
            (self.folder / "prepared.done").touch()
        return made


def lines(place: Path, rank: int) -> list[dict[str, Any]]:
    """Return the metrics of a machine so far, of all phases, the last line left out if it is not whole."""
    found = []
    for number, path in enumerate(sorted((place / f"run{rank}").glob("phases/*/metrics.jsonl"))):
        for line in path.read_text().split("\n")[:-1]:
            found.append(json.loads(line) | {"phase": number})
    return found


def train(desk: Desk, arm: str, link: Link | None) -> dict[str, Any]:
    """Train an arm for the given time, and return what was measured."""
    here = desk.scale.of(link) if link else Link(1e3, 0.0)
    place = desk.write(arm, here)
    if link is None:
        return _watched(desk, place, [_start(place, 0, ["taskset", "-c", "0"], [])])
    with linked(here):
        started = []
        for rank, space in enumerate(SPACES):
            torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)]
            torchrun += ["--nproc-per-node", "1", "--master-addr", "10.77.0.1", "--master-port", str(PORT)]
            before = ["ip", "netns", "exec", space, "taskset", "-c", str(rank)]
            started.append(_start(place, rank, before, torchrun))
        return _watched(desk, place, started)


def _start(place: Path, rank: int, before: Sequence[str], torchrun: Sequence[str]) -> subprocess.Popen:
    command = [*before, sys.executable, *torchrun, "-m", "lilliput", "train", "recipe.py"]
    command += ["--machine", "machine.py", "--out", f"run{rank}"]
    root = str(Path(__file__).parents[1])
    here = os.environ | {"GLOO_SOCKET_IFNAME": DEVICE, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    with open(place / f"said{rank}.txt", "w") as said:
        return subprocess.Popen(command, cwd=place, env=here, stdout=said, stderr=said, start_new_session=True)


def _watched(desk: Desk, place: Path, started: Sequence[subprocess.Popen]) -> dict[str, Any]:
    """Watch the machines of an arm until their time is over, and stop them."""
    machines, curve, given_up = len(started), [], time.monotonic() + desk.given.patience
    begun, first, seen, carried_before = 0.0, Total(0, 0, 0), 0, 0
    try:
        while not begun or time.monotonic() - begun < desk.given.seconds:
            time.sleep(0.2)
            if any(process.poll() is not None for process in started) or (not begun and time.monotonic() > given_up):
                said = "\n".join((place / f"said{rank}.txt").read_text()[-6_000:] for rank in range(machines))
                raise RuntimeError(f"a machine has ended, or none began:\n{said}")
            found = lines(place, 0)
            if found and not begun:
                begun, carried_before = time.monotonic(), carried() if machines == 2 else 0
                first, seen = Total.of(place, machines), len(found)
            for line in found[seen:]:
                if (value := line.get("heldout", {}).get("natural")) is not None:
                    curve.append((time.monotonic() - begun, value))
            seen = max(seen, len(found))
        wire = carried() - carried_before if machines == 2 else 0
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    last = Total.of(place, machines)
    steps = max(1, last.steps - first.steps)
    return {
        "steps": steps,
        "steps_per_second": steps / desk.given.seconds,
        "tokens_per_hour": (last.tokens - first.tokens) / desk.given.seconds * 3600,
        "bytes_counted_per_step": (last.sent - first.sent) / steps,
        "bytes_on_the_wire_per_step": wire / steps,
        "curve": curve,
        "bits_per_byte": curve[-1][1] if curve else None,
    }


class Total(NamedTuple):
    """Steps and text that all machines have behind them, and the bytes that they have counted."""

    steps: int
    tokens: int
    sent: int

    @classmethod
    def of(cls, place: Path, machines: int) -> "Total":
        each = [lines(place, rank) for rank in range(machines)]
        steps = tokens = 0
        for phase in {line["phase"] for line in each[0]}:
            last = [[line for line in its if line["phase"] == phase][-1:] for its in each]
            done = [one[0] for one in last if one]
            if len(done) == machines:
                steps, tokens = steps + min(one["step"] for one in done), tokens + min(one["tokens"] for one in done)
        return cls(steps, tokens, sum(line.get("bytes_sent", 0) for its in each for line in its))


def seconds_to(curve: Sequence[Sequence[float]], target: float) -> float | None:
    """Return the time at which a curve comes to a target, between two points on a straight line; None if never."""
    before: Sequence[float] | None = None
    for at, value in curve:
        if value <= target:
            if before is None:
                return at
            return before[0] + (at - before[0]) * (before[1] - target) / (before[1] - value)
        before = (at, value)
    return None


def value_at(curve: Sequence[Sequence[float]], seconds: float) -> float | None:
    """Return what a curve says at a time, between two points on a straight line; None if it begins later."""
    before: Sequence[float] | None = None
    for at, value in curve:
        if at >= seconds:
            if before is None:
                return value if at == seconds else None
            return before[1] + (value - before[1]) * (seconds - before[0]) / (at - before[0])
        before = (at, value)
    return None


def table(results: dict[str, Any]) -> str:
    """Return the comparison as a Markdown table.

    Bits per byte are those at the last time for which all runs have some; the speed-up is the time in which `one` comes
    to its last measurement over that in which another run does.
    """
    one = results.get("one", {})
    target = one.get("bits_per_byte")
    common = min((found["curve"][-1][0] for found in results.values() if found["curve"]), default=0.0)
    columns = ("link", "exchange", "steps/s", "tokens an hour", "bytes a step, counted", "on the wire")
    rows = [f"| {' | '.join((*columns, f'bits per byte at {common:.0f} s', 'speed-up'))} |", f"|---|---{'|--:' * 6}|"]
    for name, found in results.items():
        arm, _, link = name.partition(" @ ")
        taken = seconds_to(found["curve"], target) if target else None
        gain = f"{one['curve'][-1][0] / taken:.2f}" if taken else "not reached"
        value = value_at(found["curve"], common)
        bits = f"{value:.4f}" if value else "none"
        counted, wire = (f"{found[f'bytes_{kind}_per_step']:,.0f}" for kind in ("counted", "on_the_wire"))
        speed = f"{found['steps_per_second']:.2f} | {found['tokens_per_hour']:,.0f}"
        rows.append(f"| {link or 'none'} | {arm} | {speed} | {counted} | {wire} | {bits} | {gain} |")
    return "\n".join(rows)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--seconds", type=float, default=60.0, help="that each run trains, from its first step on")
    options.add_argument("--only", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    options.add_argument("--links", nargs="+", default=LINKS, help="rate and one-way delay of the real link")
    options.add_argument("--scale", choices=("step", "flops"), default="step")
    options.add_argument("--every", type=int, default=20, help="steps between outer ones, and between settlings")
    options.add_argument("--texts", type=Path, help="JSON Lines with `id` and `text`; documentation if none are given")
    options.add_argument("--held-out", type=float, default=0.02, help="share of documents")
    options.add_argument("--patience", type=float, default=180.0, help="seconds for a run to begin")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    desk = Desk(given)
    kept = desk.folder / "results.json"
    results = read_json(kept) if kept.exists() else {}
    print(f"{desk.flops / 1e9:.1f} GFLOP/s a core, {STRIX_HALO / 1e12:g} TFLOP/s on Strix Halo, by products: one to")
    print(f"{STRIX_HALO / desk.flops:,.0f}. A step of {ROWS * LENGTH:,} positions takes {desk.steps['plain']:.2f} s.")
    wanted = [Link(float(gbit), float(ms) / 1e3) for gbit, _, ms in (one.partition(":") for one in given.links)]
    for link in wanted:
        here = desk.scale.of(link)
        print(f"{link.name} is {1e3 * here.gbit:.3f} Mbit/s, {1e3 * here.delay:.3f} ms here", flush=True)
    runs = [(arm, link) for link in wanted for arm in given.only if arm != "one"]
    runs = [("one", None), *runs] if "one" in given.only else runs
    for number, (arm, link) in enumerate(runs, 1):
        name = f"{arm} @ {link.name}" if link else arm
        if name not in results:
            print(f"{number} of {len(runs)}: {name}", end="", flush=True)
            try:
                results[name] = train(desk, arm, link)
            except RuntimeError as error:
                print(f": {error}\nthe other runs go on; the same command makes this one again")
                continue
            write_json(kept, results)
            print(f": {results[name]['steps_per_second']:.2f} steps/s, {results[name]['bits_per_byte']} bits per byte")
    print(table(results))
    if given.out:
        scales = {"flops": desk.flops, "scale": desk.scale._asdict(), "seconds": given.seconds, "every": given.every}
        write_json(given.out, {"environment": environment(), **scales, "results": results})


if __name__ == "__main__":
    main()
