"""Work spread over processes, which end when this one does: also when it is killed, or stops waiting for them.

A pool of the standard library would go on after a kill, for ever.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from lilliput.base.errors import MachineError

T = TypeVar("T")
R = TypeVar("R")


def spread(call: Callable[[T], R], jobs: Sequence[T], count: int) -> list[R]:
    """Return what a call returns for each job, made in so many processes at once that import what they need again.

    Raises:
        MachineError: a process ended in mid-work.
        RuntimeError: the call raised an error.
    """
    context, waiting = multiprocessing.get_context("spawn"), deque(enumerate(jobs))
    busy: dict[Any, int] = {}
    found: dict[int, R] = {}
    with ExitStack() as stack:
        for _ in range(min(count, len(jobs))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, call), daemon=True)
            with _deaf():
                process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(ours.close)  # which ends the process, whatever it is at
            busy[ours] = _send(ours, waiting)
        while busy:
            for ours in wait(list(busy)):
                found[busy.pop(ours)] = _receive(ours)
                if waiting:
                    busy[ours] = _send(ours, waiting)
    return [found[index] for index in range(len(jobs))]


def _send(ours: Any, waiting: "deque[tuple[int, Any]]") -> int:
    """Give the next job to a process; the index of the job."""
    index, job = waiting.popleft()
    try:
        ours.send(job)
    except OSError as error:
        raise _ended() from error
    return index


def _receive(ours: Any) -> Any:
    try:
        value, failure = ours.recv()
    except (EOFError, OSError) as error:
        raise _ended() from error
    if failure:
        raise RuntimeError(failure)
    return value


def _ended() -> MachineError:
    return MachineError(
        "a worker process has died",
        where="workers",
        hint="the system may be out of memory: free some, or use one process (workers=1)",
    )


@contextmanager
def _deaf() -> Iterator[None]:
    """Begin processes that do not hear Ctrl-C, which a terminal tells all of them; this one hears it a moment later."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(theirs: Connection, call: Callable[[Any], Any]) -> None:
    """Work in a worker process: one thread does the jobs, and this one sees the other process end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_answer, args=(theirs, call, jobs), daemon=True).start()
    try:
        while True:
            jobs.put(theirs.recv())
    except (EOFError, OSError):
        os._exit(0)


def _answer(theirs: Connection, call: Callable[[Any], Any], jobs: "SimpleQueue[Any]") -> None:
    while True:
        try:
            answer = call(jobs.get()), ""
        except BaseException:
            answer = None, traceback.format_exc()
        try:
            theirs.send(answer)
        except OSError:
            os._exit(0)
