"""Capture of what a function launches as a CUDA graph: one launch for hundreds, on the same addresses each time."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Made = TypeVar("Made")


def capture(run: Callable[[], Made], pool: Any = None) -> tuple[torch.cuda.CUDAGraph, Made]:
    """Capture what `run` launches as a CUDA graph, without launching it; return the graph and what `run` returned.

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
