"""The memory of a device: the most that training has taken so far, how much there is, and that it ran out."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lilliput.base.errors import MachineError
from lilliput.base.text_units import size

SIGNS = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
"""Texts of other errors that mean the same: of MPS, the processor, kernels that are loaded, handles of libraries."""


def peak_memory(device: str) -> int | None:
    """Bytes: of PyTorch's allocator on CUDA, of the whole process on a CPU; None where they are not counted."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if device != "cpu":
        return None
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, or one that it came from: a recording that fails hides the
    first.
    """
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, torch.OutOfMemoryError) or any(sign in str(one).lower() for sign in SIGNS):
            return True
        one = one.__cause__ or one.__context__
    return False


def give_back(device: str) -> None:
    """After something that did not fit: hand back what is no longer held, and count the peak without it."""
    gc.collect()  # cycles of frames and tensors
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


@contextmanager
def enough_memory(device: str, where: str) -> Iterator[None]:
    """Around what cannot do with less, and says so.

    Raises:
        MachineError: memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise MachineError(
            f"memory ran out outside the forward and backward passes ({device}: {memory_summary(device)})",
            where=where,
            hint="close other programs that use it, take a smaller model, or give the machine fewer `positions`, which "
            "also shrinks held-out batches; earlier checkpoints are intact",
        ) from error


def memory_summary(device: str) -> str:
    """Return how much memory there is, for an error about too little of it."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        share = torch.cuda.get_per_process_memory_fraction(torch.device(device).index)
        held = torch.cuda.memory_allocated(device)
        bound = f", of which this process may have {size(round(share * total))}" if share < 1 else ""
        return f"{size(total)}{bound}; {size(free)} are free, and {size(held)} are held besides such a pass"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return f"{size(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))} in all"
    return "the memory of this device is unknown"
