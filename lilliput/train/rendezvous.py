"""A process group of machines that may be restarted one by one, made through torchrun's store.

The address that a process left in a store outlives it, and who connects to it waits in vain. So each process has an
id of its own, a group is named by the ids of its members, and is made once all of them say that they mean this one.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import uuid4

from torch.distributed import PrefixStore, Store, destroy_process_group, init_process_group, is_initialized

from lilliput.base.errors import MachineError
from lilliput.base.files import hash_of
from lilliput.train.ranks import FINAL, METRICS, Report
from lilliput.train.store_link import LinkDown, StoreLink

POLL = 0.1
"""Seconds between two looks at what others have stored."""
PATIENCE = timedelta(minutes=5)
"""Time that a rank waits in a step for one that is silent; then its process ends, and is started again by torchrun."""
ENDED = "-ended"
"""At the end of the id of a process that has taken all steps of the phase."""
FIRST_NEWS, NEWS = 2.0, 30.0
"""Seconds before the first line about whom is waited for, and between two of them."""


def join_group(link: StoreLink, rank: int, count: int, phase: str, report: Report, *, ended: bool = False) -> bool:
    """Make the process group of a phase, over gloo, once all ranks are here.

    Args:
        link: to the store.
        rank: of this process.
        count: of all.
        phase: its name.
        report: called with a line for ranks that are waited for.
        ended: whether this rank has taken all steps of the phase.

    Returns:
        whether there is a group: none is made where all have taken all steps.

    Raises:
        MachineError: another rank has ended the phase, and this one has not.
    """
    if is_initialized():
        destroy_process_group()
    told = time.monotonic() - NEWS + FIRST_NEWS
    own = _new_id(ended)
    while True:
        try:
            present = link.call(partial(_members, key=f"group/{phase}", rank=rank, own=own, count=count))
            gone = _gone(link, phase, [other for other in range(count) if other != rank], ended=ended)
        except LinkDown as down:
            present, gone, why = [], [], f" ({down})"
        else:
            why = ""
        if (gone and ended) or (present and all(one.endswith(ENDED) for one in present)):
            return False
        if gone:
            raise left_behind(gone[0], phase)
        if len(present) == count:
            try:
                store = PrefixStore(f"group/{phase}/{hash_of(present)}", link.connect(PATIENCE))
                init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=PATIENCE)
                return True
            except (RuntimeError, OSError) as error:  # a member was restarted in the middle
                if is_initialized():
                    destroy_process_group()
                report(f"{phase}: the machines did not find each other ({str(error).splitlines()[0]}); trying again")
                own = _new_id(ended)
        if time.monotonic() - told > NEWS:
            report(f"{phase}: waiting for the other machines{why}")
            told = time.monotonic()
        time.sleep(POLL)


def _new_id(ended: bool) -> str:
    return uuid4().hex + (ENDED if ended else "")


def _gone(link: StoreLink, phase: str, others: Sequence[int], *, ended: bool) -> list[int]:
    """Return the ranks that do not come to the group any more: they ended the phase, or, for a rank that has taken all
    steps itself, are gathering its end.
    """

    def keys(one: int) -> list[str]:
        return [f"{FINAL}/{phase}/{one}", *([f"{phase}/{METRICS}/{one}"] if ended else [])]

    return [one for one in others if any(link.heads(keys(one)))]


def _members(store: Store, key: str, rank: int, own: str, count: int) -> Sequence[str]:
    """Return the ids of all ranks once each of them has said that it means these; else less."""
    store.set(f"{key}/{rank}", own)
    keys = [f"{key}/{other}" for other in range(count)]
    if not store.check(keys):
        return []
    ids = [store.get(one).decode() for one in keys]
    store.set(f"{key}/{hash_of(ids)}/{rank}", "here")
    return ids if store.check([f"{key}/{hash_of(ids)}/{other}" for other in range(count)]) else []


def left_behind(ended: int, phase: str) -> MachineError:
    """Return the error for a machine without which another one has ended a phase."""
    return MachineError(
        f"rank {ended} has ended the phase {phase!r}, and this machine has not",
        where="the checkpoints of the phase on this machine",
        hint="copy the phase's checkpoints folder and metrics.jsonl from that machine to this one, and start again",
    )
