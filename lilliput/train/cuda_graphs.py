"""CUDA graphs: captures of what a GPU is given to do, and the optimizer's step as one of them.

The numbers of a step are looked at before it is taken, so a GPU idles from then on until the first kernel of the update
is there. Python needs 1.1 ms to launch PyTorch's fused AdamW for 112 tensors, and 2.3 ms for 219 (SLM-10M and Llama
194 M, one H100, 2026-11-26, `benchmarks/step.py --profile`).
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from lilliput.train.ranks import Ranks

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


class OptimizerStep(Protocol):
    """Moves every parameter that has a gradient."""

    def __call__(self) -> object: ...


def optimizer_step_of(how: str, optimizer: torch.optim.Optimizer, workers: Ranks) -> OptimizerStep:
    """That which `Machine.compile` names; launched for several workers, and where numbers of it are Python's."""
    recordable = all(group.get("capturable", False) for group in optimizer.param_groups)
    return CapturedOptimizerStep(optimizer) if how == "graphs" and recordable and workers.count == 1 else optimizer.step


class CapturedOptimizerStep:
    """As a CUDA graph, once gradients lie where they lay the last time; launched until then, which makes the state."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._optimizer = optimizer
        self._parameters: list[Tensor] = [one for group in optimizer.param_groups for one in group["params"]]
        self._places: list[int | None] = []
        """Of gradients, at the last step: their addresses, which keep no memory."""
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        places = [None if one.grad is None else one.grad.data_ptr() for one in self._parameters]
        if places != self._places:
            self._graph, self._places = None, places
            self._optimizer.step()
            return
        if self._graph is None:
            self._graph, _ = capture(self._optimizer.step)
        self._graph.replay()
