"""Root-mean-square norms, computed in fp32 whatever the stream's precision. Shape: any leading, D last."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lilliput.ops.normed import normed
from lilliput.ops.project import as_one, of_products


class NormSpec(Protocol):
    """A norm as recipes write it."""

    def build(self, width: int) -> nn.Module:
        """A norm over a last axis of `width`: an `nn.Module` that is a `Norm`."""
        ...


class Norm(Protocol):
    """Two forms of one function."""

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., D], normed and multiplied by the gain of each channel."""
        ...

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x [..., D], normed for products, and the gain [D] left for their weights; None where x was multiplied."""
        ...


@dataclass(frozen=True, kw_only=True)
class RMSNorm:
    """y = x / sqrt(mean x^2 + eps) * w, with w = 1 at first."""

    eps: float = 1e-6

    def build(self, width: int) -> nn.Module:
        return RMSNormLayer(width, self.eps, offset=0.0)


@dataclass(frozen=True, kw_only=True)
class ZeroCentredRMSNorm:
    """y = x / sqrt(mean x^2 + eps) * (1 + w), with w = 0 at first: weight decay pulls the gain to 1, not to 0."""

    eps: float = 1e-6

    def build(self, width: int) -> nn.Module:
        return RMSNormLayer(width, self.eps, offset=1.0)


class RMSNormLayer(nn.Module):
    """x / rms(x) * (offset + weight); the weight begins at 1 - offset."""

    def __init__(self, width: int, eps: float, offset: float):
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, 1.0 - self.offset)

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        gain = self.weight.to(wide.dtype) + self.offset
        return nn.functional.rms_norm(wide, gain.shape, gain, self.eps).to(x.dtype)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return (normed(x, self.eps, of_products(x)), self.weight + self.offset) if as_one(x) else (self(x), None)
