"""Scores, cap, mask, softmax, sum: the specification. Shapes: B rows, L queries, T keys, H and G heads, D width."""

import torch
from torch import Tensor


def sdpa_reference(q: Tensor, k: Tensor, v: Tensor, document_ids: Tensor | None, softcap: float | None) -> Tensor:
    """See `lilliput.ops.sdpa.sdpa`."""
    return masked_attention(q, k, v, causal_mask(q.shape[1], k.shape[1], document_ids, q.device), softcap)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, softcap: float | None) -> Tensor:
    """The same where a mask, which broadcasts to [B, H, L, T], is true."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) @ v).transpose(1, 2)


def causal_mask(queries: int, keys: int, document_ids: Tensor | None, device: torch.device) -> Tensor:
    """True where a query may look, [L, T], or [B, 1, L, T] where there are documents."""
    causal = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    if document_ids is None:
        return causal
    return causal & (document_ids[:, None, :, None] == document_ids[:, None, None, :])
