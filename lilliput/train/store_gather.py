"""Values that ranks hand each other through torchrun's store, each waiting until it has those of all.

A rank that waits says for whom, as often as news are due, and gives the store again what a store that was started again
has lost.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from lilliput.base.text_units import size
from lilliput.train.ranks import FINAL, Report
from lilliput.train.rendezvous import FIRST_NEWS, NEWS, POLL, left_behind
from lilliput.train.store_link import CHUNK, LinkDown, StoreLink

SLOWEST = 2**20
"""Bytes a second of the slowest link that a large value is waited for over."""


class StoreGather:
    """One rank's values for the others, and theirs for it."""

    def __init__(self, link: StoreLink, rank: int, count: int):
        self.link, self.rank, self.count = link, rank, count
        self.others = [other for other in range(count) if other != rank]
        self.phase, self.report = "", cast(Report, print)
        self._standing: dict[str, Callable[[], bytes]] = {}
        """Values that a store which was started again has to be given again."""
        self._large: list[str] = []
        self._counted = link.sent, link.received

    def of_phase(self, phase: str, report: Report) -> None:
        """Begin a phase: its name is before the names of its values, and `report` is called with lines about it."""
        self.phase, self.report = phase, report

    def post(self, step: int, steps: int) -> None:
        """Tell those that may wait for this rank where it is; waits for nothing."""
        self.link.post(f"{self.phase}/at/{self.rank}", f"step {step:,} of {steps:,}")

    def stand(self, name: str, value: Callable[[], bytes]) -> None:
        """Keep a value in the store until it is dropped; it may be asked for at any time."""
        self._standing[f"{name}/{self.rank}"] = value

    def drop(self, beginning: str) -> None:
        """Remove this rank's standing values whose names begin so; a store that is gone has lost them anyway."""
        keys = [key for key in self._standing if key.startswith(beginning)]
        for key in keys:
            del self._standing[key]
        with suppress(LinkDown):
            for key in keys:
                self.link.drop(key)

    def gather(self, name: str, own: bytes, *, drops: str | None = None) -> list[bytes]:
        """Return what each rank has under a name, by rank; see `Ranks.gather`."""
        if self.count == 1:
            return [own]
        found, key, told = {self.rank: own}, f"{name}/{self.rank}", time.monotonic() - NEWS + FIRST_NEWS
        is_large, is_stored = len(own) > CHUNK, False
        if is_large and key not in self._standing:
            self._large.append(key)
        elif not is_large:
            self._standing[key] = lambda: own
        while True:
            why = ""
            try:
                if self.link.heads([key])[0] is None or not (is_large or is_stored):
                    self.link.put(key, own, kept=1, limit=self._patience(len(own)))
                    is_stored = True  # a short value may be another one than before a restart
                self.publish_again()
                found |= self._ready(name, [other for other in self.others if other not in found])
            except LinkDown as down:
                why = f" ({down})"
            if len(found) == self.count:
                break
            if time.monotonic() - told > NEWS:
                missing = ", ".join(self._news(other) for other in self.others if other not in found)
                self.report(f"waiting for {missing}{why}")
                told = time.monotonic()
            time.sleep(POLL)
        if drops is not None:
            self._drop_large(drops)
        return [found[rank] for rank in range(self.count)]

    def publish_again(self, limit: float | None = None) -> None:
        """Give standing values to a store that has none of them: it was started again.

        Raises:
            LinkDown: it is out of reach.
        """
        keys = list(self._standing)
        for key, head in zip(keys, self.link.heads(keys, limit), strict=True):
            if head is None:
                value = self._standing[key]()
                self.link.put(key, value, kept=1, limit=self._patience(len(value)) if limit is None else limit)

    def traffic(self) -> dict[str, float]:
        """Return the bytes sent and received since the last call; see `Ranks.traffic`."""
        now = self.link.sent, self.link.received
        (sent, received), self._counted = (new - old for new, old in zip(now, self._counted, strict=True)), now
        return {"bytes_sent": sent, "bytes_received": received} if sent or received else {}

    def _ready(self, name: str, ranks: Sequence[int]) -> dict[int, bytes]:
        """Return what ranks have stored under a name, of those that have.

        Raises:
            MachineError: one has ended the phase, in an earlier start, and stores nothing any more.
        """
        found = {}
        ended = self.link.heads([f"{FINAL}/{self.phase}/{rank}" for rank in ranks])
        heads = self.link.heads([f"{name}/{rank}" for rank in ranks])
        for rank, head, has_ended in zip(ranks, heads, ended, strict=True):
            if head is None and has_ended and name.startswith(f"{self.phase}/"):
                raise left_behind(rank, self.phase)
            value = head and self.link.get(f"{name}/{rank}", self._patience(head.bytes))
            if value is not None:
                found[rank] = value
        return found

    def _patience(self, size: int) -> float:
        """Seconds for a value of a size over a slow link."""
        return self.link.limit + size / SLOWEST

    def _news(self, rank: int) -> str:
        """Return what is known of a rank that is waited for."""
        key = f"{self.phase}/at/{rank}"
        try:
            at = self.link.call(lambda there: there.get(key).decode() if there.check([key]) else "not heard of yet")
        except LinkDown:
            at = "out of reach"
        return f"rank {rank}, {'at ' if at.startswith('step') else ''}{at}"

    def _drop_large(self, drops: str) -> None:
        """Remove large values from the store, and say what the end of a phase has cost."""
        keys = [key for key in self._large if key.startswith(drops)]
        if not keys:
            return
        self._large = [key for key in self._large if key not in keys]
        counted = self.traffic()
        sent, received = (size(counted.get(name, 0)) for name in ("bytes_sent", "bytes_received"))
        self.report(f"{self.phase}: {sent} sent and {received} received at its end")
        with suppress(LinkDown):  # the store is gone, and its memory
            for key in keys:
                self.link.drop(key)
