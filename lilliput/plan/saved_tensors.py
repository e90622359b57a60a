"""Bytes that autograd keeps between forward and backward."""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import Tensor, nn


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Kept:
    """A tensor that a node of autograd's graph keeps, for as long as the node is there."""

    tensor: Tensor


def saved_tensor_bytes(forward: Callable[[], Tensor], model: nn.Module) -> tuple[Tensor, int]:
    """Return what `forward` returns, and the bytes kept for its backward.

    Every storage counts once, however many tensors look at it, and the weights of `model` do not count. What belongs to
    parts of the graph that are gone when `forward` returns is not there any more, and is not counted either.
    """
    kept: WeakSet[_Kept] = WeakSet()

    def keep(tensor: Tensor) -> _Kept:
        one = _Kept(tensor)
        kept.add(one)
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one.tensor):
        loss = forward()
    storages = {one.tensor.untyped_storage().data_ptr(): one.tensor.untyped_storage().nbytes() for one in kept}
    for parameter in model.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    return loss, sum(storages.values())
