"""Rows of several texts, as padding-free training packs them: where each begins, and how far it is.

transformers' `DataCollatorWithFlattening` says it with `position_ids`, `seq_idx` or `cu_seq_lens_*`; any of them is
enough, and several have to agree. A text begins with an empty state and at position 0.

Shapes: B rows, L positions.
"""

import torch
from torch import Tensor

RESET = -40.0
"""Log decay that empties a state: e^-40 = 4e-18 is nothing in fp32, yet small enough to leave a running sum exact."""


def text_begins(
    rows: int,
    length: int,
    *,
    position_ids: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    **_: object,
) -> Tensor | None:
    """Where a text of a packed row begins, [B, L] bool; None if nothing says so.

    `position_ids` [B, L] are 0 there, `seq_idx` [B, L] changes, and `cu_seq_lens_*` [N + 1] count the tokens before it
    in one row. Longest lengths, which some attention kernels want, say nothing new.
    """
    found = {}
    if position_ids is not None:
        ids = position_ids.expand(rows, length) if position_ids.dim() > 1 else position_ids[None].expand(rows, length)
        found["position_ids"] = ids == 0
    if seq_idx is not None:
        shown = seq_idx.expand(rows, length)
        found["seq_idx"] = torch.cat((torch.ones_like(shown[:, :1], dtype=torch.bool), shown.diff(dim=1) != 0), dim=1)
    for name, sums in (("cu_seq_lens_q", cu_seq_lens_q), ("cu_seq_lens_k", cu_seq_lens_k)):
        if sums is not None:
            if rows != 1 or int(sums[-1]) != length:
                raise ValueError(
                    f"{name} ends at {int(sums[-1])}: it counts the tokens of one row, not [{rows}, {length}]"
                )
            begins = torch.zeros(1, length, dtype=torch.bool, device=sums.device)
            begins[0, sums[:-1].long()] = True
            found[name] = begins
    if not found:
        return None
    (first, begins), *others = found.items()
    for name, other in others:
        if not torch.equal(begins[:, 1:], other[:, 1:].to(begins.device)):
            raise ValueError(f"{first} and {name} do not let the same texts begin: give one of them, or the same")
    return begins


def positions_in_text(positions: Tensor, begins: Tensor) -> Tensor:
    """Positions [B, L] counted from where the text begins [B, L]; those before the first beginning as they are."""
    return positions - torch.where(begins, positions, 0).cummax(dim=1).values


def check_positions(position_ids: Tensor | None, positions: Tensor, real: Tensor | None) -> None:
    """Refuse `position_ids` that are not counted one by one from where a text begins, or a state has come to."""
    if position_ids is None:
        return
    wrong = position_ids != positions
    if (wrong if real is None else wrong & real).any():
        raise ValueError(
            "position_ids have to count each text one by one from 0, or from what past_key_values has seen: leave them "
            "out, or give those of a collator that flattens"
        )


__all__ = ["RESET", "check_positions", "positions_in_text", "text_begins"]
