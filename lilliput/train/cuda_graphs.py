"""One recording of what a GPU is given to do, for passes (`forward_backward.py`) and updates (`update.py`) alike."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Made = TypeVar("Made")


def capture(run: Callable[[], Made], pool: Any = None) -> tuple[torch.cuda.CUDAGraph, Made]:
    """What `run` launches as a CUDA graph, launching none of it, and what it returned, which each replay makes.

    Args:
        run: reads and writes the same addresses whenever it is replayed.
        pool: of the memory that it takes, from `torch.cuda.graph_pool_handle`; None for one of its own.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, pool=pool):
            made = run()
    except BaseException:
        torch.cuda.set_stream(stream)  # a recording that cannot be ended, either, leaves its own
        raise
    return graph, made
