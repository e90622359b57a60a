"""The residual stream where a branch begins: one joins it, and its norm is multiplied by the first weights of the next.

    x = stream + V m        y = W (gain * norm(x))

What it is composed of is the specification, on any device. In a narrow stream these products are as fast as what they
read and write; with `triton` one of them joins and norms as it multiplies, and so does one of the backward pass.

Shapes: D channels of the stream, E_i of the projections that a branch begins with.
"""

from typing import cast

import torch
from torch import Tensor

from lilliput.ops.dispatch import TRITON_HERE, check_backend
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.linear import LinearOutput, fused_linear, matmul_dtype, scale_weight, should_fuse
from lilliput.ops.rms_norm import norm_for_linear


def add_rms_norm_linear(
    stream: Tensor,
    weights: tuple[Tensor, ...],
    gain: Tensor,
    eps: float,
    *,
    branch: LinearOutput | None = None,
    backend: Backend = Backend.AUTO,
) -> tuple[Tensor, Tensor]:
    """Begin a branch, where another one may have ended.

    Args:
        stream: [..., D].
        weights: the branch's first ones, [E_i, D].
        gain: of the norm, [D].
        eps: added to the mean square.
        branch: the last product of the branch before, [..., D]; None for nothing.
        backend: one of `Backend`.

    Returns:
        the stream with what joined it, [..., D], and the projections of its norm side by side, [..., sum of E_i].
    """
    check_backend("add_rms_norm_linear", backend, Backend.TRITON)
    if backend is Backend.AUTO:
        fits = TRITON_HERE and should_fuse(stream) and _is_supported(stream, weights, branch)
        backend = Backend.TRITON if fits else Backend.REFERENCE
    if backend is Backend.REFERENCE:
        x = stream if branch is None else stream + branch.materialize()
        normed, left = norm_for_linear(x, gain, eps)
        return x, fused_linear(normed, *weights, gain=left)
    from lilliput.ops.add_rms_norm_linear.triton import add_rms_norm_linear_triton

    first = scale_weight(torch.cat(weights), gain)
    if branch is None:
        return add_rms_norm_linear_triton(stream, first, eps)
    last = scale_weight(cast(Tensor, branch.weight), branch.scale)  # whoever has 8 bits decodes, and does not come here
    return add_rms_norm_linear_triton(stream, first, eps, branch.x, last)


def _is_supported(stream: Tensor, weights: tuple[Tensor, ...], branch: LinearOutput | None) -> bool:
    from lilliput.ops.add_rms_norm_linear.triton import is_supported

    narrow = () if branch is None else (branch.x,)
    return all(x.dtype == matmul_dtype(x) for x in (stream, *narrow)) and is_supported(
        stream, sum(map(len, weights)), *narrow
    )
