"""Asks a teacher, several prompts at a time, and hands on replies as they come."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from lilliput.base.errors import DataError, LilliputError
from lilliput.data.replies.endpoint import Endpoint, Passing, wait_before
from lilliput.data.replies.prompts import Prompt
from lilliput.data.replies.reply import FAILED, STOP, Reply, now, reply_to
from lilliput.data.replies.reply_file import ReplyFile

ANSWERS = "answers"
"""Name of the stand-in that has the answers of the prompts' own corpus."""
ATTEMPTS = 8
"""Attempts at a prompt: with the waits between them, some two minutes."""
REFUSALS = 5
"""Prompts that an endpoint may refuse before it has answered any: more are a setting that it does not take."""
GRACE = 4.0
"""Seconds that an interrupted command waits for what it has asked and will have to pay."""


class Answering(Protocol):
    """A teacher that answers."""

    def replies(self, prompts: Iterable[Prompt], stop: threading.Event) -> Iterator[Reply]:
        """Yield a reply to every prompt, in the order in which they come.

        Args:
            prompts: taken as they are needed.
            stop: set when nothing more is to be asked; replies to what was asked still come, for a while.
        """
        ...


def ask_and_keep(
    answering: Answering, prompts: Iterable[Prompt], file: ReplyFile, kept: Callable[[Reply], None]
) -> None:
    """Ask for replies, and bring each to the disk as it comes.

    Args:
        answering: whoever is asked.
        prompts: to ask.
        file: open to append to.
        kept: called with each reply once it is there.

    Raises:
        DataError: the endpoint does not answer any more; what had been asked was waited for, and kept.
        KeyboardInterrupt: after the same wait; a second one ends it.
    """
    stop, done = threading.Event(), Future[None]()

    def keep() -> None:
        replies = answering.replies(prompts, stop)
        try:
            try:
                for reply in replies:
                    file.append([reply])
                    kept(reply)
            except LilliputError:  # what was asked is paid for: most of it comes in a moment
                stop.set()
                for reply in replies:
                    file.append([reply])
                raise
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    # A thread of its own: Ctrl-C is raised in the main one, where it could fall between taking a reply and its write.
    threading.Thread(target=keep, daemon=True).start()
    try:
        done.result()
    except KeyboardInterrupt:
        stop.set()
        done.result()
        raise


@dataclass(frozen=True, kw_only=True)
class OwnAnswers:
    """The answers of the prompts' own corpus: a stand-in that needs no model, to rehearse with."""

    settings: Mapping[str, Any]

    def replies(self, prompts: Iterable[Prompt], stop: threading.Event) -> Iterator[Reply]:
        """Yield them; a prompt without one gets an empty reply."""
        for prompt in prompts:
            if stop.is_set():
                return
            text, settings = prompt.own_answer or "", dict(self.settings)
            yield reply_to(prompt, text=text, finish=STOP, teacher=ANSWERS, settings=settings, at=now())


@dataclass(frozen=True, kw_only=True)
class AskedEndpoint:
    """An endpoint with what it is asked for."""

    endpoint: Endpoint
    settings: Mapping[str, Any]
    concurrency: int = 8
    """Requests at a time."""

    def replies(self, prompts: Iterable[Prompt], stop: threading.Event) -> Iterator[Reply]:
        """Return the replies of as many requests at a time.

        The iterator raises DataError where the endpoint does not answer any more, or will not whatever is asked.
        """
        return _Replies(self, prompts, stop)


class _Replies(Iterator[Reply]):
    """Replies that come from threads, which take prompts. No generator: an error would end one."""

    def __init__(self, asked: AskedEndpoint, prompts: Iterable[Prompt], stop: threading.Event):
        self._asked, self._stop = asked, stop
        self._prompts, self._lock = iter(prompts), threading.Lock()
        self._done: queue.SimpleQueue[Reply | BaseException | None] = queue.SimpleQueue()
        self._ready: deque[Reply] = deque()
        self._held: list[Reply] = []
        """Replies that are held back before the first answer: is one prompt refused, or every one?"""
        self._answered = 0
        """Answers so far: where none comes any more, no prompt is to blame."""
        self._again: deque[Prompt] = deque()
        """Prompts that failed while others were answered."""
        self._until: float | None = None
        """End of the wait for what was asked, once nothing more is."""
        self._running = asked.concurrency
        for _ in range(asked.concurrency):  # daemons: a request of minutes does not delay the exit
            threading.Thread(target=self._work, daemon=True).start()

    def __next__(self) -> Reply:
        while not self._ready:
            if not self._running:
                if self._held and not self._stop.is_set():
                    raise self._refuses()
                raise StopIteration
            found = self._next_done()
            if found is None:
                self._running -= 1
            elif isinstance(found, BaseException):
                if not self._stop.is_set():  # of several workers that fail, the first one says why
                    self._stop.set()
                    raise found
            else:
                self._take(found)
        return self._ready.popleft()

    def _take(self, reply: Reply) -> None:
        self._held.append(reply)
        if self._answered:
            self._ready.extend(self._held)
            self._held = []
        elif len(self._held) >= REFUSALS and not self._stop.is_set():
            self._stop.set()
            raise self._refuses()

    def _next_done(self) -> Reply | BaseException | None:
        while not self._stop.is_set():
            with suppress(queue.Empty):  # to see in time that nothing more is to be asked
                return self._done.get(timeout=0.2)
        self._until = self._until or monotonic() + GRACE
        try:
            return self._done.get(timeout=max(0.0, self._until - monotonic()))
        except queue.Empty:
            self._running = 1  # the others are left to themselves
            return None

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and (taken := self._next_prompt()) is not None:
                prompt, is_last = taken
                if (reply := self._reply(prompt, is_last)) is not None:
                    with self._lock:
                        self._answered += reply.finish != FAILED
                    self._done.put(reply)
        except BaseException as error:
            self._done.put(error)
        self._done.put(None)

    def _next_prompt(self) -> tuple[Prompt, bool] | None:
        """The next prompt, and whether it is asked for the last time: those that failed come again at the end."""
        with self._lock:
            prompt = next(self._prompts, None)
            if prompt is not None:
                return prompt, False
            return (self._again.popleft(), True) if self._again else None

    def _reply(self, prompt: Prompt, is_last: bool) -> Reply | None:
        """The reply to a prompt, of as many attempts as it needs; None if it is put off, or asking was stopped."""
        before = self._answered
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._asked.endpoint.ask(prompt, self._asked.settings)
            except Passing as error:
                why, named = str(error), error.wait
            if attempt < ATTEMPTS and self._stop.wait(wait_before(attempt, named)):
                return None
        if self._answered == before and not is_last:
            raise DataError(
                f"the endpoint does not answer: {why}",
                where=f"{self._asked.endpoint.url}, after {ATTEMPTS} attempts",
                hint="when it answers again, repeat the command: every reply that came is kept, and is not asked again",
            )
        if not is_last:
            self._again.append(prompt)
            return None
        endpoint, settings = self._asked.endpoint, dict(self._asked.settings)
        return reply_to(
            prompt,
            text="",
            finish=FAILED,
            error=why,
            teacher=endpoint.model,
            host=endpoint.host,
            settings=settings,
            at=now(),
        )

    def _refuses(self) -> LilliputError:
        return DataError(
            f"the endpoint refuses what it is asked: {self._held[0].error}",
            where=self._asked.endpoint.url,
            hint="check the model's name, and the sampling settings of the recipe's Teacher",
        )
