"""Data parallel: every worker has the whole model and a share of the rows; gradients are added up once a step.

PyTorch's DistributedDataParallel around the objective, whose forward returns the losses; processes are started by
torchrun. Losses are shares of the whole step already, so gradients are summed and not averaged.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lilliput.base.errors import MachineError
from lilliput.base.spec import check_choice, check_range

RANK = "RANK"
"""Where torchrun says which worker a process is."""
PATIENCE = timedelta(days=1)
"""How long workers wait for one that evaluates, or writes a week's release."""

NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What gradients can travel in."""


@dataclass(frozen=True, kw_only=True)
class AllReduce:
    """As many workers as torchrun starts, over NCCL on CUDA and gloo elsewhere. All of them see one run folder."""

    workers: int | Literal["auto"] = "auto"
    """`auto` is how many there are when the run begins."""
    gradient_dtype: Literal["none", "bf16", "fp16"] = "none"
    """What gradients travel in over a slow link, in half the bytes. bf16 has the range of fp32 and 8 bits of precision;
    fp16 has 11, and what passes its range is a step that is not finite."""

    def __post_init__(self) -> None:
        check_choice("AllReduce", ("none", *NARROW), compress=self.gradient_dtype)
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
                hint=f"torchrun --nproc-per-node {self.workers} -m lilliput ...; or go on with others: --allow-change",
            )
        if device.startswith("cuda"):
            mine = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(mine)
            distributed.init_process_group("nccl", timeout=PATIENCE, device_id=mine)
        else:
            distributed.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield AllRanks(device, self.gradient_dtype)
        finally:
            distributed.destroy_process_group()


class AllRanks:
    """The workers of a process group."""

    def __init__(self, device: str, compress: str):
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._device, self._hook = device, added_in(NARROW[compress]) if compress in NARROW else added

    def wrap(self, objective: nn.Module) -> nn.Module:
        wrapped = DistributedDataParallel(objective)
        wrapped.register_comm_hook(None, self._hook)
        return wrapped

    def sum(self, numbers: dict[str, float]) -> dict[str, float]:
        together = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self._device)
        distributed.all_reduce(together)
        return dict(zip(numbers, together.tolist(), strict=True))

    def barrier(self) -> None:
        distributed.barrier()


def added(group: Any, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Gradients of a bucket, summed over the workers."""
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])  # type: ignore[union-attr]


def added_in(narrow: torch.dtype) -> Callable[..., torch.futures.Future[torch.Tensor]]:
    """The same, with what travels rounded to 16 bits."""

    def added_narrow(group: Any, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        buffer = bucket.buffer()
        work = distributed.all_reduce(buffer.to(narrow), async_op=True)
        return work.get_future().then(lambda done: buffer.copy_(done.value()[0]))  # type: ignore[union-attr]

    return added_narrow
