"""One position of each row, from its token to the logits after it: eager, compiled, or replayed as a CUDA graph.

A step of a small model is hundreds of launches of a few microseconds each, and Python needs longer to launch them than
a GPU or a few cores to run them. Compiled, a layer is a dozen; as a graph, a whole step is one.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from shutil import which
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from lilliput.base.cuda_graph import capture
from lilliput.base.errors import MachineError
from lilliput.generate.states import RowStates
from lilliput.model import LanguageModel
from lilliput.nn.block import compile_decode_once
from lilliput.ops.compiler import prepare_compiler
from lilliput.ops.dispatch import TRITON_HERE

VARIANTS = 64
"""Shapes that a step is compiled for, at most: rows in powers of two, and capacities of a cache."""
NO_ASSERTS = {"size_asserts": False, "alignment_asserts": False}
"""Options of PyTorch's compiler: asserts between kernels took 0.2 ms of SLM-10M's 1.5 on two cores."""


class DecodeStep:
    """Reads the last token of rows and changes their states in place.

    Args:
        model: as `decoding_copy` returns it.
        compile: compile the step: for OdinNext-138M's shape in 14 s on two cores, and in 3 s where it was before.

    Raises:
        MachineError: there is nothing to compile with.
    """

    def __init__(self, model: LanguageModel, *, compile: bool):
        run = partial(_step, model)
        self._compiled = compile
        self._marked: object = None
        if compile:
            import torch._dynamo.config as dynamo  # takes seconds

            _check_compiler(model.head_weight.device)
            prepare_compiler()
            compile_decode_once()
            dynamo.recompile_limit = max(VARIANTS, dynamo.recompile_limit)
            code = _step.__code__.replace(co_name=f"_step_of_{id(self)}")  # compiled code is found by this object
            own = FunctionType(code, _step.__globals__, closure=_step.__closure__)
            options = {"guard_filter_fn": _guards, **NO_ASSERTS}
            run = partial(torch.compile(own, fullgraph=True, options=options), model)
        self._run: Callable[..., Tensor] = run

    def __call__(self, tokens: Tensor, states: RowStates, reach: int, positions: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits after each row's token [B, V]; positions advance by lengths.

        Args:
            tokens: the last one of the first rows [B] int64.
            states: of all rows; those of the first B are changed.
            reach: positions that the longest row has then read.
            positions: of the tokens [B] int64, changed in place.
            lengths: 1 for rows that read their token, 0 for others [B] int64.
        """
        view = states.view(len(tokens), reach)
        if self._compiled and view is not self._marked:
            self._marked = view
            for tensor, axis in states.slots(view):  # one program for parts of it: SLM-10M's took 8 s each
                torch._dynamo.mark_dynamic(tensor, axis)
        return self._run(tokens, view, positions, lengths)


def _step(
    model: LanguageModel, tokens: Tensor, states: list[dict[str, Tensor]], positions: Tensor, lengths: Tensor
) -> Tensor:
    x = model.decode(model.embed(tokens[:, None, None]), states, positions, lengths)
    positions += lengths
    return model.logits(x)[:, 0]


def _guards(guards: Sequence[Any]) -> list[bool]:
    """Return which of a compiled step's guards are checked: those of tensors that a call may give in another shape.

    The model is a copy of the engine's own. To check that it is still the same took 0.4 ms of SLM-10M's 1.8.
    """
    return [
        one.guard_type in ("TENSOR_MATCH", "SHAPE_ENV") and "_modules" not in one.name and "'model'" not in one.name
        for one in guards
    ]


def _check_compiler(device: torch.device) -> None:
    """Refuse to compile where PyTorch would find no compiler."""
    if device.type == "cuda":
        missing = None if TRITON_HERE else "Triton"
    else:
        compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl")
        missing = None if any(name and which(name) for name in compilers) else "C++ compiler"
    if missing:
        raise MachineError(
            f"the step that writes cannot be compiled: there is no {missing}",
            where=f"compile=True on {device.type}",
            hint="install one (Debian: apt install g++), or leave compile out",
        )


class CapturedDecodeStep:
    """The same as CUDA graphs, one for each number of rows and reach, from the second step of a kind on.

    The first one compiles what is to be captured. Tokens, positions and lengths of a kind have to lie where they lay
    when it was captured; states that grew are captured again.
    """

    def __init__(self, step: DecodeStep):
        self._step = step
        self._seen: set[tuple[int, ...]] = set()
        self._graphs: dict[tuple[int, ...], tuple[Any, Tensor]] = {}
        self._layers: Any = None
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, tokens: Tensor, states: RowStates, reach: int, positions: Tensor, lengths: Tensor) -> Tensor:
        if states.layers is not self._layers:
            self._layers, self._seen, self._graphs = states.layers, set(), {}
        kind = (len(tokens), states.rounded(reach), tokens.data_ptr(), positions.data_ptr(), lengths.data_ptr())
        if kind not in self._seen:
            self._seen.add(kind)
            return self._step(tokens, states, reach, positions, lengths)
        if kind not in self._graphs:
            run = lambda: self._step(tokens, states, reach, positions, lengths)  # noqa: E731
            self._graphs[kind] = capture(run, self._pool)
        graph, logits = self._graphs[kind]
        graph.replay()
        return logits
