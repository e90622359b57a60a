"""Time and money that replies take: estimated before a model is asked, measured as soon as it answers."""

from collections.abc import Sequence
from time import perf_counter
from types import TracebackType

from rich.console import Console

from lilliput.base.progress import Progress
from lilliput.base.text_units import duration, number, price
from lilliput.data.replies.prompts import Prompt
from lilliput.data.replies.reply import Reply

MEASURED = 16
"""Replies after which their mean is worth telling."""


class ReplyProgress:
    """Progress of asking; a context manager.

    Args:
        console: where it is shown.
        name: of the corpus.
        prompts: that are to be asked.
        asked: name of the model.
        most: tokens of a reply at most.
        prices: of a million tokens of prompts, and of replies; None where they are not known.
    """

    def __init__(
        self,
        console: Console,
        name: str,
        prompts: Sequence[Prompt],
        asked: str,
        most: int,
        prices: tuple[float, float] | None,
    ):
        self._progress = Progress(console, name, f"asking {asked}")
        self._count, self._prices = len(prompts), prices
        self._replies = self._prompt_tokens = self._tokens = 0
        self.say(self._before(prompts, asked, most))

    def __enter__(self) -> "ReplyProgress":
        self._progress.__enter__()
        self._began = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def say(self, line: str) -> None:
        """Say something that stays."""
        self._progress.say(line)

    def add(self, reply: Reply) -> None:
        """Count a reply, and show how far it is."""
        self._replies += 1
        self._prompt_tokens += reply.prompt_tokens or sum(len(content) for _, content in reply.prompt) // 4
        self._tokens += reply.tokens
        line = self._line()
        if self._replies == min(MEASURED, self._count):
            self.say(line)
        self._progress.show(line)

    def _before(self, prompts: Sequence[Prompt], asked: str, most: int) -> str:
        read, written = sum(prompt.tokens for prompt in prompts), self._count * most
        cost = self._cost(read, written)
        tokens = f"about {number(read)} tokens to read, at most {number(written)} to write"
        return f"{self._count:,} prompts for {asked}: {tokens}{f', at most {cost}' if cost else ''}"

    def _line(self) -> str:
        seconds = max(perf_counter() - self._began, 1e-9)
        scale = self._count / self._replies
        cost = self._cost(self._prompt_tokens * scale, self._tokens * scale)
        parts = [
            f"{self._replies:,} of {self._count:,} replies",
            f"{self._tokens / self._replies:,.0f} tokens each",
            f"{self._tokens / seconds:,.0f} tokens/s",
            f"{duration(seconds * (scale - 1))} left",
            *([f"{cost} in all"] if cost else []),
        ]
        return ", ".join(parts)

    def _cost(self, read: float, written: float) -> str:
        """The price of so many tokens; empty where it is not known."""
        if self._prices is None:
            return ""
        return price((read * self._prices[0] + written * self._prices[1]) / 1e6, None)
