"""Ranks that each own blocks of the model, linked by torchrun's store alone."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load, save
from torch import Tensor

from lilliput.base.errors import MachineError
from lilliput.base.text_units import size
from lilliput.train.all_reduce import AllRanks
from lilliput.train.ranks import FINAL, OneRank, Ranks, Report
from lilliput.train.rendezvous import FIRST_NEWS, NEWS, POLL, join_group, left_behind
from lilliput.train.store_link import CHUNK, LinkDown, StoreLink
from lilliput.train.trainable import Trainable

SLOWEST = 2**20
"""Bytes a second of the slowest link that a whole checkpoint is waited for over."""


class BlockOwners:
    """The machines of a block-parallel run, seen from one of them: before a phase, and in a phase that has blocks."""

    is_synchronous = False
    writes = True

    def __init__(
        self,
        rank: int,
        count: int,
        link: StoreLink,
        *,
        owners: Sequence[int] = (),
        averages: bool = False,
        every: int = 500,
        device: str = "cpu",
        gradient_dtype: torch.dtype | None = None,
    ):
        """See one machine of several.

        Args:
            rank: of this one.
            count: of all.
            link: to the store.
            owners: of each block; empty for equal parts.
            averages: whether parameters may be of several ranks, which then take means.
            every: steps between settlings.
            device: of this machine.
            gradient_dtype: see `AllReduce`.
        """
        self.rank, self.count, self.link = rank, count, link
        self._owners, self._averages, self._every = owners, averages, every
        self._device, self._gradient_dtype = device, gradient_dtype
        self._others = [other for other in range(count) if other != rank]
        self._phase, self._report = "", cast(Report, print)
        self._rank_of: dict[tuple[int, int], int] = {}
        self._own: dict[str, Tensor] = {}
        self._taken: dict[int, str] = {}
        """Versions of the other ranks' weights: a copy is taken once, however long its rank stays away."""
        self._standing: dict[str, bytes] = {}
        """Short values that a store which was started again has to be given again."""
        self._large: list[str] = []
        self._counted = link.sent, link.received

    def folder(self, checkpoints: Path) -> Path:
        return checkpoints

    def of_phase(self, phase: str, trainable: Trainable, report: Report, *, ended: bool = False) -> Ranks:
        """Return itself, for a phase with blocks, or ranks that share every step of one without."""
        self._phase, self._report, self._taken = phase, report, {}
        counts = [sum(stage == each for each, _ in trainable.variants) for stage in range(len(trainable.stages))]
        if max(counts) == 1:
            if ended:
                return OneRank()
            join_group(self.link, self.rank, self.count, phase, report)
            return AllRanks(self._device, self._gradient_dtype, own_folders=True)
        self._rank_of = {each: self._owner_of(each, counts[each[0]]) for each in trainable.variants}
        trained = self._trained(trainable)
        if not self._averages:
            self._refuse_shared(trained)
        self._own = trained[self.rank]
        return self

    def owns(self, stage: int, variant: int) -> bool:
        return self._rank_of[stage, variant] == self.rank

    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        return [(self.rank, count)]

    def reduce(self, trainable: Trainable, stage: int, variant: int) -> AbstractContextManager[None]:
        return nullcontext()

    def agree(self, step: int, numbers: dict[str, float]) -> dict[str, float]:
        return numbers

    def resume_step(self, steps: Sequence[int]) -> int | None:
        return None

    def traffic(self) -> dict[str, float]:
        now = self.link.sent, self.link.received
        (sent, received), self._counted = (new - old for new, old in zip(now, self._counted, strict=True)), now
        return {"bytes_sent": sent, "bytes_received": received} if sent or received else {}

    def barrier(self) -> None: ...

    def settle(self, step: int, steps: int, trainable: Trainable) -> None:
        self.link.post(f"{self._phase}/at/{self.rank}", f"step {step:,} of {steps:,}")
        if step % self._every or step == steps:  # at the end all is gathered
            return
        begun = time.monotonic()

        def left(share: float = 1.0) -> float:
            return begun + share * self.link.limit - time.monotonic()

        try:
            self._publish_again(left())
            own = {name: one.detach().cpu().contiguous() for name, one in self._own.items()}
            self.link.put(self._key(self.rank), save(own), step=step, limit=left())
            heads = self.link.heads([self._key(other) for other in self._others], left())
            while self._averages and left(0.5) > 0 and not all(head and head.step >= step for head in heads):
                time.sleep(POLL)
                heads = self.link.heads([self._key(other) for other in self._others], left())
            found = {}
            for other, head in zip(self._others, heads, strict=True):
                if head and head.version != self._taken.get(other):
                    value = self.link.get(self._key(other), left())
                    if value is not None:
                        found[other], self._taken[other] = load(value), head.version
            self._take_over(list(found.values()), trainable)
        except LinkDown as down:
            self._report(f"{self._phase} step {step:,}: nothing is exchanged ({down}); training continues")

    def gather(self, name: str, own: bytes, *, drops: str | None = None) -> list[bytes]:
        found, key, told = {self.rank: own}, f"{name}/{self.rank}", time.monotonic() - NEWS + FIRST_NEWS
        is_large, is_stored = len(own) > CHUNK, False
        if is_large:
            self._large.append(key)
        else:
            self._standing[key] = own
        while True:
            why = ""
            try:
                if self.link.heads([key])[0] is None or not (is_large or is_stored):
                    self.link.put(key, own, kept=1, limit=self._patience(len(own)))
                    is_stored = True  # a short value may be another one than before a restart
                found |= self._ready(name, [other for other in self._others if other not in found])
            except LinkDown as down:
                why = f" ({down})"
            if len(found) == self.count:
                break
            if time.monotonic() - told > NEWS:
                missing = ", ".join(self._news(other) for other in self._others if other not in found)
                self._report(f"waiting for {missing}{why}")
                told = time.monotonic()
            time.sleep(POLL)
        if drops is not None:
            self._drop(drops)
        return [found[rank] for rank in range(self.count)]

    def _ready(self, name: str, ranks: Sequence[int]) -> dict[int, bytes]:
        """Return what ranks have stored under a name, of those that have.

        Raises:
            MachineError: one has ended the phase, in an earlier start, and stores nothing any more.
        """
        found = {}
        ended = self.link.heads([f"{FINAL}/{self._phase}/{rank}" for rank in ranks])
        heads = self.link.heads([f"{name}/{rank}" for rank in ranks])
        for rank, head, has_ended in zip(ranks, heads, ended, strict=True):
            if head is None and has_ended and name.startswith(f"{self._phase}/"):
                raise left_behind(rank, self._phase)
            value = head and self.link.get(f"{name}/{rank}", self._patience(head.bytes))
            if value is not None:
                found[rank] = value
        return found

    def _key(self, rank: int) -> str:
        return f"{self._phase}/blocks/{rank}"

    def _patience(self, size: int) -> float:
        """Seconds for a value of a size over a slow link."""
        return self.link.limit + size / SLOWEST

    def _publish_again(self, limit: float) -> None:
        """Give short values to a store that has none of them: it was started again."""
        keys = list(self._standing)
        for key, head in zip(keys, self.link.heads(keys, limit), strict=True):
            if head is None:
                self.link.put(key, self._standing[key], limit=limit)

    def _take_over(self, found: Sequence[Mapping[str, Tensor]], trainable: Trainable) -> None:
        """Take the weights of others; of what this rank trains, too, the mean of its own and theirs."""
        with torch.no_grad():
            for name, parameter in trainable.named_parameters():
                theirs = [one[name].to(parameter.device) for one in found if name in one]
                if theirs and name in self._own:
                    parameter.copy_(torch.stack([parameter, *theirs]).mean(0))
                elif theirs:
                    parameter.copy_(theirs[0])

    def _news(self, rank: int) -> str:
        """Return what is known of a rank that is waited for."""
        key = f"{self._phase}/at/{rank}"
        try:
            at = self.link.call(lambda there: there.get(key).decode() if there.check([key]) else "not heard of yet")
        except LinkDown:
            at = "out of reach"
        return f"rank {rank}, {'at ' if at.startswith('step') else ''}{at}"

    def _drop(self, drops: str) -> None:
        """Remove large values from the store, and say what the end of a phase has cost."""
        keys = [key for key in self._large if key.startswith(drops)]
        if not keys:
            return
        self._large = [key for key in self._large if key not in keys]
        counted = self.traffic()
        sent, received = (size(counted.get(name, 0)) for name in ("bytes_sent", "bytes_received"))
        self._report(f"{self._phase}: {sent} sent and {received} received at its end")
        with suppress(LinkDown):  # the store is gone, and its memory
            for key in (*keys, self._key(self.rank)):
                self.link.drop(key)

    def _owner_of(self, variant: tuple[int, int], blocks: int) -> int:
        if self._owners and len(self._owners) != blocks:
            raise MachineError(
                f"owners names the ranks of {len(self._owners)} blocks, and a stage of {self._phase!r} has {blocks}",
                where="the machine's `exchange`",
                hint="give as many, or leave `owners` out; a stage without blocks belongs into a phase of its own",
            )
        if blocks < self.count:
            raise MachineError(
                f"a stage of {self._phase!r} has {blocks} blocks for {self.count} machines",
                where="the machine's `exchange`",
                hint="start fewer machines, or give the model more blocks: a machine has at least one",
            )
        return self._owners[variant[1]] if self._owners else variant[1] * self.count // blocks

    def _trained(self, trainable: Trainable) -> list[dict[str, Tensor]]:
        """Return the parameters that each rank trains, by name."""
        trained: list[dict[str, Tensor]] = [{} for _ in range(self.count)]
        for each, rank in self._rank_of.items():
            trained[rank] |= trainable.active(*each)
        return trained

    def _refuse_shared(self, trained: Sequence[Mapping[str, Tensor]]) -> None:
        shared = [name for name in trained[0] if any(name in others for others in trained[1:])]
        if shared:
            more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
            raise MachineError(
                f"blocks of several machines train {', '.join(shared[:3])}{more}",
                where=f"phase {self._phase!r}, on a machine with BlockParallel(shared='freeze')",
                hint="freeze what blocks share: DiffusionBlocks(freeze_shared=True); or let the machines take means: "
                "BlockParallel(shared='periodic')",
            )
