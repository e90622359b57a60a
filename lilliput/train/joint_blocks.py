"""Ranks that take every step together, each with a block of its own, and add up gradients of what blocks share.

The loss of a step is the mean over all of its rows, each under the block of the rank that has it. So what blocks share
(embedding, final norm, head) has the same gradient everywhere and stays equal on all ranks, and the gradient of a block
is on the rank that owns it, and travels nowhere. A rank has as large a part of a step's rows as it has of the blocks:
one that is three times as fast, and owns three blocks of four, has three quarters of the rows, and waits for nobody.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, distributed, nn

from lilliput.base.errors import MachineError
from lilliput.train.all_reduce import AllRanks
from lilliput.train.block_ownership import BlockOwnership
from lilliput.train.gradient_buckets import GradientBuckets
from lilliput.train.phase import StepPlan
from lilliput.train.ranks import Ranks
from lilliput.train.store_gather import StoreGather
from lilliput.train.trainable import Trainable


class JointBlocks(Ranks):
    """The machines of a phase whose blocks take each step together, seen from one of them."""

    is_synchronous = True

    def __init__(
        self,
        everyone: AllRanks,
        blocks: BlockOwnership,
        store: StoreGather,
        plan: StepPlan,
        trainable: Trainable,
        *,
        every: int,
    ):
        """See one machine of several.

        Args:
            everyone: the ranks of the process group, each with a run folder of its own.
            blocks: of the phase.
            store: for the merge at the end of the phase.
            plan: of the phase.
            trainable: what it trains.
            every: steps after which ranks hand each other the newest weights of their blocks.

        Raises:
            MachineError: blocks of one stage share other parameters than each other.
        """
        self.rank, self.count, self._everyone, self._store = everyone.rank, everyone.count, everyone, store
        self._blocks, self._plan, self._every = blocks, plan, every
        self._shared = [self._shared_of(trainable, stage) for stage in range(len(trainable.stages))]
        self._buckets = [GradientBuckets(names, everyone.gradient_dtype) for names in self._shared]
        self._all_shared = {one for names in self._shared for one in names.values()}
        self._sent, self._received, self._have_met = 0, 0, False

    def owns(self, stage: int, variant: int) -> bool:
        return self._blocks.rank_of(stage, variant) == self.rank

    def candidates(self, stage: int, variants: Sequence[int]) -> Sequence[int]:
        return self._blocks.of_rank(self.rank, stage)

    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        stage = self._plan.stage(step)
        blocks = [len(self._blocks.of_rank(rank, stage)) for rank in range(self.count)]
        ends = [count * sum(blocks[: rank + 1]) // sum(blocks) for rank in range(self.count)]
        shares = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        if 0 in shares:
            raise MachineError(
                f"a step of {count} rows leaves none for rank {shares.index(0)}, which owns "
                f"{blocks[shares.index(0)]} of {sum(blocks)} blocks",
                where="the machine's `exchange`",
                hint="give the phase larger batches, or another rank fewer blocks",
            )
        return list(enumerate(shares))

    def reduce(self, trainable: Trainable, stage: int, variant: int) -> AbstractContextManager[None]:
        size = self._everyone.share(self._buckets[stage].bytes)
        self._sent, self._received = self._sent + size, self._received + size
        return self._buckets[stage].reduced()

    def grad_norm(self, parameters: Sequence[nn.Parameter], norms: Sequence[Tensor]) -> Tensor:
        """Return the norm of what is shared, and of the blocks of all ranks, equal to the bit on all of them."""
        of_blocks = norms[0].new_zeros(self.count)
        of_shared = [norm for one, norm in zip(parameters, norms, strict=True) if one in self._all_shared]
        own = [norm for one, norm in zip(parameters, norms, strict=True) if one not in self._all_shared]
        of_blocks[self.rank] = torch.linalg.vector_norm(torch.stack(own))
        distributed.all_reduce(of_blocks)
        return torch.linalg.vector_norm(torch.cat([torch.stack(of_shared), of_blocks]))

    def agree(self, step: int, numbers: dict[str, float]) -> dict[str, float]:
        return self._everyone.agree(step, numbers)

    def resume_step(self, steps: Sequence[int]) -> int | None:
        return self._everyone.resume_step(steps)

    def barrier(self) -> None:
        self._everyone.barrier()

    def traffic(self) -> dict[str, float]:
        sent, received, self._sent, self._received = self._sent, self._received, 0, 0
        return {"bytes_sent": sent, "bytes_received": received}

    def settle(self, step: int, steps: int, trainable: Trainable) -> int:
        """Hand out the newest weights of the blocks: what is measured, or lies in a checkpoint, is then of all."""
        if step % self._every == 0 and step != steps:  # at the end all is gathered
            for owner, trained in enumerate(self._blocks.trained):
                alone = [one for name, one in trained.items() if name not in self._blocks.shared]
                self._broadcast(alone, owner)
        return 1

    def gather(self, name: str, own: bytes, *, drops: str | None = None) -> list[bytes]:
        if not self._have_met:  # else a rank that is killed before its last checkpoint would be alone with its steps
            self.barrier()
            self._have_met = True
        return self._store.gather(name, own, drops=drops)

    @torch.no_grad()
    def _broadcast(self, parameters: Sequence[nn.Parameter], owner: int) -> None:
        flat = torch.cat([one.reshape(-1) for one in parameters])
        distributed.broadcast(flat, src=owner)
        for one, part in zip(parameters, flat.split([one.numel() for one in parameters]), strict=True):
            one.copy_(part.view_as(one))
        if owner == self.rank:
            self._sent += flat.nbytes * (self.count - 1)
        else:
            self._received += flat.nbytes

    def _shared_of(self, trainable: Trainable, stage: int) -> dict[str, nn.Parameter]:
        """Return what the blocks of a stage share, by name: the same of each, or a rank would miss a gradient."""
        each = [
            {name: one for name, one in trainable.active(stage, variant).items() if name in self._blocks.shared}
            for at, variant in trainable.variants
            if at == stage
        ]
        differs = {name for names in each for name in names if any(name not in others for others in each)}
        if differs:
            raise MachineError(
                f"some blocks train {', '.join(sorted(differs)[:3])}, and others do not",
                where=f"phase {self._blocks.phase!r}, on a machine with BlockParallel(shared='allreduce')",
                hint="take BlockParallel(shared='periodic'), which takes means of whatever several machines train",
            )
        return each[0]
