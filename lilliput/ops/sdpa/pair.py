"""Attention of a noised stream, whose position j stands for the target at j + 1, to the clean past and to itself.

One softmax over the clean keys of its document up to j and its own key; a mask over both streams' keys says which.

Shapes: B rows, L positions of either stream, H query heads, G key heads, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.base.errors import MachineError
from lilliput.ops.dispatch import Backend, check_backend
from lilliput.ops.sdpa.reference import masked_attention


def sdpa_pair(
    q: Tensor,
    clean: tuple[Tensor, Tensor],
    noisy: tuple[Tensor, Tensor],
    document_ids: Tensor | None = None,
    target_document_ids: Tensor | None = None,
    softcap: float | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Each noised query looks at the clean keys of its target's document up to its position, and at its own key.

    Args:
        q: queries of the noised stream [B, L, H, D].
        clean: keys and values of the clean stream, [B, L, G, D] each.
        noisy: those of the noised stream.
        document_ids, target_document_ids: see `pair_mask`.
        softcap: see `sdpa`.
        backend: one of `Backend`; `TORCH` has no soft-cap.

    Returns:
        [B, L, H, D] in the dtype of q.

    Raises:
        MachineError: the backend that was asked for cannot do it.
    """
    check_backend("sdpa_pair", backend, Backend.TORCH)
    if backend is Backend.AUTO:
        backend = Backend.TORCH if softcap is None else Backend.REFERENCE
    k, v = (torch.cat(streams, dim=1) for streams in zip(clean, noisy, strict=True))
    mask = pair_mask(q.shape[1], document_ids, target_document_ids, q.device)
    if backend is Backend.REFERENCE:
        return masked_attention(q, k, v, mask, softcap)
    if softcap is not None:
        raise MachineError(
            "PyTorch's fused attention has no soft-cap",
            where="sdpa_pair(backend=Backend.TORCH)",
            hint="leave the choice to Backend.AUTO",
        )
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=grouped).transpose(1, 2)


def pair_mask(
    length: int, document_ids: Tensor | None, target_document_ids: Tensor | None, device: torch.device
) -> Tensor:
    """Return where a noised query may look, among the clean keys and then the noised ones.

    Args:
        length: L.
        document_ids: document numbers of the clean stream [B, L], or None for one document.
        target_document_ids: those of the targets that the noised stream stands for, given with the former.
        device: that the mask is for.

    Returns:
        True where it may, [L, 2 L], or [B, 1, L, 2 L] where there are documents.
    """
    past = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if document_ids is not None and target_document_ids is not None:
        past = past & (target_document_ids[:, None, :, None] == document_ids[:, None, None, :])
    itself = torch.eye(length, dtype=torch.bool, device=device)
    return torch.cat((past, itself.expand_as(past)), dim=-1)
