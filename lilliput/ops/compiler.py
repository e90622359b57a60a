"""Marks and operators for PyTorch's compiler, which is not imported before something is compiled.

To import it takes 1.8 of the 4.4 seconds of processor time in which a command starts, and both a mark for it and the
first call of a `torch.library.custom_op` do so.
"""

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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


def operator(
    name: str, *, mutates_args: Sequence[str] = (), tags: Sequence[torch.Tag] = ()
) -> Callable[[Callable[..., Any]], Any]:
    """Make an operator of a function that launches kernels: compiled code calls it, and does not look into it.

    An ordinary call is one of the function itself. The operator is called where something is traced, and where it has
    to record a gradient: `recorded` by name. `register_fake` and `register_autograd` are its own.

    Args:
        name: with its namespace, as in `torch.library.custom_op`.
        mutates_args: names of arguments that are changed in place.
        tags: of the operator.
    """

    def made(function: Callable[..., Any]) -> Any:
        recorded: Any = torch.library.custom_op(name, function, mutates_args=mutates_args, tags=tags)

        @wraps(function)
        def call(*args: Any) -> Any:
            if torch.compiler.is_compiling() or not _is_ordinary(args):
                return recorded(*args)
            return function(*args)

        vars(call).update(
            recorded=recorded, register_fake=recorded.register_fake, register_autograd=recorded.register_autograd
        )
        return call

    return made


def _is_ordinary(args: Sequence[Any]) -> bool:
    """Return whether tensors have storage and record no gradient; those of a tracer are of classes of their own."""
    tensors = [one for one in args if isinstance(one, Tensor)]
    records = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
    return not records and all(type(one) in (Tensor, nn.Parameter) and not one.is_meta for one in tensors)


def _marked(mark: Mark, function: Function) -> Function:
    if "torch._dynamo" in sys.modules:
        mark(function)
    else:
        _waiting.append((mark, function))
    return function
