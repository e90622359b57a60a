"""Random numbers that are a function of (seed, row, stream, place): no generator, no state, nothing to register.

However a step is split into micro-batches and ranks, and whether it is launched or replayed as a CUDA graph, a row gets
the same numbers. Uniform ones are equal on every device to the bit; normal ones to the rounding of its logarithm.
"""

from math import prod

from torch import Tensor

from lilliput.ops.counter_noise import reference
from lilliput.ops.dispatch import TRITON_HERE, Backend, check_backend


def uniform(
    seed: Tensor, rows: Tensor, shape: tuple[int, ...], stream: int = 0, backend: Backend = Backend.AUTO
) -> Tensor:
    """Return uniform numbers above 0 and below 1, [B, *shape] in fp32.

    Args:
        seed: [] int64, on the device of the rows.
        rows: [B] int64, what each row is known by; below 2^32.
        shape: of a row.
        stream: which of the independent draws of a row.
        backend: one of `Backend`.
    """
    return _draw(seed, rows, shape, stream, backend, is_normal=False)


def normal(
    seed: Tensor, rows: Tensor, shape: tuple[int, ...], stream: int = 0, backend: Backend = Backend.AUTO
) -> Tensor:
    """Return standard normal numbers, [B, *shape] in fp32; arguments as for `uniform`."""
    return _draw(seed, rows, shape, stream, backend, is_normal=True)


def _draw(
    seed: Tensor, rows: Tensor, shape: tuple[int, ...], stream: int, backend: Backend, *, is_normal: bool
) -> Tensor:
    check_backend("counter_noise", backend, Backend.TRITON)
    if backend is Backend.AUTO:
        backend = Backend.TRITON if rows.is_cuda and TRITON_HERE else Backend.REFERENCE
    numbers = prod(shape)
    if backend is Backend.TRITON:
        from lilliput.ops.counter_noise.triton import draw_triton

        drawn = draw_triton(seed, rows, stream, numbers, is_normal=is_normal)
    else:
        drawn = (reference.normal if is_normal else reference.uniform)(seed, rows, stream, numbers)
    return drawn.reshape(len(rows), *shape)
