"""The mean of the embeddings of a bag, or their sum by shares, and no more than that."""

import torch
from torch import Tensor


def embedding_bag_reference(tokens: Tensor, weight: Tensor, shares: Tensor | None, dtype: torch.dtype) -> Tensor:
    """See `lilliput.ops.embedding_bag.embedding_bag`."""
    each = torch.nn.functional.embedding(tokens, weight)
    if shares is None:
        return each.mean(dim=-2).to(dtype)
    return (each * shares.to(each.dtype)[..., None]).sum(dim=-2).to(dtype)
