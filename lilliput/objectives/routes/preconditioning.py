"""Denoising as EDM writes it (Karras et al. 2022, arXiv 2206.00364): scales around a network F, and steps of a sampler.

    D(z) = skip z + out F(into z, noise)
    skip = s^2 / (sigma^2 + s^2)    out = sigma s / sqrt(sigma^2 + s^2)    into = 1 / sqrt(sigma^2 + s^2)
    noise = log(sigma) / 4          loss weight = (sigma^2 + s^2) / (sigma s)^2 = 1 / out^2

with s the standard deviation of what is denoised, a coordinate.
"""

from typing import NamedTuple

from torch import Tensor


class Preconditioning(NamedTuple):
    """The scales at levels of noise, in the shape of those."""

    skip: Tensor
    """Share of the noised input in the denoised output."""
    out: Tensor
    """Scale of what the network returns."""
    into: Tensor
    """Scale of what the network reads: its variance becomes 1."""
    noise: Tensor
    """The number that tells the network the level."""


def preconditioning(sigma: Tensor, data_std: float) -> Preconditioning:
    """Return the scales at levels of noise."""
    total = (sigma**2 + data_std**2).sqrt()
    return Preconditioning((data_std / total) ** 2, sigma * data_std / total, 1 / total, sigma.log() / 4)


def loss_weight(sigma: Tensor, data_std: float, most: float | None) -> Tensor:
    """Return the weight of the loss at levels of noise, at most `most`; None for no bound."""
    weight = (sigma**2 + data_std**2) / (sigma * data_std) ** 2
    return weight if most is None else weight.clamp(max=most)


def euler_step(z: Tensor, denoised: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """Return z at a lower level of noise, on the straight line to what it is denoised as; at level 0 it is that.

    Equations (3) and (4) of DiffusionBlocks, as printed, lead away from it.

    Args:
        z: at level `sigma`.
        denoised: what it is taken for.
        sigma: the level.
        next_sigma: the lower one.
    """
    kept = next_sigma / sigma
    return kept * z + (1 - kept) * denoised
