"""Ownership in a block-parallel phase: the rank of each block, and the parameters that ranks train."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from lilliput.base.errors import MachineError
from lilliput.train.trainable import Trainable

Shared = Literal["freeze", "periodic", "allreduce"]
"""Treatment of parameters that blocks of several ranks would train."""


class BlockOwnership:
    """The blocks of a phase, each owned by one rank.

    Args:
        phase: its name, for errors.
        trainable: what the phase trains; the variants of its stages are the blocks.
        count: of ranks.
        owners: rank of each block, in order; empty for equal parts.

    Raises:
        MachineError: a rank would have no block, or `owners` names another number of blocks.
    """

    def __init__(self, phase: str, trainable: Trainable, count: int, owners: Sequence[int] = ()):
        self.phase, self.count = phase, count
        counts = block_counts(trainable)
        self._rank_of = {each: self._owner_of(each, counts[each[0]], owners) for each in trainable.variants}
        self.trained: list[dict[str, nn.Parameter]] = [{} for _ in range(count)]
        """The parameters that each rank trains, by name."""
        for each, rank in self._rank_of.items():
            self.trained[rank] |= trainable.active(*each)
        everywhere = [name for names in self.trained for name in names]
        self.shared = {name for name in everywhere if everywhere.count(name) > 1}
        """Names of those that several ranks train."""

    def rank_of(self, stage: int, variant: int) -> int:
        """Return the rank that owns a variant of a stage's objective."""
        return self._rank_of[stage, variant]

    def of_rank(self, rank: int, stage: int) -> list[int]:
        """Return the variants of a stage that a rank owns, in order."""
        return [variant for (at, variant), owner in self._rank_of.items() if at == stage and owner == rank]

    def check_shared(self, shared: Shared) -> None:
        """Check that what ranks share is treated as its name says.

        Raises:
            MachineError: several ranks train parameters that are to be frozen, or none does and they are to be reduced.
        """
        where = f"phase {self.phase!r}, on a machine with BlockParallel(shared={shared!r})"
        if shared == "freeze" and self.shared:
            names = [name for name in self.trained[0] if name in self.shared] or sorted(self.shared)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise MachineError(
                f"blocks of several machines train {', '.join(names[:3])}{more}",
                where=where,
                hint="freeze what blocks share: DiffusionBlocks(freeze_shared=True); or let the machines take means: "
                "BlockParallel(shared='periodic'); or add up its gradients at each step: shared='allreduce'",
            )
        if shared == "allreduce" and not self.shared:
            raise MachineError(
                "blocks of several machines train no parameter together, so that there is no gradient to add up",
                where=where,
                hint="take BlockParallel(shared='freeze'), whose machines do not wait for each other; or let blocks "
                "train what they share: DiffusionBlocks(freeze_shared=False)",
            )

    def _owner_of(self, variant: tuple[int, int], blocks: int, owners: Sequence[int]) -> int:
        if owners and len(owners) != blocks:
            raise MachineError(
                f"owners names the ranks of {len(owners)} blocks, and a stage of {self.phase!r} has {blocks}",
                where="the machine's `exchange`",
                hint="give as many, or leave `owners` out; a stage without blocks belongs into a phase of its own",
            )
        if blocks < self.count:
            raise MachineError(
                f"a stage of {self.phase!r} has {blocks} blocks for {self.count} machines",
                where="the machine's `exchange`",
                hint="start fewer machines, or give the model more blocks: a machine has at least one",
            )
        return owners[variant[1]] if owners else variant[1] * self.count // blocks


def block_counts(trainable: Trainable) -> list[int]:
    """Return the number of blocks of each stage; 1 where there are none."""
    return [sum(stage == each for each, _ in trainable.variants) for stage in range(len(trainable.stages))]
