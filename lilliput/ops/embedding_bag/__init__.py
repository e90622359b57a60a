"""Embeddings of bags of tokens: what a model begins with.

With one token in each bag this is the ordinary embedding; with S it is the mean that token superposition trains on
(arXiv 2605.06546), or a sum in which each token has a share. `reference` is the specification, on any device. On a GPU
it takes four times as long as `triton`, and where the vocabulary is small adds up gradients in any order that they come
in: of 16,384 positions and 300 tokens every repetition differed (PyTorch 2.11, one H100). So no run could be repeated
to the bit; `triton` has one order.

Shapes: S tokens in a bag, D width, V vocabulary, any leading ones.
"""

import torch
from torch import Tensor

from lilliput.ops.dispatch import TRITON_HERE, check_backend
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.embedding_bag.reference import embedding_bag_reference
from lilliput.ops.int8_linear import Int8Weight
from lilliput.ops.linear import Weight


def embedding_bag(
    tokens: Tensor,
    weight: Weight,
    dtype: torch.dtype | None = None,
    *,
    shares: Tensor | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """The mean embedding of each bag.

    Args:
        tokens: ids [.., S], int64.
        weight: [V, D]; in 8 bits for one token in a bag.
        dtype: of the result, rounded once; by default that of the weight.
        shares: what each token counts instead of 1 / S [.., S], fp32 constants.
        backend: one of `Backend`.

    Returns:
        [.., D]. An id that is no token is an error, or NaN on a device, which cannot raise.
    """
    dtype = dtype or weight.dtype
    check_backend("embedding_bag", backend, Backend.TRITON)
    if isinstance(weight, Int8Weight):
        assert tokens.shape[-1] == 1 and shares is None, "8 bits are for decoding, a token at a position"
        one = tokens[..., 0]
        return (weight.values[one].float() * weight.scale[one][..., None]).to(dtype)
    if backend is Backend.AUTO:
        fits = TRITON_HERE and weight.is_cuda and weight.dtype != torch.float64
        backend = Backend.TRITON if fits else Backend.REFERENCE
    if backend is Backend.REFERENCE:
        return embedding_bag_reference(tokens, weight, shares, dtype)
    from lilliput.ops.embedding_bag.triton import embedding_bag_triton

    return embedding_bag_triton(tokens, weight, shares, dtype)
