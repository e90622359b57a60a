"""HTTP by uvicorn, with limits of time that it does not have: for the head of a request, and for taking a response.

Uvicorn bounds the head's size (64 KiB) and how long a connection may be idle between two requests, but not how slowly
a head may come, nor how long a client may leave what is sent to it lying.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""From the opening of a connection, or the first byte of a further request, to the end of the request's head."""
TAKE_SECONDS = 60.0
"""Time in which a client that is behind has to take something of what it is sent."""


class TimedProtocol(H11Protocol):
    """Closes connections whose client is too slow."""

    _head_timer: asyncio.TimerHandle | None = None
    _take_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a head, unless there are too many connections to answer one even with an error."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            return transport.abort()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._abort)

    def data_received(self, data: bytes) -> None:
        """Read what came, and wait for the rest of a head if it is in one."""
        super().data_received(data)
        is_reading_head = self.cycle is None or self.cycle.response_complete
        if not is_reading_head:
            self._head_timer = _cancelled(self._head_timer)
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head_timer, self._take_timer = _cancelled(self._head_timer), _cancelled(self._take_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to take what was sent."""
        super().pause_writing()
        self._take_timer = self.loop.call_later(TAKE_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """Send more."""
        self._take_timer = _cancelled(self._take_timer)
        super().resume_writing()

    def _abort(self) -> None:
        self.transport.abort()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
