"""The last product of a feed-forward layer in a narrow stream, launched; its kernels are in `triton_narrow`.

Shapes: D channels of the stream, I inner ones.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import knobs

from lilliput.ops.feed_forward.triton_narrow import product_gradients_kernel, product_kernel


class Tile(NamedTuple):
    """Positions of a program, inner channels that it takes at a time, its warps, and how many times it loads ahead."""

    positions: int
    channels: int
    warps: int
    stages: int


WIDTHS = (64, 128, 256)
DTYPE = torch.float32 if knobs.runtime.interpret else torch.bfloat16
"""In fp16 what goes into a product has to be seen (`train/headroom.py`); Triton's interpreter multiplies no bf16."""
PRODUCT = Tile(64, 64, 4, 2)
GRADIENTS = Tile(64, 64, 4, 2)


def fits(projected: Tensor, down: Tensor) -> bool:
    """Whether it is to be made here."""
    return len(down) in WIDTHS and projected.dtype == down.dtype == DTYPE


@torch.library.custom_op("lilliput::gated_product", mutates_args=())
def product(projected: Tensor, down: Tensor, onto: Tensor | None, square: str | None) -> Tensor:
    """[..., 2 I], [D, I] and [..., D] -> onto, or nothing, plus the product [..., D]. It has no gradient itself."""
    outputs = _outputs(projected, down, onto)
    onto = None if onto is None else onto.contiguous()
    _launch(product_kernel, PRODUCT, projected.contiguous(), down.contiguous(), onto, outputs, square=square)
    return outputs


@torch.library.custom_op("lilliput::gated_product_gradients", mutates_args=())
def product_gradients(projected: Tensor, down: Tensor, grad: Tensor, square: str | None) -> tuple[Tensor, Tensor]:
    """The activation [..., I], and the projection's gradient [..., 2 I] from that of the product [..., D]."""
    activation, grad_projected = _activation_and_gradient(projected)
    read = projected.contiguous(), down.contiguous(), grad.contiguous()
    _launch(product_gradients_kernel, GRADIENTS, *read, activation, grad_projected, square=square)
    return activation, grad_projected


def _launch(
    kernel: Any, tile: Tile, projected: Tensor, down: Tensor, *others: Tensor | None, square: str | None
) -> None:
    assert projected.is_cuda or knobs.runtime.interpret
    width, inner = down.shape
    total = projected.numel() // projected.shape[-1]
    with torch.cuda.device_of(projected):
        kernel[(-(-total // tile.positions),)](
            projected,
            down,
            *others,
            total,
            INNER=inner,
            D=width,
            M=tile.positions,
            K=tile.channels,
            SQUARE=square,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )


def _outputs(projected: Tensor, down: Tensor, onto: Tensor | None) -> Tensor:
    return projected.new_empty(*projected.shape[:-1], len(down), dtype=None if onto is None else onto.dtype)


def _activation_and_gradient(projected: Tensor) -> tuple[Tensor, Tensor]:
    return projected.new_empty(*projected.shape[:-1], projected.shape[-1] // 2), projected.new_empty(projected.shape)


@product.register_fake
def _(projected: Tensor, down: Tensor, onto: Tensor | None, square: str | None) -> Tensor:
    return _outputs(projected, down, onto)


@product_gradients.register_fake
def _(projected: Tensor, down: Tensor, grad: Tensor, square: str | None) -> tuple[Tensor, Tensor]:
    return _activation_and_gradient(projected)
