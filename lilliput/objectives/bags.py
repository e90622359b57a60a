"""Rows cut into bags: what each position reads, and the tokens after it that it may be charged for.

A position reads a bag of S tokens, and its targets are the A tokens after it. With A = S, the next bag, this is token
superposition (arXiv 2605.06546) where rows hold S times the text, and patch-level training (arXiv 2407.12665) where
they hold as much text in fewer positions. Shapes: B rows, L positions.
"""

import torch
from torch import Tensor


def bags(row: Tensor, size: int, ahead: int | None = None) -> tuple[Tensor, Tensor]:
    """[B, L S + A] -> inputs [B, L, S] and targets [B, L, A], the tokens after each bag.

    Args:
        row: tokens, or anything else that there is of each.
        size: S; 1 is ordinary next-token prediction.
        ahead: A; None for S.
    """
    ahead = ahead or size
    return row[:, :-ahead].unflatten(1, (-1, size)), row[:, size:].unfold(1, ahead, size)


def of_one_document(tokens: Tensor, document_ids: Tensor) -> Tensor:
    """Return input bags [B, L, S], those across documents as bags of the last one alone.

    Places of earlier documents are filled up with the token that begins the last one, so that nothing of a text is read
    as if it were of the next.
    """
    if tokens.shape[-1] == 1:
        return tokens
    is_earlier = document_ids != document_ids[..., -1:]
    begins = is_earlier.sum(dim=-1, keepdim=True)
    return torch.where(is_earlier, tokens.gather(-1, begins), tokens)


def target_mask(document_ids: Tensor, near: int) -> Tensor:
    """Return which targets count, [B, L, A], from their document numbers.

    The first `near` are one bag: it gets no loss where it lies across documents. Those after it count as far as they
    are of its document.
    """
    same = document_ids == document_ids[..., :1]
    return same & same[..., :near].all(dim=-1, keepdim=True)
