"""Dtypes by the names that people give: of weights, and of states."""

from collections.abc import Mapping

import torch

from lilliput.base.errors import LilliputError

WEIGHTS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
"""Precisions of weights; with `int8` those that write have 8 bits. Scores are of fp32, or of a release's 8-bit file."""
STATES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Dtypes that the states of decoding can be stored in."""


def weights_dtype(name: str, *, where: str) -> torch.dtype:
    """Return the dtype of weights that a name stands for.

    Raises:
        LilliputError: it stands for none.
    """
    return _named(name, WEIGHTS, "dtype", where)


def states_dtype(name: str | None, *, where: str) -> torch.dtype | None:
    """Return the dtype of states that a name stands for; None for None.

    Raises:
        LilliputError: it stands for none.
    """
    return None if name is None else _named(name, STATES, "the dtype of states", where)


def _named(name: str, dtypes: Mapping[str, torch.dtype], what: str, where: str) -> torch.dtype:
    if name not in dtypes:
        raise LilliputError(f"{what} cannot be {name!r:.80}", where=where, hint=f"give one of {', '.join(dtypes)}")
    return dtypes[name]
