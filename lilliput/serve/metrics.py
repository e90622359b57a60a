"""Counts and durations for Prometheus, in its text format."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic

from lilliput.generate.request import Token
from lilliput.serve.replies import Replies

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the buckets of durations."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Durations in buckets."""

    def __init__(self) -> None:
        self._counts, self._sum = [0] * (len(SECONDS) + 1), 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a metric of that name."""
        total = 0
        for end, count in zip((*SECONDS, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{end}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """Counts of a server, on its event loop alone."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter()
        self._first, self._next = Histogram(), Histogram()

    def see_request(self, path: str, status: int) -> None:
        """Count a request by its route and status."""
        self._requests[path, status] += 1

    def see_prompt(self, tokens: int) -> None:
        """Count the tokens of a prompt."""
        self._tokens["prompt"] += tokens

    def see_token(self, replies: Replies, token: Token) -> None:
        """Count a token that was written, and how long it took."""
        now = monotonic()
        self._tokens["completion"] += 1
        if token.number not in replies.last_tokens:
            self._first.add(now - replies.began)
            self._tokens["cached"] += token.cached_tokens
        else:
            self._next.add(now - replies.last_tokens[token.number])
        replies.last_tokens[token.number] = now

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return the page of all metrics.

        Args:
            gauges: help text and value of what is true at this moment, by name.
        """
        requests = [f'{{path="{path}",status="{status}"}} {count}' for (path, status), count in self._requests.items()]
        lines = _metric("requests_total", "counter", "Requests by route and status.", requests)
        for kind, about in (
            ("prompt", "Tokens of prompts, those that were not read among them."),
            ("cached", "Tokens of prompts that were not read, because their states were kept."),
            ("completion", "Tokens written."),
        ):
            lines += _metric(f"{kind}_tokens_total", "counter", about, [f" {self._tokens[kind]}"])
        for name, about, histogram in (
            ("time_to_first_token_seconds", "From a request to its first token.", self._first),
            ("inter_token_seconds", "Between two tokens of an answer.", self._next),
        ):
            lines += [*_metric(name, "histogram", about, ()), *histogram.lines(f"lilliput_{name}")]
        for name, (about, value) in gauges.items():
            lines += _metric(name, "gauge", about, [f" {value:g}"])
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, about: str, values: Sequence[str]) -> list[str]:
    name = f"lilliput_{name}"
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *(f"{name}{value}" for value in values)]
