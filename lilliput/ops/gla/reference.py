"""The recurrence one position at a time: the specification."""

import torch
from torch import Tensor


def gla_reference(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `lilliput.ops.gla.gla`; every product in the dtype of `log_decay`."""
    rows, length, heads, width = q.shape
    wide = log_decay.dtype
    scale = width**-0.5
    if state is None:
        state = log_decay.new_zeros(rows, heads, width, v.shape[-1])
    outputs = []
    for t in range(length):
        written = k[:, t].to(wide)[..., None] * v[:, t].to(wide)[..., None, :]
        state = log_decay[:, t].exp()[..., None] * state + written
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t].to(wide), state))
    return torch.stack(outputs, dim=1).to(q.dtype), state
