"""Texts that several processes encode: the ids of one, in order, whatever becomes of a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lilliput.base.errors import DataError, MachineError
from lilliput.data import encoding_processes
from lilliput.data.documents import Document
from lilliput.data.encoding_processes import EncodingProcesses
from lilliput.data.encoding_queue import EncodingQueue
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.encoder import Encoder
from lilliput.tokenizer.specials import literal

TEXTS = [
    *(tiny.sentences(number) for number in range(600)),
    "",
    *("été \t日本 \U0001f642", "no space" * 900, "a\u2009b " * 400, "<|endoftext|>", "\n" * 20_000, "x" * 30_000),
    "some words of a long text. " * 20_000,
]


def plain() -> Tokenizer:
    return BPE(vocab=300, at_most=True).train(TEXTS[:100])


def with_template() -> Tokenizer:
    tokenizer = plain()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|pad|>", special_tokens=[("<|endoftext|>", 0), ("<|pad|>", 1)]
    )
    return tokenizer


def of_words() -> Tokenizer:
    """Where it may be cut is not known."""
    words = {word: number for number, word in enumerate(["?", *sorted({*tiny.sentences(0).split(), "some", "a"})])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture(params=[plain, with_template, of_words], ids=lambda made: made.__name__)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return literal(request.param())


@pytest.mark.parametrize("count", [1, 3])
def test_ids_come_back_in_order_and_are_those_of_one_process(
    tokenizer: Tokenizer, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_processes, "FRAME", 10_000)
    expected = list(Encoder(tokenizer).stream(TEXTS, add_special_tokens=True))
    with EncodingProcesses(tokenizer, "a test", "I", count) as processes:
        for text in TEXTS:
            processes.put(text)
        assert processes.is_full
        assert [processes.take() for _ in TEXTS] == expected
        assert not processes.is_full
        processes.put(TEXTS[0])
        assert processes.take() == expected[0], "it is sent when it is asked for"
    assert gone(processes)


def test_a_queue_hands_over_to_processes_once_there_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lilliput.data.encoding_queue.FEW", 20_000)
    tokenizer, documents = literal(plain()), [Document(text, str(n), str(n)) for n, text in enumerate(TEXTS)]
    items = [(document, None) for document in documents]
    items[3:3] = items[400:400] = [("dropped", None)] * 2
    with EncodingQueue(tokenizer, "a test", "H", 2) as queue:
        found = list(queue.encode(items, lambda document, index: "train" if index % 7 else None, 10))
        assert queue._others is not None and queue._seen < 30_000
    assert [(item, mark) for item, mark, _ in found] == items
    for index, (item, _, encoded) in enumerate(found, 10):
        if isinstance(item, str) or index % 7 == 0:
            assert encoded is None
        else:
            assert encoded is not None and encoded.size == len(item.text.encode())
            assert encoded.ids == Encoder(tokenizer, code="H").encode(item.text, add_special_tokens=True)
    assert gone(queue._others)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_read_ahead_is_bounded(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lilliput.data.encoding_queue.FEW", 0)
    monkeypatch.setattr("lilliput.data.encoding_queue._ITEMS", 500)
    read = 0

    def items() -> Iterator[tuple[Document, None]]:
        nonlocal read
        for read in range(100_000):
            yield Document("some words " * 20, str(read), str(read)), None

    with EncodingQueue(literal(plain()), "a test", "H", 2) as queue:
        for written, _ in enumerate(
            queue.encode(items(), lambda document, index: "train" if wanted or index == 0 else None, 0)
        ):
            assert read - written <= 500
            if written == 2_000:
                break


def test_an_error_comes_after_the_frames_before_it_and_says_what_where_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LILLIPUT_MAX_UNCUT_BYTES", "1000")
    monkeypatch.setattr(encoding_processes, "FRAME", 100)
    with EncodingProcesses(literal(of_words()), "the corpus of x", "I", 2) as processes:
        for text in ("some words " * 20, "a " * 2_000, "more"):
            processes.put(text)
        assert len(processes.take()) == 40
        with pytest.raises(DataError, match="4,000 characters must be encoded at once") as raised:
            processes.take()
        assert raised.value.where == "the corpus of x" and "LILLIPUT_MAX_UNCUT_BYTES=2000" in raised.value.hint
    assert gone(processes)


def test_a_process_that_is_killed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system does when it is out of memory: before anything is sent, and while frames are on their way."""
    monkeypatch.setattr(encoding_processes, "FRAME", 10_000)
    for sent in (0, 300):
        with EncodingProcesses(literal(plain()), "a test", "I", 2) as processes:
            with pytest.raises(MachineError, match="died, with exit code -9") as raised:
                for text in TEXTS[:sent]:
                    processes.put(text)
                os.kill(processes._processes[0].process.pid, signal.SIGKILL)
                for text in TEXTS * 20:
                    processes.put(text)
                    processes.take()
            assert "memory" in raised.value.hint
        assert gone(processes)


def test_a_process_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(MachineError, match="cannot be started"), EncodingProcesses(literal(plain()), "", "I", 2):
        pass


ENDED = """
import os, signal, sys
from lilliput.data import encoding_processes
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.specials import literal

text = "some words of a text " * 5_000
with encoding_processes.EncodingProcesses(literal(BPE(vocab=265).train([text])), "", "I", 2) as processes:
    print(*(one.process.pid for one in processes._processes), flush=True)
    while True:
        processes.put(text)
        if processes.is_full:
            processes.take()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", ENDED]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        started = list(map(int, running.stdout.readline().split()))
        time.sleep(1)
        assert len(started) == 2 and all(map(is_running, started))
        os.killpg(running.pid, number)  # as a terminal does
        assert running.wait(30) == -number
        until = time.monotonic() + 15
        while any(map(is_running, started)):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert running.stderr.read().count("Traceback") == (number == signal.SIGINT)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def gone(processes: EncodingProcesses | None) -> bool:
    assert processes is not None
    return not any(is_running(one.process.pid) for one in processes._processes)
