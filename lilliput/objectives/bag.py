"""Rows of tokens as bags: S tokens a position, each position predicting the whole next bag (arXiv 2605.06546).

tokens   t0 t1 t2 t3 | t4 t5 t6 t7 | t8 t9 t10 t11        T = (L + 1) S,  S = 4, L = 2
inputs  [t0..t3]      [t4..t7]
targets               [t4..t7]      [t8..t11]
"""

from torch import Tensor


def bags(row: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """[B, (L + 1) S] -> inputs [B, L, S] and targets [B, L, S], one bag later; S = 1 is next-token prediction."""
    cut = row.unflatten(1, (-1, size))
    return cut[:, :-1], cut[:, 1:]


def same_document_mask(document_ids: Tensor, size: int) -> Tensor:
    """Whether a target bag is anybody's, [B, L, 1], from document numbers [B, (L + 1) S].

    A bag that holds the end of one document and the beginning of the next is nobody's target.
    """
    _, documents = bags(document_ids, size)
    return (documents == documents[..., :1]).all(dim=-1, keepdim=True)
