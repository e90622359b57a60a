"""Several tokenizations of a row, lined up: a slot reaches from one place where all of them have a border to the next.

So every tokenization tiles every slot with whole tokens of its own, and a slot is a word at most. All is found on the
device, in shapes that do not depend on the text.
Shapes: B rows, T tokens of a row, M tokenizations, K places in a slot.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.data.batch import Batch
from lilliput.data.segmentations import BEYOND, ENDS, IDS, MOST


class Slots(NamedTuple):
    """The slots of rows, as many as there could be: those at the end of a row may be empty."""

    tokens: Tensor
    """Ids [B, T, K], K = M times `MOST`."""
    shares: Tensor
    """Share of each token [B, T, K]: 1 / M for a tokenization, in equal parts for its tokens; 0 if there is none."""
    weight: Tensor
    """Weight of a slot as a target [B, T], 0 of an empty one."""
    document_ids: Tensor
    """[B, T]."""


def slots_of(batch: Batch, count: int) -> Slots:
    """Return the slots of the first `count` tokenizations of each row.

    Raises:
        RecipeError: the data brings none, or fewer.
    """
    if ENDS not in batch.extras or batch.extras[ENDS].shape[1] < count:
        raise RecipeError(
            f"the data does not have {count} tokenizations of a row",
            where=f"StochasticTokens(segmentations={count})",
            hint=f"read it so: Mixture(segmentations=Segmentations(count={count}), ...)",
        )
    length = batch.tokens.shape[1]
    ends, drawn = batch.extras[ENDS], batch.extras[IDS]
    own = ends[:, 0, :length].contiguous()
    is_border = torch.ones_like(own, dtype=torch.bool)
    for other in range(1, count):
        place = torch.searchsorted(ends[:, other].contiguous(), own).clamp(max=ends.shape[-1] - 1)
        is_border &= ends[:, other].gather(1, place) == own
    borders = is_border.cumsum(dim=1)  # up to each token
    numbers = torch.arange(1, length + 1, device=own.device).expand_as(borders)
    last = torch.searchsorted(borders, numbers.contiguous()).clamp(max=length - 1)
    is_slot = numbers <= borders[:, -1:]
    until = torch.where(is_slot, own.gather(1, last), BEYOND - 1).contiguous()
    tokens, shares, first = [], [], last
    for each in range(count):
        stop = torch.searchsorted(ends[:, each].contiguous(), until, right=True)
        start = torch.cat([torch.zeros_like(stop[:, :1]), stop[:, :-1]], dim=1)
        place = start[..., None] + torch.arange(MOST, device=own.device)
        there = (place < stop[..., None]) & is_slot[..., None]
        ids = drawn[:, each - 1].long() if each else batch.tokens
        first = first if each else start.clamp(max=length - 1)
        found = ids.gather(1, place.clamp(max=ids.shape[1] - 1).flatten(1)).view_as(place)
        tokens.append(torch.where(there, found, 0))
        shares.append(there / (count * there.sum(dim=-1, keepdim=True).clamp(min=1)))
    return Slots(
        torch.cat(tokens, dim=-1),
        torch.cat(shares, dim=-1),
        batch.weight.gather(1, first) * is_slot,
        batch.document_ids.gather(1, first),
    )
