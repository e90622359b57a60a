"""Outer steps as machine files write them: each machine trains by itself, and every so often changes are averaged.

This is DiLoCo (Douillard et al. 2023, arXiv 2311.08105). Machines share no disk. A step of the phase has the rows that
it has on one machine, and each machine takes an inner step on its own part of them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from lilliput.base.errors import MachineError
from lilliput.base.spec import check_choice, check_range
from lilliput.train.all_reduce import NARROW, RANK
from lilliput.train.outer_ranks import OuterRanks
from lilliput.train.store_gather import StoreGather
from lilliput.train.store_link import StoreLink


@dataclass(frozen=True, kw_only=True)
class OuterSteps:
    """Machines that each train the whole model on rows of their own, with a run folder of their own.

    One machine takes outer steps too, as Lookahead (arXiv 1907.08610) with momentum."""

    machines: int | Literal["auto"] = "auto"
    """`auto` is as many as torchrun starts, or one."""
    every: int = 500
    """Steps between two outer ones, the paper's number; there is one at the end of a phase, too, and where a checkpoint
    outlives the phase."""
    lr: float = 0.7
    """Learning rate of the outer optimizer, SGD with Nesterov momentum; the paper's, as is the momentum. 1 without
    momentum takes the mean of the machines' weights."""
    momentum: float = 0.9
    """Nesterov momentum of the outer optimizer."""
    gradient_dtype: Literal["none", "bf16", "fp16"] = "none"
    """The dtype that changes, which are the outer optimizer's gradients, are sent in; bf16 and fp16 halve the bytes."""
    limit: float = 30.0
    """Seconds after which a call to the others counts as failed, and is made again; an outer step waits for all."""

    def __post_init__(self) -> None:
        where = "OuterSteps"
        check_choice(where, ("none", *NARROW), gradient_dtype=self.gradient_dtype)
        check_range(where, 1, inf, every=self.every)
        check_range(where, 0, inf, lr=self.lr, limit=self.limit)
        check_range(where, 0, 1, momentum=self.momentum)
        if self.machines != "auto":
            check_range(where, 1, inf, machines=self.machines)

    def resolved(self) -> "OuterSteps":
        return replace(self, machines=int(os.environ.get("WORLD_SIZE", 1))) if self.machines == "auto" else self

    @contextmanager
    def join(self, device: str) -> Iterator[OuterRanks]:
        here = int(os.environ.get("WORLD_SIZE", 1))
        if here != self.machines:
            raise MachineError(
                f"outer steps are taken by {self.machines} machines, and {here} were started together",
                where="the machine's `exchange`",
                hint=f"torchrun --nnodes {self.machines} --node-rank RANK --master-addr HOST --master-port PORT "
                "--max-restarts 100 -m lilliput ... on each of them; docs/guides/two-machines.md",
            )
        store = StoreGather(StoreLink(self.limit), int(os.environ.get(RANK, 0)), here)
        yield OuterRanks(
            store,
            every=self.every,
            lr=self.lr,
            momentum=self.momentum,
            gradient_dtype=NARROW.get(self.gradient_dtype),
        )
