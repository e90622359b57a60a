"""Processes that stand for machines, beside a store that stands for torchrun's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

from torch import distributed


@contextmanager
def machines(train: Callable[..., None]) -> Iterator[Callable[..., BaseProcess]]:
    """A function that starts a machine, `train(rank, port, *given)`; none is left behind.

    The port is the store's, or that of `begin(rank, *given, port=)`.
    """
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes, port_of_all = get_context("forkserver"), store.port
    started: list[BaseProcess] = []

    def begin(rank: int, *given: Any, port: int | None = None) -> BaseProcess:
        process = processes.Process(target=train, args=(rank, port or port_of_all, *given), daemon=True)
        process.start()
        started.append(process)
        return process

    try:
        yield begin
    finally:
        for process in started:
            process.kill()
        del store


def ended(*processes: BaseProcess, code: int = 0) -> None:
    """Wait until they have ended, with this exit code."""
    for process in processes:
        process.join(60)
        assert process.exitcode == code
