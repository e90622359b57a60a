"""Positions with targets of any weight: the others are taken out before the product, and their results are zeros.

An instruction-tuning row charges answers alone, about half of its positions. At width 256 and a vocabulary of 8,192 a
position that stays in costs a GPU 13 million operations, and 82 kB of 16-bit logits written and read; to leave it out
moves 2 kB for each that stays, so that one in forty pays. The host reads how many there are, as the sizes of products
live there: on a GPU it waits for what is queued, and the GPU then for the host, once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_KEEPS_ALL = ContextVar("keeps_all", default=False)


@contextmanager
def keeping_all_positions(keeps: bool = True) -> Iterator[None]:
    """Take out nothing inside: what a CUDA graph does, which a pass that stands for one must do to the bit."""
    before = _KEEPS_ALL.set(keeps)
    try:
        yield
    finally:
        _KEEPS_ALL.reset(before)


class CompactTargets:
    """Which of P positions carry any weight, from weights [P, S]; in order, so that results are the same each time."""

    def __init__(self, weight: Tensor):
        capturing = weight.is_cuda and torch.cuda.is_current_stream_capturing()  # nothing can be read back
        if capturing or _KEEPS_ALL.get():  # with all of them the results are right, too
            self.all = True
            return
        places = (weight != 0).any(dim=-1).nonzero().squeeze(-1)
        self.all = len(places) == len(weight)
        self.places = places

    def take(self, tensor: Tensor) -> Tensor:
        """[P, ...] -> [compact, ...]; the tensor itself, if that is all of it."""
        return tensor if self.all else tensor.index_select(0, self.places)

    def put(self, tensor: Tensor, positions: int) -> Tensor:
        """[compact, ...] -> [P, ...], the inverse, with zeros elsewhere."""
        if self.all:
            return tensor
        return tensor.new_zeros(positions, *tensor.shape[1:]).index_copy_(0, self.places, tensor)
