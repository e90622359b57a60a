"""Two ranks that each own half of the layers: an exchange of another kind than data parallel, in its smallest form.

Each rank trains the variant of its own half, from its own cursor, with its own checkpoints. Every few steps it puts its
half into a store, with a generation number, and takes the newest half of the other one, for which it waits no longer
than a time limit: a rank that is slow or gone holds nobody up.
"""

import json
import time
from contextlib import nullcontext
from datetime import timedelta

from safetensors.torch import load, save
from torch import distributed

from lilliput.model import copy_weights


class OwnersOfHalves:
    count = 2
    is_synchronous = False
    writes = True

    def __init__(self, rank, port, *, every, limit, log):
        self.rank, self._every, self._limit, self._log = rank, every, limit, log
        self._store = distributed.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=30))

    def folder(self, checkpoints):
        return checkpoints / f"rank-{self.rank}"

    def variants(self, step, count):
        return [self.rank]

    def rows(self, step, count):
        return [(self.rank, count)]

    def reduce(self, trainable, stage, variant):
        return nullcontext()

    def agree(self, step, numbers):
        return numbers

    def barrier(self): ...

    def settle(self, step, steps, trainable):
        if step % self._every and step != steps:
            return
        own = {name: one for name, one in trainable.active(0, self.rank).items() if name.startswith("layers.")}
        self._store.set(f"half-{self.rank}", save({name: one.detach() for name, one in own.items()}))
        self._store.set(f"generation-{self.rank}", str(step))
        other, begun = 1 - self.rank, time.monotonic()
        while (seen := self._generation(other)) < step and time.monotonic() - begun < self._limit:
            time.sleep(0.005)
        waited = time.monotonic() - begun
        if seen:
            theirs = load(self._store.get(f"half-{other}"))
            copy_weights(trainable.model, dict(trainable.model.named_parameters()) | theirs)
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "seen": seen, "waited": waited}) + "\n")

    def _generation(self, rank):
        key = f"generation-{rank}"
        return int(self._store.get(key)) if self._store.check([key]) else 0
