"""The one thread that has the engine, which is not thread-safe; the event loop sends it requests and gets tokens.

It sleeps while there is nothing to write. Tokens of a step go to the event loop together: waking it up costs more than
a token.
"""

import asyncio
import sys
import traceback
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread

from lilliput.generate.engine import Engine
from lilliput.generate.request import Request, Token
from lilliput.serve.api_error import OVERLOADED, SERVER, ApiError
from lilliput.serve.metrics import Metrics
from lilliput.serve.replies import Replies

RETRY = 1
"""Seconds after which to ask again where all places are taken."""


class EngineThread:
    """Answers requests of one event loop.

    Args:
        engine: no other thread uses it.
        rows: of the engine.
        queue: requests that may wait for a row.
        seconds: that requests may take, from when they are made.
        metrics: what is counted.
    """

    def __init__(self, engine: Engine, *, rows: int, queue: int, seconds: float, metrics: Metrics):
        self._engine, self._rows, self._queue, self._seconds = engine, rows, queue, seconds
        self._metrics = metrics
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[Replies] = set()
        self._numbers: dict[int, tuple[Replies, int]] = {}
        """Calls and indices of the requests that the engine has, by its numbers; the thread's own."""
        self._is_stopping = False

    def start(self) -> None:
        """Begin, with the event loop that is running."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def join(self) -> None:
        """End the thread."""
        self._inbox.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    @property
    def active(self) -> int:
        """Return how many requests are being answered or wait."""
        return sum(replies.left for replies in self._open)

    @property
    def waiting(self) -> int:
        """Return how many requests wait for a row."""
        return max(0, self.active - self._rows)

    @property
    def kept(self) -> tuple[int, int]:
        """Return how many states are kept for later requests, and their bytes."""
        return len(self._engine.cache), self._engine.cache.bytes

    def submit(self, requests: Sequence[Request]) -> Replies:
        """Have the requests of one call answered.

        Raises:
            ApiError: there are too many requests, or the server is stopping.
        """
        assert self._loop is not None
        self.check_room(len(requests))
        replies = Replies(len(requests), self._seconds, self._loop, cancel=self._cancel)
        self._open.add(replies)
        self._inbox.put(lambda: self._add(replies, requests))
        return replies

    def check_room(self, count: int) -> None:
        """Refuse so many requests where there is no room for them.

        Raises:
            ApiError: see `submit`.
        """
        most = self._rows + self._queue
        if self._is_stopping:
            raise stopping()
        if count > most:
            raise ApiError(
                400,
                f"This asks for {count} answers at once, and the server takes {most}; ask for fewer.",
                code="invalid_value",
            )
        if self.active + count > most:
            raise ApiError(
                429,
                f"All {self._rows} rows of the server are busy, and {self.waiting} requests wait; ask again later.",
                type=OVERLOADED,
                code="rate_limit_exceeded",
                headers={"Retry-After": str(RETRY)},
            )

    def end_all(self) -> None:
        """Take no more requests, and end those that there are."""
        self._is_stopping = True
        for replies in [*self._open]:
            replies.fail(stopping())

    def _cancel(self, replies: Replies) -> None:
        """Free the rows of a call that is over, whatever it still has."""
        self._open.discard(replies)
        if replies.left:
            self._inbox.put(lambda: self._leave(replies))

    def _deliver(self, tokens: Sequence[tuple[Replies, int, Token]]) -> None:
        for replies, index, token in tokens:
            self._metrics.see_token(replies, token)
            replies.put(index, token)

    def _fail(self, failed: Sequence[Replies]) -> None:
        error = ApiError(500, "The server failed to write this text; its log says why.", type=SERVER, code="failed")
        for replies in failed:
            replies.fail(error)

    # In the thread from here on.

    def _run(self) -> None:
        while self._take():
            if self._engine.is_idle:
                continue
            try:
                tokens = self._engine.step()
            except Exception:
                self._drop_all()
                continue
            written = []
            for token in tokens:
                replies, index = self._numbers[token.number]
                written.append((replies, index, token))
                if token.ended:
                    del self._numbers[token.number]
            if written:
                self._call(self._deliver, written)

    def _take(self) -> bool:
        """Do what was asked for since the last step; wait for it where there is nothing else to do."""
        waits = self._engine.is_idle
        while True:
            try:
                asked = self._inbox.get(block=waits)
            except Empty:
                return True
            if asked is None:
                return False
            asked()
            waits = False

    def _add(self, replies: Replies, requests: Sequence[Request]) -> None:
        try:
            for index, request in enumerate(requests):
                self._numbers[self._engine.add(request)] = replies, index
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self._leave(replies)
            self._call(self._fail, [replies])

    def _leave(self, replies: Replies) -> None:
        for number in [number for number, (one, _) in self._numbers.items() if one is replies]:
            self._engine.cancel(number)
            del self._numbers[number]

    def _drop_all(self) -> None:
        """Fail all texts: a step that raised, as where memory ran out, has left their states in any state."""
        traceback.print_exc(file=sys.stderr)
        failed = [*{replies for replies, _ in self._numbers.values()}]
        for replies in failed:
            self._leave(replies)
        self._call(self._fail, failed)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *arguments)


def stopping() -> ApiError:
    """Make the error of a server that takes no more requests."""
    return ApiError(503, "The server is stopping; ask again later.", type=OVERLOADED, code="stopping")
