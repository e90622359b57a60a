"""The most memory that training has taken so far."""

import sys

import torch


def peak_memory(device: str) -> int | None:
    """Bytes: of PyTorch's allocator on CUDA, of the whole process on a CPU; None where nobody counts them."""
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
