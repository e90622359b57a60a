"""HGRN2's recurrence over a clean stream and a noised one beside it, whose steps read the state and do not write it.

The noised position j stands for the target at j + 1. With S the state after the clean position j, it reads what the
recurrence would hold after that target,

    o_j = K^{-1/2} q_j^T (diag(f_j) S + k_j (x) v_j) = K^{-1/2} ((q_j f_j)^T S + (q_j . k_j) v_j)

So it is the scan of the clean stream, read by the queries q f, and each noised position's own term. A scan over both
streams by turns, in which noised steps have log decay 0 and k = v = 0, is the same at twice the length.

Shapes: B rows, L positions, H heads, K channels of a head.
"""

import torch
from torch import Tensor

from lilliput.ops.gla import gla
from lilliput.ops.hgrn2.activations import activations
from lilliput.ops.rope import Layout


def hgrn2_pair(
    clean: Tensor,
    noisy: Tensor,
    heads: int,
    *,
    bias: Tensor | None = None,
    bound: Tensor | None = None,
    theta: float | None = None,
    layout: Layout = "half",
    tie: bool = False,
    document_ids: Tensor | None = None,
    target_document_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence over whole rows of the clean stream, and read it for the noised one.

    Args:
        clean, noisy: projections [B, L, 3 H K] of the two streams.
        heads, bias, bound, theta, layout, tie: see `activations`.
        document_ids: document numbers of the clean stream [B, L], or None for one document.
        target_document_ids: those of the targets that the noised stream stands for, given with the former; where one
            differs from the clean position's, the target begins a document and its past is empty.

    Returns:
        [B, L, H K] for each stream, in the dtype of its projection.
    """
    settings = bias, bound, theta, layout, tie
    q, k, v, log_decay = activations(clean, heads, *settings, 0, document_ids)
    mixed, _ = gla(q, k, v, log_decay)
    noisy_q, noisy_k, noisy_v, forget = activations(noisy, heads, *settings, 1)
    with torch.autocast(noisy.device.type, enabled=False):
        wide_q = noisy_q.to(forget.dtype)
        reading = wide_q * forget.exp()
        if document_ids is not None and target_document_ids is not None:
            begins = document_ids != target_document_ids
            reading = reading.masked_fill(begins[..., None, None], 0.0)
        past, _ = gla(reading.to(noisy_q.dtype), k, v, log_decay)
        score = (wide_q * noisy_k).sum(dim=-1, keepdim=True) * noisy_q.shape[-1] ** -0.5
        read = (past + score * noisy_v).to(noisy.dtype)
    return mixed.flatten(-2), read.flatten(-2)
