"""Linear head and cross-entropy against a bag of targets, with one log-sum-exp a position.

    z = head h  (or cap tanh(z / cap));   loss = sum_s w_s (logsumexp z - z[u_s]);   total = sum of their prices

With one target of weight 1 this is ordinary next-token cross-entropy; with S targets it is the multi-hot loss of token
superposition (arXiv 2605.06546), for about what one costs: all of them share the log-sum-exp. `reference` is the
specification; every other backend is tested against it, values and gradients. Only the total can be differentiated: its
gradients are known as soon as a position's log-sum-exp is, so that `triton` makes them in the forward pass.
Shapes: B rows, L positions, S tokens in a bag, D width, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lilliput.base.errors import MachineError
from lilliput.ops.dispatch import TRITON_HERE, check_backend
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.fused_linear_cross_entropy.chunk import fused_linear_cross_entropy_chunk
from lilliput.ops.fused_linear_cross_entropy.reference import LossCoefficients, fused_linear_cross_entropy_reference


class LinearCrossEntropy(NamedTuple):
    """Loss of rows, in nats, fp32 (fp64 for fp64 input)."""

    total: Tensor
    """The sum of the prices of all positions, a scalar to differentiate."""
    loss: Tensor
    """Weighted loss of each target [B, L, S], constant; 0 where the weight is 0."""
    lse: Tensor
    """The log-sum-exp of the logits [B, L], constant; 0 where all weights are 0."""


def fused_linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weight: Tensor,
    *,
    coefficients: LossCoefficients = LossCoefficients(cross_entropy=1.0),
    softcap: float | None = None,
    vocab: int | None = None,
    backend: Backend = Backend.AUTO,
) -> LinearCrossEntropy:
    """Charge every position for its bag of targets.

    Args:
        hidden: [B, L, D], after the final norm; its precision, or that of an autocast region around, is the product's.
        head: [V, D].
        targets: token ids [B, L, S].
        weight: [B, L, S], constants; 0 leaves a target out. A position of zeros alone costs nothing.
        coefficients: what is summed up in the total.
        softcap: bound of the logits, c tanh(z / c) in fp32 (Gemma 2, arXiv 2408.00118); None leaves them as they are.
        vocab: rows of the head that stand for tokens; the rest is padding, of no probability and no gradient.
        backend: one of `Backend`.

    Returns:
        the total, the loss of each target, and the log-sum-exp of each position.

    Raises:
        MachineError: `Backend.TRITON` was asked for, and is not installed or does not take fp64.
    """
    assert softcap is None or softcap > 0, softcap
    assert vocab is None or 0 < vocab <= len(head), (vocab, len(head))
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # it does not see products that our own functions make
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    if vocab is not None:
        head = head[:vocab]
    weight = weight.to(torch.promote_types(hidden.dtype, torch.float32))
    rows, length, _ = hidden.shape
    inputs = hidden.flatten(0, 1), head, targets.flatten(0, 1), weight.flatten(0, 1)
    check_backend("fused_linear_cross_entropy", backend, Backend.CHUNK, Backend.TRITON)
    if backend is Backend.AUTO:
        backend = _fastest(hidden)
    if backend is Backend.TRITON:
        total, loss, lse = _fused(*inputs, coefficients, softcap)
    else:
        loss, lse = (
            fused_linear_cross_entropy_reference if backend is Backend.REFERENCE else fused_linear_cross_entropy_chunk
        )(*inputs, softcap)
        total = coefficients.combine(loss, lse, inputs[3].sum(dim=-1))
    return LinearCrossEntropy(total, loss.detach().unflatten(0, (rows, length)), lse.detach().view(rows, length))


def _fastest(hidden: Tensor) -> Backend:
    fits = hidden.is_cuda and hidden.dtype != torch.float64 and TRITON_HERE
    return Backend.TRITON if fits else Backend.CHUNK


def _fused(
    hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, price: LossCoefficients, cap: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    if not TRITON_HERE or hidden.dtype == torch.float64:
        why = "they have no fp64" if TRITON_HERE else "Triton is not installed"
        raise MachineError(
            f"the loss cannot run as Triton kernels: {why}",
            where="fused_linear_cross_entropy(backend=Backend.TRITON)",
            hint="leave the choice to Backend.AUTO",
        )
    from lilliput.ops.fused_linear_cross_entropy.triton import fused_linear_cross_entropy_triton

    return fused_linear_cross_entropy_triton(hidden, head, targets, weight, price, cap)
