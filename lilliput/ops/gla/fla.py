"""The recurrence as `chunk_gla` of fla-core, on request only: somebody else's answer and time, to compare ours with.

It has our shapes, our scale K^{-1/2} and gradients of everything, and takes any number of channels; it wants decays and
states in fp32. It tunes itself for minutes at the first call of a shape, and `torch.compile` breaks its graph there. An
extra brings it: `pip install 'lilliput[fla]'`.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

from lilliput.base.errors import MachineError

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WHERE, HINT = "gla(backend=Backend.FLA)", "or leave the choice to Backend.AUTO"


def gla_fla(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `lilliput.ops.gla.gla`; decays in fp32."""
    require(q.device)
    if q.dtype not in DTYPES or v.dtype != q.dtype or log_decay.dtype != torch.float32:
        raise MachineError(
            f"fla's scan does not take {q.dtype} and {v.dtype} with decays in {log_decay.dtype}",
            where=WHERE,
            hint=f"take bf16, fp16 or fp32, decays in fp32, {HINT}",
        )
    from fla.ops.gla import chunk_gla  # pyright: ignore[reportMissingImports]

    return chunk_gla(q, k, v, log_decay, initial_state=state, output_final_state=True)


def require(device: torch.device) -> None:
    """Refuse what fla cannot do, before it is imported, which on a machine without a GPU warns.

    Raises:
        MachineError: fla-core is not installed, or its kernels do not run on this device.
    """
    if find_spec("fla") is None:
        raise MachineError(
            "the scan cannot run as fla's kernels, because fla-core is not installed",
            where=WHERE,
            hint=f"pip install 'fla-core>=0.6', {HINT}",
        )
    if device.type != "cuda":
        raise MachineError(
            f"fla's kernels of the scan cannot run on the device {device}",
            where=WHERE,
            hint=f"use a CUDA or ROCm device, {HINT}",
        )
