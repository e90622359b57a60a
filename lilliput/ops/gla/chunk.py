"""The recurrence a chunk at a time, in plain PyTorch: matrix products on any device, exact at any decay.

With G the running sum of log decays inside a chunk and S the state that enters it (GLA, arXiv 2312.06635, section 4):

    o_i = (q_i e^{G_i})^T S + sum_{j <= i} A_ij v_j,    A_ij = (q_i e^{G_i - r}) . (k_j e^{r - G_j})
    S  <- diag(e^{G_C}) S + (k e^{G_C - G})^T v

G falls from 0 to -`SAFE_RANGE` at most, so with r = -`SAFE_RANGE` / 2 both exponents stay within half of that range,
which fp32 and bf16 hold; and r is a constant, so that rounding, too, is causal. Long chunks are the fastest, so the
longest safe length is taken; where even the shortest decays too fast, its scores are computed pair by pair.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LENGTHS = (64, 32, 16)
SAFE_RANGE = 120.0
"""e^{+-60} = 1e+-26: products of such factors stay normal numbers in fp32 and bf16."""


def gla_chunk(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `lilliput.ops.gla.gla`."""
    rows, positions, heads, width = q.shape
    wide = log_decay.dtype
    # fp16 cannot hold the factors e^{+-60}, so its products are made in fp32; bf16 can.
    narrow = torch.float32 if q.dtype == torch.float16 else q.dtype
    length = _longest_safe(log_decay)
    padding = -positions % length
    qs, ks, vs, gs = (_chunks(x, length, padding) for x in (q, k, v, log_decay))  # [B, H, N, C, .]

    decayed = gs.cumsum(dim=-2)
    total = decayed[..., -1:, :]
    steep = (-total > SAFE_RANGE).any(dim=-1, keepdim=True)  # [B, H, N, 1, 1]
    centred = torch.where(steep, 0.0, decayed + SAFE_RANGE / 2)
    left = qs.to(wide) * (centred.exp() * width**-0.5)
    right = ks.to(wide) * (-centred).exp()
    scores = (left.to(narrow) @ right.to(narrow).mT).tril()

    from_start, to_end = left * math.exp(-SAFE_RANGE / 2), right * centred[..., -1:, :].exp()
    if steep.any():
        pick = steep[..., 0, 0]
        q_, k_, d_ = qs[pick].to(wide) * width**-0.5, ks[pick].to(wide), decayed[pick]
        scores = scores.index_put((pick,), _pairwise(q_, k_, d_).to(narrow))
        from_start = from_start.index_put((pick,), q_ * d_.exp())
        to_end = to_end.index_put((pick,), k_ * (d_[:, -1:] - d_).exp())

    narrow_v = vs.to(narrow)
    written = (to_end.to(narrow).mT @ narrow_v).to(wide)  # [B, H, N, K, V]
    kept = total.exp().mT  # [B, H, N, K, 1]
    if state is None:
        state = log_decay.new_zeros(rows, heads, width, v.shape[-1])
    entering = []
    for fresh, keep in zip(written.unbind(2), kept.unbind(2), strict=True):
        entering.append(state)
        state = torch.addcmul(fresh, keep, state)
    outputs = scores @ narrow_v + from_start.to(narrow) @ torch.stack(entering, dim=2).to(narrow)

    outputs = outputs.permute(0, 2, 3, 1, 4).reshape(rows, positions + padding, heads, -1)
    return outputs[:, :positions].to(q.dtype), state


def _longest_safe(log_decay: Tensor) -> int:
    """The longest chunk length at which no channel of any chunk decays by more than `SAFE_RANGE`."""
    for length in LENGTHS:
        sums = _chunks(log_decay.detach(), length, -log_decay.shape[1] % length).sum(dim=-2)
        if sums.amin() >= -SAFE_RANGE:
            return length
    return LENGTHS[-1]


def _chunks(x: Tensor, length: int, padding: int) -> Tensor:
    """[B, L, H, D] -> [B, H, N, C, D]; the padding has k = v = g = 0, which leaves the state as it is."""
    if padding:
        x = F.pad(x, (0, 0, 0, 0, 0, padding))
    return x.unflatten(1, (-1, length)).permute(0, 3, 1, 2, 4)


def _pairwise(q: Tensor, k: Tensor, decayed: Tensor) -> Tensor:
    """Scores [M, C, C] of steep chunks [M, C, K], one exponential for each pair and channel."""
    difference = decayed[:, :, None] - decayed[:, None]
    later = torch.ones(difference.shape[1:3], dtype=torch.bool, device=q.device).tril()
    decay = difference.masked_fill(~later[..., None], -torch.inf).exp()
    return torch.einsum("mik,mjk,mijk->mij", q, k, decay)
