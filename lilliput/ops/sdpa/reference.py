"""Scores, cap, mask, softmax, sum: the specification. Shapes: B rows, L queries, T keys, H and G heads, D width."""

import torch
from torch import Tensor


def naive(q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None, cap: float | None) -> Tensor:
    """See `lilliput.ops.sdpa.attend`."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~visible(q.shape[2], k.shape[2], segments, q.device), -torch.inf)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2)


def visible(queries: int, keys: int, segments: Tensor | None, device: torch.device) -> Tensor:
    """True where a query may look, [L, T], or [B, 1, L, T] where there are documents."""
    causal = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    if segments is None:
        return causal
    return causal & (segments[:, None, :, None] == segments[:, None, None, :])
