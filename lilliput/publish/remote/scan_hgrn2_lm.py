"""The recurrence of HGRN2 (arXiv 2404.07904) in plain PyTorch: S_t = diag(f_t) S_{t-1} + k_t (x) v_t.

    o_t = K^{-1/2} q_t^T S_t

Shapes: B rows, L positions, H heads, K = V channels of a head; by chunks also N chunks of C positions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LENGTHS = (64, 32, 16)
SAFE_RANGE = 120.0


def gated_scan(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """q, k, log_decay [B, L, H, K], v [B, L, H, V], S before the row [B, H, K, V] -> o [B, L, H, V], S after the row.

    log_decay and S are fp32 (or fp64); q, k and v may be narrower.
    """
    return step_by_step(q, k, v, log_decay, state) if q.shape[1] < 16 else by_chunks(q, k, v, log_decay, state)


def step_by_step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written."""
    wide = log_decay.dtype
    outputs = []
    for t in range(q.shape[1]):
        written = k[:, t].to(wide)[..., None] * v[:, t].to(wide)[..., None, :]
        state = log_decay[:, t].exp()[..., None] * state + written
        outputs.append(q.shape[-1] ** -0.5 * torch.einsum("bhk,bhkv->bhv", q[:, t].to(wide), state))
    return torch.stack(outputs, dim=1).to(q.dtype), state


def by_chunks(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same by matrix products over chunks (GLA, arXiv 2312.06635), exact at any decay.

    Scores inside a chunk factor into e^{G_i - r} and e^{r - G_j}, G being the running sum of log decays and r half of
    -SAFE_RANGE: normal numbers while G stays above -SAFE_RANGE. The longest safe chunk length is taken, and chunks too
    steep for the shortest get their scores pair by pair.
    """
    positions, width = q.shape[1], q.shape[-1]
    wide = log_decay.dtype
    narrow = torch.float32 if q.dtype == torch.float16 else q.dtype  # fp16 cannot hold e^60
    length = longest_safe(log_decay)
    padding = -positions % length
    q_chunks, k_chunks, v_chunks, g_chunks = (split_chunks(x, length, padding) for x in (q, k, v, log_decay))

    decayed = g_chunks.cumsum(dim=-2)  # [B, H, N, C, K]
    total = decayed[..., -1:, :]
    steep = (-total > SAFE_RANGE).any(dim=-1, keepdim=True)
    centred = torch.where(steep, 0.0, decayed + SAFE_RANGE / 2)
    left = q_chunks.to(wide) * (centred.exp() * width**-0.5)
    right = k_chunks.to(wide) * (-centred).exp()
    scores = (left.to(narrow) @ right.to(narrow).mT).tril()
    from_start, to_end = left * math.exp(-SAFE_RANGE / 2), right * centred[..., -1:, :].exp()
    if steep.any():
        pick = steep[..., 0, 0]
        q_, k_, d_ = q_chunks[pick].to(wide) * width**-0.5, k_chunks[pick].to(wide), decayed[pick]
        scores = scores.index_put((pick,), pair_by_pair(q_, k_, d_).to(narrow))
        from_start = from_start.index_put((pick,), q_ * d_.exp())
        to_end = to_end.index_put((pick,), k_ * (d_[:, -1:] - d_).exp())

    v_chunks = v_chunks.to(narrow)
    written = (to_end.to(narrow).mT @ v_chunks).to(wide)
    entering = []
    for fresh, keep in zip(written.unbind(2), total.exp().mT.unbind(2), strict=True):
        entering.append(state)
        state = torch.addcmul(fresh, keep, state)
    outputs = scores @ v_chunks + from_start.to(narrow) @ torch.stack(entering, dim=2).to(narrow)
    return outputs.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :positions].to(q.dtype), state


def longest_safe(log_decay: Tensor) -> int:
    """The longest chunk length at which no channel of any chunk decays by more than SAFE_RANGE."""
    for length in CHUNK_LENGTHS:
        sums = split_chunks(log_decay.detach(), length, -log_decay.shape[1] % length).sum(dim=-2)
        if sums.amin() >= -SAFE_RANGE:
            return length
    return CHUNK_LENGTHS[-1]


def split_chunks(x: Tensor, length: int, padding: int) -> Tensor:
    """[B, L, H, .] -> [B, H, N, C, .]; the padding has k = v = log f = 0 and leaves the state as it is."""
    return F.pad(x, (0, 0, 0, 0, 0, padding)).unflatten(1, (-1, length)).permute(0, 3, 1, 2, 4)


def pair_by_pair(q: Tensor, k: Tensor, decayed: Tensor) -> Tensor:
    """Scores [M, C, C] of steep chunks [M, C, K], one exponential for each pair and channel."""
    difference = decayed[:, :, None] - decayed[:, None]
    seen = torch.ones(difference.shape[1:3], dtype=torch.bool, device=q.device).tril()
    return torch.einsum("mik,mjk,mijk->mij", q, k, difference.masked_fill(~seen[..., None], -torch.inf).exp())


__all__ = ["gated_scan"]
