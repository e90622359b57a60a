"""The recurrence in decoding: the next positions of rows, with a state that is changed in place.

Shapes: B rows, L positions, H heads, K key channels, V value channels.
"""

import torch
from torch import Tensor

from lilliput.ops.gla import gla


def gla_next(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, lengths: Tensor) -> Tensor:
    """Read the next positions of rows that may differ in length; padding forgets nothing and writes nothing.

    Args:
        q, k, log_decay: [B, L, H, K], padded on the right.
        v: [B, L, H, V].
        state: [B, H, K, V] in fp16, bf16, fp32 or fp64, changed to the one after them.
        lengths: how many positions of each row are no padding, [B] int64, from 0 to L.

    Returns:
        o [B, L, H, V] in the dtype of q.
    """
    is_padding = (torch.arange(q.shape[1], device=q.device) >= lengths[:, None])[:, :, None, None]
    k, log_decay = k.masked_fill(is_padding, 0), log_decay.masked_fill(is_padding, 0)
    if q.shape[1] == 1:
        return gla_step(q[:, 0], k[:, 0], v[:, 0], log_decay[:, 0], state)[:, None]
    o, after = gla(q, k, v, log_decay, state.to(log_decay.dtype))
    state.copy_(after)
    return o


def gla_step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
    """Change a state to the one after a position, and read it: `gla` of one position.

    Args:
        q, k: [B, H, K].
        v: [B, H, V].
        log_decay: [B, H, K] in fp32 (or fp64), in which all of it is computed.
        state: [B, H, K, V]; one in another dtype is read, and rounded when what is read here has been computed.

    Returns:
        o [B, H, V] in the dtype of q.
    """
    wide, scale = log_decay.dtype, q.shape[-1] ** -0.5
    after = state.to(wide)  # the state itself where it is as wide
    after.mul_(log_decay.exp()[..., None]).addcmul_(k.to(wide)[..., None], v.to(wide)[..., None, :])
    if state.dtype != wide:
        state.copy_(after)
    if torch.compiler.is_compiling():  # the sum is made as the state is written, which is not read again
        return (scale * (q.to(wide)[..., None] * after).sum(dim=-2)).to(q.dtype)
    return (scale * (q.to(wide)[..., None, :] @ after)[..., 0, :]).to(q.dtype)
