"""Data parallel: every rank has the whole model and a share of the rows; gradients are summed once a step.

Processes are started by torchrun. Losses are shares of the whole step already, so gradients are
summed and not averaged.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import distributed

from lilliput.base.errors import MachineError, RunError
from lilliput.base.spec import LATER, check_choice, check_range
from lilliput.train.gradient_buckets import GradientBuckets
from lilliput.train.ranks import Ranks, shared_rows
from lilliput.train.trainable import Trainable

RANK = "RANK"
"""Environment variable in which torchrun gives a process its rank."""
PATIENCE = timedelta(days=1)
"""Time that ranks wait for the one that evaluates or writes a release."""

NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Dtypes that gradients can be sent in."""


@dataclass(frozen=True, kw_only=True)
class AllReduce:
    """As many ranks as torchrun starts. All of them see one run folder."""

    workers: int | Literal["auto"] = "auto"
    """`auto` is the number when the run begins."""
    gradient_dtype: Literal["none", "bf16", "fp16"] = "none"
    """The dtype that gradients are sent in; bf16 and fp16 halve the bytes over a slow link.

    bf16 has the range of fp32 and 8 bits of precision; fp16 has 11, and a gradient beyond its range makes the step one
    that is not finite."""
    backend: Literal["auto", "nccl", "gloo"] = field(default="auto", metadata=LATER)
    """`auto` is NCCL on CUDA and gloo elsewhere. gloo carries tensors of a GPU, too, which it copies to the host: for
    links that NCCL or RCCL cannot use, such as Thunderbolt."""

    def __post_init__(self) -> None:
        check_choice("AllReduce", ("none", *NARROW), gradient_dtype=self.gradient_dtype)
        check_choice("AllReduce", ("auto", "nccl", "gloo"), backend=self.backend)
        if self.workers != "auto":
            check_range("AllReduce", 1, float("inf"), workers=self.workers)

    def resolved(self) -> "AllReduce":
        return replace(self, workers=int(os.environ.get("WORLD_SIZE", 1))) if self.workers == "auto" else self

    @contextmanager
    def join(self, device: str) -> Iterator["AllRanks"]:
        here = int(os.environ.get("WORLD_SIZE", 0))
        if here != self.workers:
            raise MachineError(
                f"the machine has {self.workers} workers, and {here or 'none'} of them were started together",
                where="the machine's `exchange`",
                hint=f"torchrun --nproc-per-node {self.workers} -m lilliput ...; or resume with others: --allow-change",
            )
        is_cuda = device.startswith("cuda")
        if is_cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = ("nccl" if is_cuda else "gloo") if self.backend == "auto" else self.backend
        mine = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else None
        distributed.init_process_group(backend, timeout=PATIENCE, device_id=mine)
        try:
            yield AllRanks(device, NARROW.get(self.gradient_dtype))
        finally:
            distributed.destroy_process_group()


class AllRanks(Ranks):
    """The ranks of a process group, which share every step and have equal weights."""

    is_synchronous = True

    def __init__(self, device: str, gradient_dtype: torch.dtype | None, *, own_folders: bool = False):
        """See one rank of the process group.

        Args:
            device: of this rank.
            gradient_dtype: that gradients are sent in; None for their own.
            own_folders: whether each rank has a run folder of its own, and writes it.
        """
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self.writes = own_folders or self.rank == 0
        self._own_folders, self._sent = own_folders, 0
        self._device, self.gradient_dtype = device, gradient_dtype
        self._buckets: WeakKeyDictionary[Trainable, dict[tuple[int, int], GradientBuckets]] = WeakKeyDictionary()

    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        return shared_rows(count, self.count)

    def reduce(self, trainable: Trainable, stage: int, variant: int) -> AbstractContextManager[None]:
        buckets = self._buckets.setdefault(trainable, {})
        if (stage, variant) not in buckets:
            active = trainable.active(stage, variant)
            buckets[stage, variant] = GradientBuckets(active, self.gradient_dtype)
        self._sent += self.share(buckets[stage, variant].bytes)
        return buckets[stage, variant].reduced()

    def share(self, size: int) -> int:
        """Return the bytes that a rank sends, and receives, for a sum around a ring of all ranks."""
        return 2 * size * (self.count - 1) // self.count

    def agree(self, step: int, numbers: dict[str, float]) -> dict[str, float]:
        together = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self._device)
        distributed.all_reduce(together)
        return dict(zip(numbers, together.tolist(), strict=True))

    def resume_step(self, steps: Sequence[int]) -> int | None:
        """Return the newest step that all ranks have a checkpoint of, where each has a folder of its own.

        Raises:
            RunError: there is none, and a rank would lose what it has trained.
        """
        if not self._own_folders:
            return None
        each = self._all_steps(steps)
        if common := set(each[0]).intersection(*each[1:]):
            return max(common)
        if any(step for its in each for step in its):
            have = "; ".join(f"rank {rank} has {', '.join(map(str, its)) or 'none'}" for rank, its in enumerate(each))
            raise RunError(
                f"the machines have no checkpoint of one step: {have}",
                where="the checkpoints of the phase",
                hint="copy the checkpoints folder of the phase from the machine that resumes best to the others",
            )
        return None

    def _all_steps(self, steps: Sequence[int]) -> list[list[int]]:
        """Return the steps of each rank; as tensors, since collectives of objects would unpickle what arrives."""
        counts = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.count)]
        distributed.all_gather(counts, torch.tensor([len(steps)], device=self._device))
        width = max(int(count) for count in counts)
        own = torch.tensor([*steps, *[-1] * (width - len(steps))], dtype=torch.int64, device=self._device)
        each = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(each, own)
        return [[step for step in its.tolist() if step >= 0] for its in each]

    def traffic(self) -> dict[str, float]:
        sent, self._sent = self._sent, 0
        return {"bytes_sent": sent, "bytes_received": sent} if sent else {}

    def barrier(self) -> None:
        distributed.barrier()
