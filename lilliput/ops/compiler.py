"""Marks of functions for PyTorch's compiler, made once something is compiled.

To make one imports the compiler, which took 1.8 of the 4.4 seconds that a command on a processor needed to start.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])
Mark = Callable[[Any], Any]

_waiting: list[tuple[Mark, Callable[..., Any]]] = []


def called_as_it_is(function: Function) -> Function:
    """Mark a function as one that compiled code calls, and that the compiler does not look into."""
    return _marked(torch.compiler.allow_in_graph, function)


def constant_when_compiled(function: Function) -> Function:
    """Mark a function as one that is called while its caller is compiled, for a result that stays the same."""
    return _marked(torch.compiler.assume_constant_result, function)


def prepare_compiler() -> None:
    """Make the marks. To be called before `torch.compile` is, on a module or a function of this package."""
    while _waiting:
        mark, function = _waiting.pop()
        mark(function)


def _marked(mark: Mark, function: Function) -> Function:
    if "torch._dynamo" in sys.modules:
        mark(function)
    else:
        _waiting.append((mark, function))
    return function
