"""Ranks that each own blocks of the model, linked by torchrun's store alone."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from lilliput.train.all_reduce import AllRanks
from lilliput.train.block_ownership import BlockOwnership, Shared, block_counts
from lilliput.train.joint_blocks import JointBlocks
from lilliput.train.phase import StepPlan
from lilliput.train.ranks import OneRank, Ranks, Report
from lilliput.train.rendezvous import POLL, join_group
from lilliput.train.store_gather import StoreGather
from lilliput.train.store_link import LinkDown, StoreLink
from lilliput.train.trainable import Trainable


class BlockOwners(Ranks):
    """The machines of a block-parallel run, seen from one of them: before a phase, and in a phase that has blocks."""

    def __init__(
        self,
        rank: int,
        count: int,
        link: StoreLink,
        *,
        owners: Sequence[int] = (),
        shared: Shared = "freeze",
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
            shared: see `BlockParallel`.
            every: steps between settlings.
            device: of this machine.
            gradient_dtype: see `AllReduce`.
        """
        self.rank, self.count, self.link = rank, count, link
        self._store = StoreGather(link, rank, count)
        self._owners, self._every = owners, every
        self._shared: Shared = shared
        self._device, self._gradient_dtype = device, gradient_dtype
        self._phase = ""
        self._own: Mapping[str, Tensor] = {}
        self._taken: dict[int, str] = {}
        """Versions of the other ranks' weights: a copy is taken once, however long its rank stays away."""

    def of_phase(
        self, plan: StepPlan, trainable: Trainable, report: Report, *, folder: Path, ended: bool = False
    ) -> Ranks:
        """Return itself, for a phase with blocks, or ranks that share every step: where there are no blocks, or where
        gradients of what blocks share are added up.
        """
        self._phase, self._taken = plan.phase.name, {}
        self._store.of_phase(self._phase, report)
        if max(block_counts(trainable)) == 1:
            if ended:
                return OneRank()
            join_group(self.link, self.rank, self.count, self._phase, report)
            return AllRanks(self._device, self._gradient_dtype, own_folders=True)
        self._blocks = BlockOwnership(self._phase, trainable, self.count, self._owners)
        self._blocks.check_shared(self._shared)
        self._own = self._blocks.trained[self.rank]
        if self._shared == "allreduce" and join_group(
            self.link, self.rank, self.count, self._phase, report, ended=ended
        ):
            everyone = AllRanks(self._device, self._gradient_dtype, own_folders=True)
            return JointBlocks(everyone, self._blocks, self._store, plan, trainable, every=self._every)
        return self

    def owns(self, stage: int, variant: int) -> bool:
        return self._blocks.rank_of(stage, variant) == self.rank

    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        return [(self.rank, count)]

    def traffic(self) -> dict[str, float]:
        return self._store.traffic()

    def settle(self, step: int, steps: int, trainable: Trainable) -> int:
        self._store.post(step, steps)
        if step % self._every == 0 and step != steps:  # at the end all is gathered
            self._exchange(step, trainable)
        return 1

    def _exchange(self, step: int, trainable: Trainable) -> None:
        """Store the newest weights of this rank, and take those of others, within the time limit."""
        others, begun = self._store.others, time.monotonic()

        def left(share: float = 1.0) -> float:
            return begun + share * self.link.limit - time.monotonic()

        try:
            self._store.publish_again(left())
            own = {name: one.detach().cpu().contiguous() for name, one in self._own.items()}
            self.link.put(self._key(self.rank), save(own), step=step, limit=left())
            heads = self.link.heads([self._key(other) for other in others], left())
            while (
                self._shared == "periodic" and left(0.5) > 0 and not all(head and head.step >= step for head in heads)
            ):
                time.sleep(POLL)
                heads = self.link.heads([self._key(other) for other in others], left())
            found = {}
            for other, head in zip(others, heads, strict=True):
                if head and head.version != self._taken.get(other):
                    value = self.link.get(self._key(other), left())
                    if value is not None:
                        found[other], self._taken[other] = load(value), head.version
            self._take_over(list(found.values()), trainable)
        except LinkDown as down:
            self._store.report(f"{self._phase} step {step:,}: nothing is exchanged ({down}); training continues")

    def gather(self, name: str, own: bytes, *, drops: str | None = None) -> list[bytes]:
        found = self._store.gather(name, own, drops=drops)
        if drops is not None:
            with suppress(LinkDown):  # the store is gone, and its memory
                self.link.drop(self._key(self.rank))
        return found

    def _key(self, rank: int) -> str:
        return f"{self._phase}/blocks/{rank}"

    def _take_over(self, found: Sequence[Mapping[str, Tensor]], trainable: Trainable) -> None:
        """Take the weights of others; of what this rank trains, too, the mean of its own and theirs."""
        with torch.no_grad():
            for name, parameter in trainable.named_parameters():
                theirs = [one[name].to(parameter.device) for one in found if name in one]
                if theirs and name in self._own:
                    parameter.copy_(torch.stack([parameter, *theirs]).mean(0))
                elif theirs:
                    parameter.copy_(theirs[0])
