"""The recurrence as Triton kernels (`triton_forward`, `triton_backward`), for CUDA and ROCm devices.

Two launches forward and four backward. The states that chunks receive are made again for the backward pass, so that
nothing but the scores inside of chunks, half the size of q, is kept for it. Both passes are operators of PyTorch, which
`torch.compile` takes as they are.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from triton import knobs

from lilliput.base.errors import MachineError
from lilliput.ops.compiler import operator
from lilliput.ops.gla.triton_backward import gradients_kernel
from lilliput.ops.gla.triton_forward import outputs_kernel, states_kernel
from lilliput.ops.gla.triton_tiles import Tile, tiles_for

WIDTHS = (16, 32, 64, 128) if knobs.runtime.interpret else (64, 128)
"""Channels that fit: matrix units take multiples of 16, ranges are powers of two, wider states overfill a program.

Not 16 and 32 on devices. With 16-bit operands their products find shared memory through descriptors, and the ptxas of
Triton 3.6 makes some of them from registers that nothing has written: on an H200 tiles of 16 and 32 key channels with 4
warps gave wrong gradients or read out of bounds. Compiled for sm_90, the outputs and gradients of these widths all have
such descriptors, and no kernel of 64 or 128 has one.
"""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def is_supported(q: Tensor, v: Tensor, log_decay: Tensor) -> bool:
    """Return whether these kernels take such inputs."""
    widths = q.shape[-1] in WIDTHS and v.shape[-1] in WIDTHS
    return widths and q.dtype in DTYPES and v.dtype == q.dtype and log_decay.dtype == torch.float32


def gla_triton(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `lilliput.ops.gla.gla`."""
    if not is_supported(q, v, log_decay):
        raise MachineError(
            f"heads of {q.shape[-1]} key and {v.shape[-1]} value channels, {q.dtype} and {v.dtype} with decays in "
            f"{log_decay.dtype}, do not fit the Triton kernels of the scan",
            where="gla(backend=Backend.TRITON)",
            hint=f"take widths of {WIDTHS} in bf16, fp16 or fp32, decays in fp32, or leave the choice to Backend.AUTO",
        )
    if not (q.is_cuda or knobs.runtime.interpret):
        raise MachineError(
            f"the Triton kernels of the scan cannot run on the device {q.device}",
            where="gla(backend=Backend.TRITON)",
            hint="use a CUDA or ROCm device, or leave the choice to Backend.AUTO",
        )
    outputs, after, _ = gla_forward(q, k, v, log_decay, state)
    return outputs, after


@operator("lilliput::gla")
def gla_forward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, the state after the row, and the scores inside of every chunk [B, H, N, C, C]."""
    q, k, v, log_decay = (x.contiguous() for x in (q, k, v, log_decay))
    outputs, after, scores = _empty(q, v)
    with torch.cuda.device_of(q):
        launch = Launches(q, v)
        received = launch.states(k, v, log_decay, state, after, reverse=False)
        launch.outputs(q, k, v, log_decay, received, scores, outputs, reverse=False)
    return outputs, after, scores


@operator("lilliput::gla_gradients")
def gla_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
    scores: Tensor,
    grad_outputs: Tensor,
    grad_after: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, log_decay and the state before the row."""
    q, k, v, log_decay, grad_outputs = (x.contiguous() for x in (q, k, v, log_decay, grad_outputs))
    grad_q, grad_k, grad_v, grad_decay, grad_state = _empty_gradients(q, k, v, log_decay)
    with torch.cuda.device_of(q):
        launch = Launches(q, v)
        leaving = launch.states(q, grad_outputs, log_decay, grad_after, grad_state, reverse=True)
        launch.outputs(q, k, grad_outputs, log_decay, leaving, scores, grad_v, reverse=True)
        entering = launch.states(k, v, log_decay, state, None, reverse=False)
        launch.gradients(q, k, v, log_decay, entering, leaving, grad_outputs, grad_q, grad_k, grad_decay)
    return grad_q, grad_k, grad_v, grad_decay, grad_state


class Launches:
    """The kernels, with what all their launches for one input share.

    Tensors are [B, L, H, .] and contiguous, but for values and what becomes of them, which may be slices of wider rows.
    """

    def __init__(self, q: Tensor, v: Tensor):
        self.rows, self.positions, self.heads, self.K = q.shape
        self.V = v.shape[-1]
        self.tiles = tiles_for(q.dtype, q.device)
        self.chunks = -(-self.positions // self.tiles.chunk)
        self.spans = spans(self.tiles.chunk, q.device)
        self.scale = self.K**-0.5
        exact = q.dtype == torch.float32
        self.constants = {
            "K": self.K,
            "V": self.V,
            "C": self.tiles.chunk,
            "LEVELS": len(self.spans) - 2,
            "EXACT": exact,
            # Of fp32 operands: on matrix units three products of tf32 make one. ROCm multiplies fp32 as it is; so does
            # the interpreter, which would take the bits of bf16, whose parts `sum_on` sums otherwise, for integers.
            "PRECISION": "ieee" if torch.version.hip or knobs.runtime.interpret else "tf32x3",
        }

    def states(
        self, k: Tensor, v: Tensor, log_decay: Tensor, before: Tensor | None, after: Tensor | None, *, reverse: bool
    ) -> Tensor:
        """Return what every chunk receives, [B, H, N, K, V]."""
        tile = self.tiles.states.within(self.K, self.V)
        received = v.new_empty(self.rows, self.heads, self.chunks, self.K, self.V)
        before = None if before is None else before.contiguous()
        programs = self.rows * self.heads * (self.K // tile.keys) * (self.V // tile.values)
        tensors = (k, v, log_decay, self.spans, before, received, after, v.stride(1))
        self._launch(states_kernel, programs, tile, *tensors, self.scale if reverse else 1.0, REVERSE=reverse)
        return received

    def outputs(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_decay: Tensor,
        received: Tensor,
        scores: Tensor,
        outputs: Tensor,
        *,
        reverse: bool,
    ) -> None:
        tile = self.tiles.outputs.within(self.K, self.V)
        programs = self.rows * self.heads * self.chunks * (self.V // tile.values)
        tensors = (q, k, v, log_decay, self.spans, received, scores, outputs, v.stride(1), outputs.stride(1))
        self._launch(outputs_kernel, programs, tile, *tensors, self.scale, REVERSE=reverse)

    def gradients(self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *others: Tensor) -> None:
        """`others` are the states before chunks and after, the gradient of the outputs, and those to be made."""
        tile = self.tiles.gradients.within(self.K, self.V)
        programs = self.rows * self.heads * self.chunks * (self.K // tile.keys)
        tensors = (q, k, v, log_decay, self.spans, *others, v.stride(1))
        self._launch(gradients_kernel, programs, tile, *tensors, self.scale)

    def _launch(self, kernel: Any, programs: int, tile: Tile, *arguments: Any, **constants: Any) -> None:
        constants |= self.constants | {"K_TILE": tile.keys, "V_TILE": tile.values}
        options = {"num_warps": tile.warps, "num_stages": tile.stages}
        if tile.registers is not None:
            options["maxnreg"] = tile.registers
        kernel[(programs,)](*arguments, self.positions, self.heads, **constants, **options)


@cache
def spans(length: int, device: torch.device) -> Tensor:
    """Return where each position of a chunk sums log decays, one matrix of 0 and 1 a way; fp16, [levels + 2, C, C].

    First the levels: from the middle of its block to the position, or from the position to the middle. One level more
    has the whole chunk for a lower half: from the position to the end. The last is the upper half of that: from the
    beginning to the position.
    """
    i, m = torch.arange(length, device=device)[:, None], torch.arange(length, device=device)
    levels = range(length.bit_length())
    between = [(m >> level == i >> level) & ((m <= i) == (i >> level & 1).bool()) for level in levels]
    return torch.stack([*between, m <= i]).to(torch.float16)


def _empty(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, positions, heads, width = q.shape
    length = tiles_for(q.dtype, q.device).chunk
    after = q.new_empty(rows, heads, width, v.shape[-1], dtype=torch.float32)
    return q.new_empty(v.shape), after, q.new_empty(rows, heads, -(-positions // length), length, length)


def _empty_gradients(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_q, grad_k, grad_v, grad_decay = (x.new_empty(x.shape) for x in (q, k, v, g))
    return grad_q, grad_k, grad_v, grad_decay, g.new_empty(q.shape[0], q.shape[2], q.shape[3], v.shape[3])


@gla_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(q, v)


@gla_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return _empty_gradients(q, k, v, log_decay)


def _keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[2])


def _differentiate(
    ctx: Any, grad_outputs: Tensor | None, grad_after: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    q, k, v, log_decay, state, scores = ctx.saved_tensors
    grad_outputs = torch.zeros_like(v) if grad_outputs is None else grad_outputs
    *gradients, grad_state = gla_backward(q, k, v, log_decay, state, scores, grad_outputs, grad_after)
    return *gradients, None if state is None else grad_state


gla_forward.register_autograd(_differentiate, setup_context=_keep)
