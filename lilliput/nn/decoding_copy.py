"""A copy of a model for decoding alone: products of one input are one, and weights may have 8 bits.

A step of decoding reads each weight for a position or a few, so that a product takes as long as its bytes and its
launch. A layer that begins with several products names them, `in_linears`; in the copy it has one instead, `in_linear`.
In training each has a weight of its own, as checkpoints do.
"""

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from lilliput.ops.int8_linear import Int8Weight, quantize
from lilliput.ops.linear import concatenated

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def decoding_copy(model: Model, *, int8: bool = False) -> Model:
    """Return a model that decodes as `model` does, and shares its weights but those that several products begin with.

    Args:
        model: in evaluation; it stays as it is, and the copy does not follow it when it is trained further. It may be
            such a copy itself.
        int8: round the weights of embedding, head and the layers that name their `in_linears` to 8 bits; any others
            keep theirs.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    beginning = [module for module in copied.modules() if hasattr(module, "in_linears")]
    if int8:
        for module in (copied, *beginning):
            _round_to_8_bits(module)
    for module in beginning:
        if not hasattr(module, "in_linear"):
            _pack(module)
    return copied


class Int8Linear(nn.Module):
    """Holds the 8-bit weight of a linear layer, or of an embedding, for `ops/linear.py`."""

    def __init__(self, weight: Int8Weight):
        super().__init__()
        self.register_buffer("values", weight.values)
        self.register_buffer("scale", weight.scale)
        self.values: Tensor
        self.scale: Tensor

    @property
    def weight(self) -> Int8Weight:
        return Int8Weight(self.values, self.scale)


def weights(module: nn.Module) -> tuple[Tensor, ...]:
    """Return the weights that a layer begins with, [E_i, D] each: of its `in_linears`, or the one of its `in_linear`.

    8-bit weights pass as tensors: all that is done with either goes through `ops/linear.py`.
    """
    names = ("in_linear",) if hasattr(module, "in_linear") else cast(tuple[str, ...], module.in_linears)
    return tuple(getattr(module, name).weight for name in names)


def _pack(module: nn.Module) -> None:
    """Make the linear layers that a layer begins with one, whose outputs lie side by side."""
    weight = concatenated(*weights(module))
    if isinstance(weight, Int8Weight):
        module.in_linear = Int8Linear(weight)
    else:
        module.in_linear = nn.Linear(*weight.mT.shape, bias=False, device="meta")
        module.in_linear.weight = nn.Parameter(weight, requires_grad=False)
    for name in cast(tuple[str, ...], module.in_linears):
        delattr(module, name)


def _round_to_8_bits(module: nn.Module) -> None:
    """Replace the linear layers and embeddings that a module itself has by 8-bit weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear | nn.Embedding):
            setattr(module, name, Int8Linear(quantize(child.weight)))
