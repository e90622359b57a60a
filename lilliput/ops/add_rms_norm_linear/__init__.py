"""The residual stream where a branch begins: one joins it, and its norm is multiplied by the first weights of the next.

    x = stream + V m        y = W (gain * norm(x))

What it is composed of is the specification, on any device. In a narrow stream these products are as fast as what they
read and write; with `triton` one of them joins and norms as it multiplies, and so does one of the backward pass.

Shapes: D channels of the stream, E_i of the projections that a branch begins with.
"""

import torch
from torch import Tensor

from lilliput.ops.dispatch import TRITON_HERE
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.linear import Product, as_one, multiplied, of_products, project
from lilliput.ops.rms_norm import parts


def begin(
    stream: Tensor,
    weights: tuple[Tensor, ...],
    gain: Tensor,
    eps: float,
    *,
    joining: Product | None = None,
    backend: Backend = Backend.AUTO,
) -> tuple[Tensor, Tensor]:
    """Begin a branch, where another one may have ended.

    Args:
        stream: [..., D].
        weights: the branch's first ones, [E_i, D].
        gain: of the norm, [D].
        eps: added to the mean square.
        joining: the last product of the branch before, [..., D]; None for nothing.
        backend: one of `Backend`.

    Returns:
        the stream with what joined it, [..., D], and the projections of its norm side by side, [..., sum of E_i].
    """
    if backend is Backend.AUTO:
        fits = TRITON_HERE and as_one(stream) and _fits(stream, weights, joining)
        backend = Backend.TRITON if fits else Backend.COMPOSED
    if backend is Backend.COMPOSED:
        x = stream if joining is None else stream + joining.made()
        normed, left = parts(x, gain, eps)
        return x, project(normed, *weights, gain=left)
    from lilliput.ops.add_rms_norm_linear.triton import fused

    first = multiplied(torch.cat(weights), gain)
    if joining is None:
        return fused(stream, first, eps)
    return fused(stream, first, eps, joining.x, multiplied(joining.weight, joining.times))


def _fits(stream: Tensor, weights: tuple[Tensor, ...], joining: Product | None) -> bool:
    from lilliput.ops.add_rms_norm_linear.triton import fits

    narrow = () if joining is None else (joining.x,)
    return all(x.dtype == of_products(x) for x in (stream, *narrow)) and fits(stream, sum(map(len, weights)), *narrow)
