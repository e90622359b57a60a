"""HTTP by uvicorn, with limits that it does not have: of time for heads and responses, and of idle connections.

Uvicorn bounds the head's size (64 KiB) and how long a connection may be idle between two requests, but not how slowly
a head may come, nor how long a client may leave what is sent to it lying. And beyond its limit of connections it
refuses new ones, so that clients who open many and say nothing would lock out all others. Here the connection that has
been idle longest makes room for a new one.
"""

import asyncio
from typing import Any

from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from lilliput.serve.api_error import OVERLOADED, ApiError

HEAD_SECONDS = 15.0
"""From the opening of a connection, or the first byte of a further request, to the end of the request's head."""
TAKE_SECONDS = 60.0
"""Time in which a client that is behind has to take something of what it is sent."""
IDLE_SECONDS = 1.0
"""Time after which a connection may have to make room: of many that are opened together, none has sent anything yet."""
REFUSED = 256
"""Connections, of those that uvicorn allows, on which requests are refused with a status."""


class TimedProtocol(H11Protocol):
    """Closes connections whose client is too slow, and idle ones when there are too many."""

    _head_timer: asyncio.TimerHandle | None = None
    _take_timer: asyncio.TimerHandle | None = None
    _idle_since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Make room if there are too many connections, and begin to wait for a head."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        assert self.limit_concurrency is not None
        if len(self.connections) > self.limit_concurrency - REFUSED and not self._close_an_idle_one():
            self.app = _too_many
            if len(self.connections) >= self.limit_concurrency:  # too many to answer one even with an error
                return transport.abort()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._abort)

    def data_received(self, data: bytes) -> None:
        """Read what came, and wait for the rest of a head if it is in one."""
        super().data_received(data)
        if not self.is_idle:
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

    def on_response_complete(self) -> None:
        """Wait for a further request."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    @property
    def is_idle(self) -> bool:
        """Return whether no request is to be answered."""
        return self.cycle is None or self.cycle.response_complete

    def _close_an_idle_one(self) -> bool:
        """Close the connection that has been idle longest; return whether there is one that may be closed."""
        idle: Any = (one for one in self.connections if one.is_idle)  # type: ignore[union-attr]
        oldest = min(idle, key=lambda one: one._idle_since)  # this one, if there is no other
        if self.loop.time() - oldest._idle_since < IDLE_SECONDS:
            return False
        self.connections.discard(oldest)  # now, as another may be accepted before it is lost
        oldest.transport.close()
        return True

    def _abort(self) -> None:
        self.transport.abort()


_ERROR = ApiError(
    503,
    "Requests are being sent or answered on all connections that this server has. Send yours again later.",
    type=OVERLOADED,
    code="too_many_connections",
    headers={"Retry-After": "1", "Connection": "close"},
)
_too_many = JSONResponse(_ERROR.body, _ERROR.status, headers=_ERROR.headers)


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
