"""Attention over a clean stream and a noised one beside it, from the projections to what the output matrix reads.

The composition of `heads`, `sdpa` and `sdpa_pair`. The noised position j stands for the target at j + 1 and turns as
that position does.

Shapes: B rows, L positions, H query heads, G key heads, D head width.
"""

from torch import Tensor

from lilliput.ops.attention.heads import heads
from lilliput.ops.rope import Layout
from lilliput.ops.sdpa import sdpa
from lilliput.ops.sdpa.pair import sdpa_pair


def attention_pair(
    clean: Tensor,
    noisy: Tensor,
    shared: int,
    width: int,
    *,
    gains: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    theta: float | None = None,
    layout: Layout = "half",
    document_ids: Tensor | None = None,
    target_document_ids: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Clean positions read as in `attention`; noised ones read the clean past and themselves.

    Args:
        clean, noisy: projections [B, L, (H + 2 G) D] of the two streams.
        shared, width, gains, eps, theta, layout: see `heads`.
        document_ids, target_document_ids: see `pair_mask`.
        softcap: see `sdpa`.

    Returns:
        [B, L, H D] for each stream, in the dtype of its projection.
    """
    settings = shared, width, gains, eps, theta, layout
    q, k, v = heads(clean, *settings)
    noisy_q, noisy_k, noisy_v = heads(noisy, *settings, first=1)
    read = sdpa_pair(noisy_q, (k, v), (noisy_k, noisy_v), document_ids, target_document_ids, softcap)
    return sdpa(q, k, v, document_ids, softcap).flatten(-2), read.flatten(-2)
