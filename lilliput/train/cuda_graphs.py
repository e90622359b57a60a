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
    """Moves every parameter that has a gradient, in a step of a variant of the objective."""

    def __call__(self, variant: int) -> object: ...


def optimizer_step_of(how: str, optimizer: torch.optim.Optimizer, ranks: Ranks) -> OptimizerStep:
    """Return the way that `Machine.compile` names; eager for several ranks, and where numbers of it are Python's."""
    capturable = all(group.get("capturable", False) for group in optimizer.param_groups)
    captures = how == "graphs" and capturable and not ranks.is_synchronous
    return CapturedOptimizerStep(optimizer) if captures else EagerOptimizerStep(optimizer)


class EagerOptimizerStep:
    """Operation by operation."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._optimizer = optimizer

    def __call__(self, variant: int) -> None:
        self._optimizer.step()


class CapturedOptimizerStep:
    """As one CUDA graph a variant, once gradients lie where they lay the last time; eager until then, which makes the
    optimizer's state."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._optimizer = optimizer
        self._parameters: list[Tensor] = [one for group in optimizer.param_groups for one in group["params"]]
        self._addresses: dict[int, list[int | None]] = {}
        """Of gradients, at the last step of each variant: numbers, which keep no memory."""
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, variant: int) -> None:
        addresses = [None if one.grad is None else one.grad.data_ptr() for one in self._parameters]
        if addresses != self._addresses.get(variant):
            self._graphs.pop(variant, None)
            self._addresses[variant] = addresses
            self._optimizer.step()
            return
        if variant not in self._graphs:
            self._graphs[variant], _ = capture(self._optimizer.step)
        self._graphs[variant].replay()
