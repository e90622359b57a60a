"""How does `lilliput serve` hold many streams at a time, beside one after the other and beside `transformers serve`?

    python benchmarks/serving.py FOLDER... [--streams 1 8 64 256 1000] [--prompt 64] [--new 32] [--peer]
        [--peer-most 64] [--conversations 1000] [--turns 10] [--rows 64] [--threads 2] [--out FILE.json]

FOLDERs are releases, or names of recipes, of whose models releases with random weights are made. Each is served in a
process of its own on loopback, in fp32, and asked by this one: so many streams at once, each with a prompt of its own,
written greedily. For each number: tokens a second, time to the first token, time between tokens, memory of the server;
and whether every text is the one that the server wrote when it was asked for nothing else. With --peer the same
questions go to transformers' server, up to --peer-most streams; it needs fastapi (`pip install
'transformers[serving]'`).

With --conversations, so many conversations of --turns turns are held: memory of the states of each, and the time to the
first token of the last turn beside that of a server that keeps no states and reads the whole conversation again.

The server and those who ask share the machine, which has to be idle otherwise.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.publish.export import Generation, export
from lilliput.recipe import Release, load_recipe
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, CHATML, add_chatml

WORDS = Path(__file__).read_text(encoding="utf-8").split()
PATIENCE = 600.0
"""Seconds that a server may take to start, and a stream to end."""


class NotStarted(Exception):
    """A server that ended before it answered; its last words."""


@dataclass(kw_only=True)
class Stream:
    """One answer, as it came."""

    begun: float
    times: list[float] = field(default_factory=list)
    """Of the events that had text."""
    text: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def first(self) -> float:
        return self.times[0] - self.begun

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


async def ask(port: int, path: str, body: dict[str, Any]) -> Stream:
    """Ask for a stream, by hand: a client library would take as long as the server."""
    stream = Stream(begun=time.perf_counter())
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = json.dumps(body).encode()
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
            status = (await reader.readline()).split()[1].decode()
            while (await reader.readline()).strip():
                pass
            if status != "200":
                stream.error = f"{status} {(await reader.read())[:200]!r}"
            else:
                await _read_events(reader, stream)
            writer.close()
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError, TimeoutError) as error:
        stream.error = f"{type(error).__name__}: {error}"
    return stream


async def _read_events(reader: asyncio.StreamReader, stream: Stream) -> None:
    """Read server-sent events in chunks of HTTP until the last one."""
    waiting = b""
    while size := int((await reader.readline()).strip(), 16):
        waiting += (await reader.readexactly(size + 2))[:-2]
        *events, waiting = waiting.replace(b"\r\n", b"\n").split(b"\n\n")
        now = time.perf_counter()
        for event in events:
            if event.startswith(b"data: {"):
                _add(json.loads(event[6:]), stream, now)


def _add(event: dict[str, Any], stream: Stream, now: float) -> None:
    if event.get("usage"):
        stream.usage = event["usage"]
    for choice in event.get("choices", ()):
        text = choice.get("text") or choice.get("delta", {}).get("content") or ""
        if text:
            stream.times.append(now)
            stream.text += text


class Memory:
    """Memory of a process, in bytes, sampled ten times a second."""

    def __init__(self, pid: int):
        self._pid, self._most, self._stop = pid, 0, threading.Event()

    def __enter__(self) -> "Memory":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def most(self) -> int:
        return self._most

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self._most = max(self._most, resident(self._pid))


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def server(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """Run a server until the end of the block."""
    running = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                if running.poll() is not None or time.monotonic() > until:
                    assert running.stderr is not None
                    raise NotStarted(running.stderr.read().strip().splitlines()[-1]) from None
                time.sleep(0.2)
        threading.Thread(target=lambda: running.stderr and running.stderr.read(), daemon=True).start()
        yield running
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ours(folder: Path, port: int, rows: int, queue: int, keep: str) -> list[str]:
    about = ["--rows", str(rows), "--queue", str(queue), "--timeout", str(PATIENCE), "--keep-states", keep]
    return [sys.executable, "-m", "lilliput", "serve", str(folder), "--port", str(port), "--device", "cpu", *about]


def theirs(folder: Path, port: int) -> list[str]:
    program = str(Path(sys.executable).with_name("transformers"))
    about = ["--device", "cpu", "--dtype", "float32", "--trust-remote-code"]
    return [program, "serve", str(folder), "--port", str(port), *about]


def prompt(number: int, words: int) -> str:
    """Return a text that differs from those of other numbers from its first word on."""
    return f"{number} " + " ".join(WORDS[(number * 7 + word) % len(WORDS)] for word in range(words))


def question(name: str, number: int, given: argparse.Namespace) -> dict[str, Any]:
    about = {"stream": True, "temperature": 0, "stream_options": {"include_usage": True}}
    return {"model": name, "prompt": prompt(number, given.prompt), "max_tokens": given.new, **about}


async def together(port: int, bodies: Sequence[dict[str, Any]], path: str = "/v1/completions") -> list[Stream]:
    return await asyncio.gather(*(ask(port, path, body) for body in bodies))


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 95th and 99th of a hundred, in milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else 99 * [seconds[0]]
    return {"p50": 1e3 * median(seconds), "p95": 1e3 * cuts[94], "p99": 1e3 * cuts[98]}


def load(
    port: int, pid: int, name: str, count: int, given: argparse.Namespace, alone: dict[int, str]
) -> dict[str, Any]:
    """Ask for so many streams at once; `alone` has texts that were written with nothing beside them."""
    with Memory(pid) as memory:
        began = time.perf_counter()
        streams = asyncio.run(together(port, [question(name, number, given) for number in range(count)]))
        seconds = time.perf_counter() - began
    written = [one for one in streams if one.times]
    tokens = sum(one.usage.get("completion_tokens") or len(one.times) for one in written)
    gaps = [gap for one in written for gap in one.gaps]
    return {
        "streams": count,
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "first_token_ms": spread([one.first for one in written]) if written else None,
        "between_tokens_ms": spread(gaps) if gaps else None,
        "memory_bytes": memory.most,
        "lost": [one.error or "no text" for one in streams if not one.times],
        "compared": sum(number in alone for number in range(count)),
        "other_texts": sum(number in alone and one.text != alone[number] for number, one in enumerate(streams)),
    }


def one_by_one(port: int, name: str, given: argparse.Namespace) -> dict[int, str]:
    texts = {}
    for number in range(min(given.alone, max(given.streams))):
        (stream,) = asyncio.run(together(port, [question(name, number, given)]))
        assert not stream.error, stream.error
        texts[number] = stream.text
    return texts


def line(who: str, found: dict[str, Any]) -> str:
    first, between = found["first_token_ms"], found["between_tokens_ms"]
    times = [f"{one['p50']:,.0f} / {one['p95']:,.0f} / {one['p99']:,.0f}" if one else "" for one in (first, between)]
    cells = (who, f"{found['streams']:,}", f"{found['tokens_per_second']:,.0f}", *times)
    wrong = f"{found['other_texts']} of {found['compared']}" if found["compared"] else "not compared"
    return f"| {' | '.join(cells)} | {found['memory_bytes'] / 2**20:,.0f} | {len(found['lost'])} | {wrong} |"


def served(folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Load on one release, ours and the peer's."""
    port, found = free_port(), []
    threads = {"OMP_NUM_THREADS": str(given.threads)}
    with server(ours(folder, port, given.rows, max(given.streams), "0"), port, threads) as running:
        alone = one_by_one(port, folder.name, given)
        for count in given.streams:
            found.append({"server": "lilliput", **load(port, running.pid, folder.name, count, given, alone)})
            print(line(f"lilliput, {folder.name}", found[-1]), flush=True)
    if given.peer:
        try:
            found += peer(folder, given, threads)
        except NotStarted as error:
            found.append({"server": "transformers", "did_not_start": str(error)})
            print(f"transformers, {folder.name}: does not start: {error}", flush=True)
    return found


def peer(folder: Path, given: argparse.Namespace, threads: dict[str, str]) -> list[dict[str, Any]]:
    """Load on transformers' server."""
    port, found = free_port(), []
    with server(theirs(folder, port), port, threads) as running:
        load(port, running.pid, str(folder), 1, given, {})  # loads the model
        for count in (count for count in given.streams if count <= given.peer_most):
            found.append({"server": "transformers", **load(port, running.pid, str(folder), count, given, {})})
            print(line(f"transformers, {folder.name}", found[-1]), flush=True)
    return found


async def _talk(port: int, name: str, number: int, given: argparse.Namespace, gate: asyncio.Semaphore) -> list[Stream]:
    """Hold a conversation; one of at most so many at a time."""
    messages: list[dict[str, str]] = []
    streams = []
    for turn in range(given.turns):
        messages.append({"role": "user", "content": prompt(number * given.turns + turn, given.prompt // 2)})
        about = {"stream": True, "temperature": 0, "stream_options": {"include_usage": True}}
        async with gate:
            body = {"model": name, "messages": messages, "max_tokens": given.new, **about}
            streams.append(await ask(port, "/v1/chat/completions", body))
        messages.append({"role": "assistant", "content": streams[-1].text})
    return streams


def conversations(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Hold conversations, on a server that keeps their states and, a few of them, on one that keeps none."""

    async def held(port: int, count: int) -> list[list[Stream]]:
        gate = asyncio.Semaphore(given.rows)
        return await asyncio.gather(*(_talk(port, folder.name, number, given, gate) for number in range(count)))

    found: dict[str, Any] = {"conversations": given.conversations, "turns": given.turns}
    threads = {"OMP_NUM_THREADS": str(given.threads)}
    for kind, keep in (("kept", "64GiB"), ("read_again", "0")):
        port = free_port()
        with server(ours(folder, port, given.rows, given.conversations, keep), port, threads) as running:
            if kind == "kept":
                before, all_held = resident(running.pid), asyncio.run(held(port, given.conversations))
                found["memory_bytes_each"] = (resident(running.pid) - before) / given.conversations
                found["lost"] = sum(bool(one.error) for talk in all_held for one in talk)
                with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                    lines = answer.read().decode().splitlines()
                found["metrics"] = [one for one in lines if "state" in one and not one.startswith("#")]
            given_alone = asyncio.run(_alone(port, folder.name, given))
        last = [talk[-1] for talk in given_alone if talk[-1].times]
        if not last:
            raise SystemExit(f"{folder.name} did not answer a last turn: {given_alone[0][-1].error}")
        found[kind] = {
            "last_turn_first_token_ms": spread([one.first for one in last]),
            "prompt_tokens": median([one.usage["prompt_tokens"] for one in last]),
            "cached_tokens": median([one.usage["prompt_tokens_details"]["cached_tokens"] for one in last]),
        }
    print(f"{folder.name}: {json.dumps(found, indent=1)}", flush=True)
    return found


async def _alone(port: int, name: str, given: argparse.Namespace) -> list[list[Stream]]:
    """Hold eight conversations, one after the other: times that nothing else disturbs."""
    gate = asyncio.Semaphore(1)
    return [await _talk(port, name, 10**6 + number, given, gate) for number in range(8)]


def made(name: str, folder: Path) -> Path:
    """Write a chat release of a recipe's model with random weights; its tokenizer knows the quickstart's text."""
    recipe, quickstart = load_recipe(name), load_recipe("quickstart")
    corpora = [quickstart.corpora[one] for one in quickstart.tokenizer_corpora]
    texts = (document.text for corpus in corpora for document in corpus.documents())
    spec = recipe.model.shape
    tokenizer = add_chatml(BPE(vocab=spec.vocab - len(CHATML)).train(texts))
    layout = next(entry.layout for entry in recipe.timeline if isinstance(entry, Release))
    path = folder / recipe.name
    path.mkdir()
    about = {"layout": layout, "dtype": "F32", "generation": Generation(), "chat_template": CHAT_TEMPLATE}
    export(spec.build(seed=0), tokenizer, path, **about)
    return path


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folders", nargs="+", type=Path)
    options.add_argument("--streams", nargs="*", type=int, default=[1, 8, 64, 256, 1000])
    options.add_argument("--prompt", type=int, default=64, help="words of a prompt")
    options.add_argument("--new", type=int, default=32, help="tokens of an answer at most")
    options.add_argument("--alone", type=int, default=256, help="texts that are written alone first, to compare with")
    options.add_argument("--peer", action="store_true")
    options.add_argument("--peer-most", type=int, default=64)
    options.add_argument("--conversations", type=int, default=0)
    options.add_argument("--turns", type=int, default=10)
    options.add_argument("--rows", type=int, default=64)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("| server | streams | tokens/s | first token, ms | between tokens, ms | MiB | lost | other texts |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    results: dict[str, Any] = {"settings": {name: str(value) for name, value in vars(given).items()}}
    work = TemporaryDirectory()
    for folder in (one if one.is_dir() else made(str(one), Path(work.name)) for one in given.folders):
        about = results[folder.name] = {}
        if given.streams:
            about["load"] = served(folder, given)
        if given.conversations:
            about["conversations"] = conversations(folder, given)
        if given.out:
            write_json(given.out, results | {"environment": environment()})


if __name__ == "__main__":
    main()
