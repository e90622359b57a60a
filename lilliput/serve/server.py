"""Runs the application under uvicorn, until Ctrl-C or a signal to end."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import uvicorn
from starlette.types import ASGIApp

from lilliput.base.errors import MachineError
from lilliput.serve.protocol import REFUSED, TimedProtocol

CONNECTIONS = 256
"""Connections besides those of requests that are answered or wait."""
OTHER_FILES = 128
"""Open files besides connections."""


class Server(uvicorn.Server):
    """Takes no more requests once it stops, and gives the others some seconds to end.

    Args:
        app: what answers.
        most_requests: that are answered or wait, at most.
        end_all: ends the texts that are still being written.
        grace: seconds until it is called.
    """

    def __init__(self, app: ASGIApp, *, most_requests: int, end_all: Callable[[], None], grace: float):
        super().__init__(
            uvicorn.Config(
                app,
                http=TimedProtocol,
                ws="none",
                loop="asyncio",
                log_config=None,
                log_level="critical",  # the application writes a log of its own
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=most_requests + CONNECTIONS + REFUSED,
                timeout_graceful_shutdown=round(grace) + 2,
            )
        )
        self._end_all, self._grace = end_all, grace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, as uvicorn calls it."""
        asyncio.get_running_loop().call_later(self._grace, self._end_all)
        await super().shutdown(sockets)

    def run_until_stopped(self, listener: socket.socket) -> None:
        """Answer until Ctrl-C, which is how a server ends, or SIGTERM, which ends the process."""
        allow_connections(self.config.limit_concurrency or 0)
        with suppress(KeyboardInterrupt):
            self.run([listener])


def allow_connections(count: int) -> None:
    """Let this process have so many connections open, as far as the system allows."""
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count + OTHER_FILES
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def listen(host: str, port: int) -> socket.socket:
    """Take a port, before anything takes long.

    Raises:
        MachineError: somebody else has it, or the address is not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as opened:
            listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1024)
            opened.pop_all()
    except OSError as error:
        raise MachineError(
            f"the server cannot listen ({error.strerror or error})",
            where=f"{host} port {port}",
            hint="choose another --port (0 for any that is free), or a --host that is an address of this machine",
        ) from error
    return listener
