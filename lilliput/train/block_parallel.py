"""Block-parallel training as machine files write it: each machine takes the steps of its own blocks.

Machines share no disk and send no gradients. Step s is of the block, and of the rows, that it would be of on one
machine; a machine passes over the steps of blocks that it does not own. So machines whose blocks train nothing in
common end with the weights that one machine would have, bit for bit.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, get_args

from torch import distributed

from lilliput.base.errors import MachineError
from lilliput.base.spec import check_choice, check_range
from lilliput.train.all_reduce import NARROW, RANK
from lilliput.train.block_owners import BlockOwners
from lilliput.train.block_ownership import Shared
from lilliput.train.store_link import StoreLink


@dataclass(frozen=True, kw_only=True)
class BlockParallel:
    """Machines that each own blocks of the model; each has a run folder of its own.

    Phases that have no blocks are trained data parallel, over gloo."""

    machines: int | Literal["auto"] = "auto"
    """`auto` is as many as torchrun starts."""
    owners: tuple[int, ...] = ()
    """Rank that owns each block, in order of the blocks, such as (0, 0, 0, 1) where one machine is three times as fast;
    empty for equal parts."""
    shared: Shared = "freeze"
    """Treatment of parameters that blocks of several machines would train (embedding, final norm, head). `freeze`:
    there are none, as the route leaves them alone. `periodic`: each machine trains a copy, and takes the mean of the
    newest copies every `every` steps. `allreduce`: all machines take every step together, each with a block of its own
    on its share of the rows, and gradients of what blocks share are added up; see `JointBlocks`."""
    every: int = 500
    """Steps between two settlings, at which machines hand each other the newest weights of their blocks: what lies in
    a checkpoint, and is measured, is then of all blocks."""
    limit: float = 30.0
    """Seconds that a settling takes at most, however slow the link or the other machines are."""
    gradient_dtype: Literal["none", "bf16", "fp16"] = "none"
    """The dtype that gradients are sent in, where a phase has no blocks or `shared` is `allreduce`; see `AllReduce`."""

    def __post_init__(self) -> None:
        where = "BlockParallel"
        check_choice(where, get_args(Shared), shared=self.shared)
        check_choice(where, ("none", *NARROW), gradient_dtype=self.gradient_dtype)
        check_range(where, 1, inf, every=self.every)
        check_range(where, 0, inf, limit=self.limit)
        if self.machines != "auto":
            check_range(where, 1, inf, machines=self.machines)
        idle = [] if self.machines == "auto" or not self.owners else set(range(self.machines)) ^ set(self.owners)
        if idle:
            raise MachineError(
                f"owners is {self.owners}, and the {self.machines} machines are 0 to {int(self.machines) - 1}",
                where=where,
                hint="name each machine's rank at least once, and no other",
            )

    def resolved(self) -> "BlockParallel":
        return replace(self, machines=int(os.environ.get("WORLD_SIZE", 1))) if self.machines == "auto" else self

    @contextmanager
    def join(self, device: str) -> Iterator[BlockOwners]:
        here = int(os.environ.get("WORLD_SIZE", 0))
        if here != self.machines:
            raise MachineError(
                f"blocks are trained on {self.machines} machines, and {here or 'none'} were started together",
                where="the machine's `exchange`",
                hint=f"torchrun --nnodes {self.machines} --node-rank RANK --master-addr HOST --master-port PORT "
                "--max-restarts 100 -m lilliput ... on each of them; docs/guides/two-machines.md",
            )
        link = StoreLink(self.limit)
        try:
            yield BlockOwners(
                int(os.environ[RANK]),
                here,
                link,
                owners=self.owners,
                shared=self.shared,
                every=self.every,
                device=device,
                gradient_dtype=NARROW.get(self.gradient_dtype),
            )
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()
