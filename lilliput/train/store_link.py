"""A rank's link to the store that torchrun keeps on the first host: a cable that is pulled costs a time limit.

The store's client waits for ever on a connection that died silently. So each call is made by a thread of its own, which
is left behind, with its connection, once the time limit is over; the next call connects again.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from typing import TypeVar, cast
from uuid import uuid4

from torch.distributed import Store, TCPStore

T = TypeVar("T")
CHUNK = 4 * 2**20
"""Bytes of a value at most; the store refuses any of more than eight MiB."""


class LinkDown(Exception):
    """The store could not be reached within the time limit."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The value of a key: what is stored, and where its chunks are."""

    version: str
    chunks: int
    bytes: int
    step: int
    """It is of."""


class StoreLink:
    """Values of any size in the store of torchrun, by key; the newest of a key is whole, or not there."""

    def __init__(self, limit: float):
        """Link to the store at torchrun's address; `limit` is the seconds that a call takes at most."""
        self.limit = limit
        self.sent, self.received = 0, 0
        self._address = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", "29500"))
        self._client: _Client | None = None
        self._posted: Future[None] | None = None
        self._stored: dict[str, list[Head]] = {}

    def call(self, what: Callable[[Store], T], limit: float | None = None) -> T:
        """Return what a call to the store returns.

        Raises:
            LinkDown: it took longer than the limit, or failed.
        """
        seconds = self.limit if limit is None else limit
        if self._client is None:
            self._client = _Client(*self._address, seconds)
        try:
            return self._client.submit(what).result(max(seconds, 0.0))
        except (futures.TimeoutError, RuntimeError, OSError) as error:  # those of the store are RuntimeErrors
            self._client.leave()
            self._client = self._posted = None
            reason = str(error).splitlines()[0] if str(error) else f"no answer within {seconds:g} s"
            raise LinkDown(reason) from error

    def put(self, key: str, value: bytes, *, step: int = 0, kept: int = 2, limit: float | None = None) -> None:
        """Store a value, and drop all but the last `kept` ones of the key, of which readers may be in the middle."""
        cut = [value[begin : begin + CHUNK] for begin in range(0, len(value), CHUNK)]
        head = Head(version=uuid4().hex, chunks=len(cut), bytes=len(value), step=step)
        stored = self._stored.get(key, [])

        def store(there: Store) -> None:
            if not stored and there.check([key]):
                stored.append(_head(there, key))  # of this rank, before it was killed
            for place, chunk in zip(_places(key, head), cut, strict=True):
                there.set(place, cast(str, chunk))  # or bytes, which its stubs do not know
            there.set(key, json.dumps(vars(head)))
            there.check([key])  # which the store answers, and what is set it does not
            for old in stored[: len(stored) + 1 - kept]:
                for place in _places(key, old):
                    there.delete_key(place)

        self.call(store, limit)
        self._stored[key] = [*stored, head][-kept:]
        self.sent += len(value)

    def heads(self, keys: Sequence[str], limit: float | None = None) -> list[Head | None]:
        """Return what is stored under keys, without the values."""

        def read(there: Store) -> list[Head | None]:
            return [_head(there, key) if there.check([key]) else None for key in keys]

        return self.call(read, limit)

    def get(self, key: str, limit: float | None = None) -> bytes | None:
        """Return a value; None if it is not there, or was replaced while it was read."""

        def read(there: Store) -> bytes | None:
            if not there.check([key]):
                return None
            head = _head(there, key)
            places = _places(key, head)
            if places and not there.check(places):
                return None
            return b"".join(there.get(place) for place in places)

        value = self.call(read, limit)
        self.received += len(value or b"")
        return value

    def post(self, key: str, value: str) -> None:
        """Store a short value without waiting for it; nothing happens while the one before is on its way."""
        if self._posted is not None and not self._posted.done():
            return
        if self._client is None:
            self._client = _Client(*self._address, self.limit)
        elif self._posted is not None and self._posted.exception() is not None:
            self._client.leave()
            self._client = _Client(*self._address, self.limit)
        self._posted = self._client.submit(lambda there: there.set(key, value))

    def drop(self, key: str) -> None:
        """Remove the chunks of a value, also of one that this rank stored before it was killed."""
        stored = self._stored.pop(key, [])

        def remove(there: Store) -> None:
            for head in stored or ([_head(there, key)] if there.check([key]) else []):
                for place in _places(key, head):
                    there.delete_key(place)

        self.call(remove)

    def connect(self, timeout: timedelta) -> Store:
        """Return a connection of its own, for a process group."""
        return _connect(*self._address, timeout)


class _Client:
    """A connection and the thread that calls it."""

    def __init__(self, host: str, port: int, seconds: float):
        self._calls: SimpleQueue[tuple[Callable[[Store], object], Future] | None] = SimpleQueue()
        # A daemon: a process that ends does not wait for a call that hangs.
        threading.Thread(target=self._serve, args=(host, port, seconds), name="store", daemon=True).start()

    def submit(self, what: Callable[[Store], T]) -> "Future[T]":
        done: Future[T] = Future()
        self._calls.put((what, done))
        return done

    def leave(self) -> None:
        self._calls.put(None)

    def _serve(self, host: str, port: int, seconds: float) -> None:
        store = None
        while (call := self._calls.get()) is not None:
            what, done = call
            try:
                store = store or _connect(host, port, timedelta(seconds=max(seconds, 1.0)))
                done.set_result(what(store))
            except BaseException as error:
                done.set_exception(error)


def _connect(host: str, port: int, timeout: timedelta) -> Store:
    """Connect; a closed port is found out at once, and not at the end of the store's own attempts."""
    socket.create_connection((host, port), timeout.total_seconds()).close()
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)


def _head(store: Store, key: str) -> Head:
    return Head(**json.loads(store.get(key)))


def _places(key: str, head: Head) -> list[str]:
    return [f"{key}/{head.version}/{chunk}" for chunk in range(head.chunks)]
