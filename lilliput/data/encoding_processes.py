"""Texts that several processes encode, whose ids come back in order; they end when this process does, or at once.

One thread of this process feeds them all and never blocks in a write, so it answers Ctrl-C at any moment. Processes of
the standard library would import the user's script again, which then needs a guard.
"""

import json
import os
import selectors
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import FileIO
from typing import Any

from tokenizers import Tokenizer

from lilliput.base import errors
from lilliput.base.errors import LilliputError, MachineError
from lilliput.data import encoding_worker
from lilliput.data.encoding_worker import ERROR, HEAD, SETUP, TEXTS, joined, parted
from lilliput.tokenizer.encoder import Encoder

FRAME = 1 << 18
"""Bytes of texts that a process is given at a time: some ten milliseconds of work."""
_AHEAD = 3
"""Frames that a process has at most: one that it encodes, and others that wait in the pipe."""
_PIPE = 1 << 20
"""Bytes that a pipe should hold, where the system lets it."""


class _Frame:
    """Texts that are encoded together."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        """Until they are sent."""
        self.sizes: deque[int] = deque()
        """UTF-8 bytes of those that are not taken."""
        self.size = 0
        self.answer: Iterator[memoryview] | None = None
        """The ids of each text, once they are there."""
        self.error: Exception | None = None


class _Process:
    """A process, and what is on its way to it and back."""

    def __init__(self, environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", encoding_worker.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,  # a terminal tells Ctrl-C to a whole session
        )
        assert isinstance(self.process.stdin, FileIO) and isinstance(self.process.stdout, FileIO)
        self.input, self.output = self.process.stdin, self.process.stdout
        for pipe in (self.input, self.output):
            os.set_blocking(pipe.fileno(), False)
            _widen(pipe.fileno())
        self.frames: deque[_Frame] = deque()
        """Frames that it has not answered."""
        self._unsent: deque[memoryview] = deque()
        self._head, self._data, self._read = bytearray(HEAD.size), bytearray(), 0

    @property
    def is_sending(self) -> bool:
        """Return whether a part of a frame has to wait for the pipe."""
        return bool(self._unsent)

    def send(self, kind: int, data: bytes) -> None:
        """Begin to send a frame."""
        self._unsent += memoryview(HEAD.pack(kind, len(data))), memoryview(data)
        self.write()

    def write(self) -> None:
        """Write what the pipe takes now."""
        try:
            while self._unsent:
                part = self._unsent.popleft()
                count = self.input.write(part) or 0  # None where the pipe is full
                if count < len(part):
                    self._unsent.appendleft(part[count:])
                    return
        except OSError as error:
            raise self._died() from error

    def read(self) -> None:
        """Read what the pipe has now, and set the answers of frames that are whole."""
        while True:
            target = self._data if self._data else self._head
            count = self.output.readinto(memoryview(target)[self._read :])
            if count is None:
                return
            if count == 0:
                raise self._died()
            self._read += count
            if self._read < len(target):
                continue
            self._read = 0
            kind, size = HEAD.unpack(self._head)
            if target is self._head:
                self._data = bytearray(size)
                continue
            frame, data, self._data = self.frames.popleft(), memoryview(self._data), bytearray()
            if kind == ERROR:
                frame.error = _error(json.loads(bytes(data)))
            frame.answer = iter(() if kind == ERROR else parted(data))

    def _died(self) -> MachineError:
        self.process.kill()
        return MachineError(
            f"a process that encodes texts has died, with exit code {self.process.wait()}",
            where="its work on a corpus",
            hint="the system may be out of memory (-9): free some, or encode in one process, with Machine(threads=1)",
        )

    def end(self) -> None:
        """End it, whatever it is at."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.input, self.output):
            with suppress(OSError):
                pipe.close()


class EncodingProcesses:
    """Encode texts in so many processes. A context manager, at whose end they end.

    Args:
        tokenizer: whose ids are asked for, without the spelling of special tokens; it is not to change any more.
        where: the texts come from, for errors.
        code: type of the arrays of ids, as `array` names it.
        count: number of processes.
    """

    def __init__(self, tokenizer: Tokenizer, where: str, code: str, count: int):
        self._encoder, self._code, self._count = Encoder(tokenizer, where, code=code), code, count
        self._around = self._encoder.around
        setup = {"tokenizer": tokenizer.to_str(), "where": where, "code": code}
        self._setup = json.dumps(setup | {"add_special_tokens": self._around is None}).encode()
        self._processes: list[_Process] = []
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self._filling, self._waiting = _Frame(), deque[_Frame]()
        self._parts: deque[tuple[_Frame, bool]] = deque()
        """The frame of every part of a text that was put and not taken, and whether a text ends with it."""
        self._room = (_AHEAD + 1) * FRAME * count
        self._held = 0

    def __enter__(self) -> "EncodingProcesses":
        with self._stack as unless_all_start:
            for _ in range(self._count):
                self._start()
            self._stack = unless_all_start.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def is_full(self) -> bool:
        """Return whether all processes have work, so that it is time to take."""
        return self._held >= self._room

    def put(self, text: str) -> None:
        """Give a text to be encoded."""
        for part, is_last in self._encoder.parts(text, FRAME):
            data, frame = part.encode("utf-8", "surrogatepass"), self._filling
            frame.texts.append(data)
            frame.sizes.append(len(data))
            frame.size += len(data)
            self._held += len(data)
            self._parts.append((frame, is_last))
            if frame.size >= FRAME:
                self._hand_out()

    def take(self) -> "array[int]":
        """The ids of the text that was put first, once they are there.

        Raises:
            DataError: the text has to be encoded at once and is too long for that, or encoders disagree.
            MachineError: a process has died.
            RuntimeError: a process met an error of ours.
        """
        before, after = self._around or ([], [])
        ids, is_last = array(self._code, before), False
        while not is_last:
            frame, is_last = self._parts.popleft()
            if frame is self._filling:
                self._hand_out()
            while frame.answer is None:
                self._exchange(None)
            if frame.error is not None:
                raise frame.error
            self._held -= frame.sizes.popleft()
            ids.frombytes(next(frame.answer))
        ids.extend(after)
        return ids

    def _hand_out(self) -> None:
        """Let the texts so far be encoded."""
        self._waiting.append(self._filling)
        self._filling = _Frame()
        self._exchange(0)

    def _exchange(self, seconds: float | None) -> None:
        """Write and read what can be, after waiting so long that something can be; None for as long as it takes."""
        for process in sorted(self._processes, key=lambda one: len(one.frames)):
            if self._waiting and len(process.frames) < _AHEAD:
                process.frames.append(frame := self._waiting.popleft())
                process.send(TEXTS, joined(frame.texts))
                frame.texts.clear()
                self._look(process)
        for key, events in self._selector.select(seconds):
            if events & selectors.EVENT_WRITE:
                key.data.write()
                self._look(key.data)
            else:
                key.data.read()

    def _look(self, process: _Process) -> None:
        """Let the selector tell when the process takes more, if there is more."""
        is_known = process.input.fileno() in self._selector.get_map()
        if process.is_sending and not is_known:
            self._selector.register(process.input, selectors.EVENT_WRITE, process)
        elif is_known and not process.is_sending:
            self._selector.unregister(process.input)

    def _start(self) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        threads = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1"}
        try:
            process = _Process(os.environ | threads | {"PYTHONPATH": paths})
        except OSError as error:
            raise MachineError(
                f"a process that encodes texts cannot be started ({error})",
                where=sys.executable,
                hint="the system may be out of memory or processes: encode in one process, with Machine(threads=1)",
            ) from error
        self._stack.callback(process.end)
        self._processes.append(process)
        self._selector.register(process.output, selectors.EVENT_READ, process)
        process.send(SETUP, self._setup)
        self._look(process)


def _error(parts: dict[str, Any]) -> Exception:
    """The error that a process met."""
    if "traceback" in parts:
        return RuntimeError(parts["traceback"])
    kind = getattr(errors, parts["class"], LilliputError)
    return kind(parts["what"], where=parts["where"], hint=parts["hint"])


def _widen(pipe: int) -> None:
    """Let a pipe hold more, where the system has a way and allows it."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
