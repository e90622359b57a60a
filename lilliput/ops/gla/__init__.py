"""Gated linear recurrence: S_t = diag(exp g_t) S_{t-1} + k_t (x) v_t,  o_t = K^{-1/2} q_t^T S_t.

HGRN2 (arXiv 2404.07904) with k = 1 - exp g; the chunked form is that of GLA (arXiv 2312.06635). `reference` is the
specification; every other backend, `chunk` in plain PyTorch and `triton` in kernels for GPUs, is tested against it,
values and gradients. `fla` is somebody else's, to compare with.

Shapes: B rows, L positions, H heads, K key channels, V value channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.base.errors import MachineError
from lilliput.ops.dispatch import TRITON_HERE, check_backend
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.gla.chunk import gla_chunk
from lilliput.ops.gla.fla import gla_fla
from lilliput.ops.gla.reference import gla_reference

RESET = -40.0
"""Log decay that empties a state: e^-40 = 4e-18 is nothing in fp32, yet small enough to leave a running sum exact."""


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    backend: Backend = Backend.AUTO,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence over a whole row.

    Args:
        q: queries [B, L, H, K]; their dtype is also the precision of products, fp64 stays fp64.
        k: keys [B, L, H, K].
        v: values [B, L, H, V].
        log_decay: [B, L, H, K], at most 0, in fp32 (or fp64); `RESET` where a document begins.
        state: S before the row, [B, H, K, V]; zeros if None.
        backend: one of `Backend`.

    Returns:
        o [B, L, H, V] in the dtype of q, and S after the row [B, H, K, V] in the dtype of log_decay.

    Raises:
        MachineError: `Backend.TRITON` or `Backend.FLA` was asked for, and cannot run here or not on such inputs.
    """
    check_backend("gla", backend, Backend.CHUNK, Backend.TRITON, Backend.FLA)
    if backend is Backend.AUTO:
        backend = _fastest(q, v, log_decay)
    if backend is Backend.TRITON:
        return _fused(q, k, v, log_decay, state)
    if backend is Backend.FLA:
        return gla_fla(q, k, v, log_decay, state)
    with torch.autocast(q.device.type, enabled=False):  # which products are narrow, the scan says itself
        return (gla_reference if backend is Backend.REFERENCE else gla_chunk)(q, k, v, log_decay, state)


def _fastest(q: Tensor, v: Tensor, log_decay: Tensor) -> Backend:
    # Below 16 positions the other forms would only pad; a decode step is one iteration of the naive form.
    if q.shape[1] < 16:
        return Backend.REFERENCE
    if q.is_cuda and TRITON_HERE:
        from lilliput.ops.gla.triton import is_supported

        if is_supported(q, v, log_decay):
            return Backend.TRITON
    return Backend.CHUNK


def _fused(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    if not TRITON_HERE:
        raise MachineError(
            "the scan cannot run as Triton kernels, because Triton is not installed",
            where="gla(backend=Backend.TRITON)",
            hint="install PyTorch for CUDA or ROCm, which brings Triton, or leave the choice to Backend.AUTO",
        )
    from lilliput.ops.gla.triton import gla_triton

    return gla_triton(q, k, v, log_decay, state)


def reset_at_documents(log_decay: Tensor, document_ids: Tensor) -> Tensor:
    """Forget everything where a document begins.

    Args:
        log_decay: [B, L, H, K].
        document_ids: document number of each position, [B, L].
    """
    # Whether a row's first position begins a document does not matter: the state given for it does.
    begins = F.pad(document_ids[:, 1:] != document_ids[:, :-1], (1, 0))
    return log_decay.masked_fill(begins[..., None, None], RESET)
