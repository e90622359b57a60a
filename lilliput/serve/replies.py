"""Tokens that the engine writes for the requests of one call, as the event loop gets them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic

from lilliput.generate.request import Token
from lilliput.serve.api_error import ApiError, OutOfTime

Item = tuple[int, Token] | ApiError


class Replies:
    """Tokens of several requests, until all have ended, time is up, or the client has gone.

    Args:
        count: of the requests.
        seconds: until those that have not ended do.
        loop: that is running.
        cancel: is called when no more is wanted.
    """

    def __init__(
        self, count: int, seconds: float, loop: asyncio.AbstractEventLoop, cancel: "Callable[[Replies], None]"
    ):
        self.left = count
        """Requests that have not ended."""
        self.began = monotonic()
        self.last_tokens: dict[int, float] = {}
        """Moment of the last token of each, by the engine's number."""
        self._cancel = cancel
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._is_over = False
        self._timer = loop.call_later(seconds, lambda: self.fail(OutOfTime(seconds)))

    def put(self, index: int, token: Token) -> None:
        """Add a token of a request."""
        if not self._is_over:
            self._items.put_nowait((index, token))
            if token.ended:
                self.left -= 1
                if not self.left:
                    self.close()

    def fail(self, error: ApiError) -> None:
        """End those that have not ended."""
        if not self._is_over:
            self._items.put_nowait(error)
            self.close()

    def close(self) -> None:
        """Want no more; what has come can still be taken."""
        if not self._is_over:
            self._is_over = True
            self._timer.cancel()
            self._cancel(self)

    async def batches(self) -> AsyncIterator[list[tuple[int, Token]]]:
        """Yield what has come since, until all have ended.

        Raises:
            ApiError: the rest will not come.
        """
        while not (self._is_over and self._items.empty()):
            batch, item = [], await self._items.get()
            while not isinstance(item, ApiError):
                batch.append(item)
                if self._items.empty():
                    break
                item = self._items.get_nowait()
            if batch:
                yield batch
            if isinstance(item, ApiError):
                raise item
