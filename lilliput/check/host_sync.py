"""Check of what a mixer says about waiting for a device: one that reads numbers back cannot be in a CUDA graph."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lilliput.check.layers import MixerLayer
from lilliput.check.result import PACKAGE, CheckFailed, CheckSkipped, shown_file

READ_BACK = {
    "aten::_local_scalar_dense": "turns a tensor into a number: item(), int(), float(), or bool() in an if",
    "aten::equal": "compares tensors: torch.equal",
    "aten::nonzero": "has a shape that depends on values: nonzero()",
    "aten::masked_select": "has a shape that depends on values: masked_select()",
    "aten::_unique2": "has a shape that depends on values: unique()",
}
"""Operations that wait for a device, and how one comes to them."""
OPS = PACKAGE / "ops"


def says_whether_it_waits(layer: MixerLayer) -> str:
    """A mixer that says that it reads nothing back does so, as far as it shows without a GPU."""
    if getattr(layer.module, "host_sync", True):
        raise CheckSkipped("it may read numbers back, or does not say: CUDA graphs are not used with it")
    x, documents = layer.stream(2, 20).requires_grad_(), (torch.arange(20) // 7).expand(2, -1)
    with _ReadBacks() as noted:
        layer.whole(x, documents).sum().backward()
    if noted.found:
        place, how = noted.found[0]
        raise CheckFailed(
            f"host_sync is False, and forward {how}",
            where=place,
            hint="compute it with tensors alone, or say host_sync = True",
        )
    return ""


class _ReadBacks(TorchDispatchMode):
    """Notes which lines read numbers back; ours beneath a mixer are other ones on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        how = READ_BACK.get(func._schema.name)
        if func._schema.name == "aten::index" and any(one is not None and one.dtype == torch.bool for one in args[1]):
            how = "indexes with a mask, whose result has a shape that depends on values"
        frame = _caller(sys._getframe())
        if how and frame and not Path(frame.f_code.co_filename).is_relative_to(OPS):
            self.found.append((f"{shown_file(frame.f_code.co_filename)}:{frame.f_lineno}", how))
        return func(*args, **(kwargs or {}))


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the first frame above that is neither PyTorch's nor of this file."""
    while frame and (frame.f_globals.get("__name__", "").startswith("torch") or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return frame
