"""A cable between a machine and the store of torchrun, which a test pulls and plugs in again."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Cable:
    """Carries bytes between whoever connects to `port` and a port of this host, both ways.

    While it is pulled nothing arrives and no connection is refused or closed: those at its ends cannot tell.
    """

    def __init__(self, target: int):
        self._target, self._plugged = target, threading.Event()
        self._plugged.set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._server]
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        """Carry nothing from now on."""
        self._plugged.clear()

    def plug(self) -> None:
        """Carry what waits, and whatever comes."""
        self._plugged.set()

    def close(self) -> None:
        """Close whatever is connected."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self._sockets.append(near)
                self._plugged.wait()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(far)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._plugged.wait()
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def cable(target: int) -> Iterator[Cable]:
    """A cable to a port for the length of a `with` block."""
    made = Cable(target)
    try:
        yield made
    finally:
        made.plug()
        made.close()
