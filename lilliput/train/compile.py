"""A model whose layers are compiled, each by itself, while it is trained."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch._functorch.config as functorch

from lilliput.model import LanguageModel
from lilliput.nn.block import Block
from lilliput.ops.compiler import prepare_compiler

RECOMPUTED = {
    "ban_recompute_used_far_apart": False,
    "ban_recompute_long_fusible_chains": False,
}
"""Compiler options: what products make and multiply is kept for the backward pass, attention and scans are, and what
lies between them is made again: 8.0 GiB instead of 11.3 at SLM-10M's 128 x 1,024 in 58.4 ms instead of 57.1 (one H100,
2026-11-25, `benchmarks/step.py`, when what products multiply was made again, too, from a stream that was kept for
norms).
"""

DETERMINISTIC = "deterministic"
"""PyTorch's compiler times several ways to cut a sum and takes the fastest, so that a run that goes on in a fresh
process may sum in another order. With this setting (PyTorch 2.10 and later) it takes the one that promises most, which
costs less than 1%: 53.0, 118.5, 174.9 ms became 53.0, 119.4, 175.4 (one H100, 2026-11-26, `benchmarks/step.py`)."""

PAIR = Block.forward_pair.__name__
"""The other call of a layer, which `nn.Module.compile` does not know."""

SHAPES = 64
"""Shapes that a layer is compiled for at most, of all micro-batches that were tried; beyond that it would run eagerly,
without a word."""


@contextmanager
def compiled(model: LanguageModel, how: str) -> Iterator[None]:
    """Compile layers, if `how` (of `Machine.compile`) says so, for the length of a `with` block.

    Layer by layer: layers of one shape share one compilation, and any route over them stays ordinary Python. What a
    layer does to a clean and a noised stream is compiled by itself, once a route asks for it.
    """
    layers = list(model.layers) if how in ("blocks", "graphs") else []
    parts = [*layers, model.norm] if layers else []
    with ExitStack() as settings:
        settings.enter_context(functorch.patch(RECOMPUTED))
        if parts:
            import torch._dynamo.config as dynamo  # takes seconds
            import torch._inductor.config as inductor

            prepare_compiler()
            settings.enter_context(dynamo.patch(recompile_limit=SHAPES))
            if hasattr(inductor, DETERMINISTIC):
                settings.enter_context(inductor.patch({DETERMINISTIC: True}))
        for part in parts:
            part.compile(dynamic=False)
        for layer in layers:
            vars(layer)[PAIR] = torch.compile(getattr(layer, PAIR), dynamic=False)
        try:
            yield
        finally:
            for part in parts:
                part._compiled_call_impl = None
            for layer in layers:
                del vars(layer)[PAIR]
