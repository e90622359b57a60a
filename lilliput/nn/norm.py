"""Root-mean-square norms, computed in fp32 whatever the stream's precision. Shape: any leading, D last."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lilliput.ops.rms_norm import rms_norm
from lilliput.ops.softcap import to_fp32


class NormSpec(Protocol):
    """A norm as recipes write it."""

    def build(self, width: int) -> nn.Module:
        """A norm over a last axis of `width`: an `nn.Module` that is a `Norm`."""
        ...


class Norm(Protocol):
    """A function, and what defines it, for those who make it together with what is around it."""

    eps: float

    @property
    def gain(self) -> Tensor:
        """[D]."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., D] / sqrt(mean x^2 + eps) * gain."""
        ...


@dataclass(frozen=True, kw_only=True)
class RMSNorm:
    """y = x / sqrt(mean x^2 + eps) * w, with w = 1 at first."""

    eps: float = 1e-6

    def build(self, width: int) -> nn.Module:
        return RMSNormLayer(width, self.eps, offset=0.0)


@dataclass(frozen=True, kw_only=True)
class ZeroCenteredRMSNorm:
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
        return rms_norm(x, self.gain, self.eps)

    @property
    def gain(self) -> Tensor:
        return to_fp32(self.weight) + self.offset
