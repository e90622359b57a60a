"""DiffusionBlocks (arXiv 2506.14202): every block of layers learns alone, as a denoiser of its own range of noise.

    z = y + sigma e        y: embedding of the target, scaled to `data_std` a coordinate;  log sigma ~ N(mean, std^2)
    D(z) = c_skip z + c_out F(c_in z, clean past, c_noise)           F: the layers of one block
    loss = min((sigma^2 + data_std^2) / (sigma data_std)^2, max_loss_weight) * cross-entropy(head(D(z)), target)

The ranges of the blocks hold equal probability; the first block in order of processing has the most noise.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from lilliput.base.errors import RecipeError
from lilliput.model import LanguageModel
from lilliput.objectives.objective import Parts


@dataclass(frozen=True, kw_only=True)
class DiffusionBlocks:
    """A route through one block of layers a step. The numbers are the paper's for text where it gives them."""

    not_implemented: ClassVar[str] = "training blocks of layers alone, as denoisers"

    blocks: int = 4
    overlap: float = 0.1
    """A block's range [low, high] is widened by the factor (high / low)^overlap at both ends."""
    mean: float = -1.2
    """Mean of log sigma."""
    std: float = 1.2
    """Standard deviation of log sigma."""
    lowest: float = 0.002
    """The least sigma."""
    highest: float = 80.0
    """The largest sigma."""
    data_std: float = 0.5
    max_loss_weight: float = 20.0
    """Largest weight of a row: almost clean targets are decodable already, and unbounded would drown the others."""
    conditioning: Literal["none", "add"] = "add"
    """Conditioning on sigma: none, or a small network outside of the model that is gone with the phase."""

    def __post_init__(self) -> None:
        where = "DiffusionBlocks"
        if self.blocks < 2:
            raise RecipeError(f"blocks is {self.blocks}", where=where, hint="give at least 2, or leave the route out")
        if not 0 <= self.overlap < 1:
            raise RecipeError(f"overlap is {self.overlap}", where=where, hint="give a number from 0 to below 1")
        if not 0 < self.lowest < self.highest:
            raise RecipeError(
                f"sigma from {self.lowest} to {self.highest} is no range", where=where, hint="0 < lowest < highest"
            )
        for name in ("std", "data_std", "max_loss_weight"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name} is {getattr(self, name)}", where=where, hint="give a number above 0")
        if self.conditioning not in ("none", "add"):
            raise RecipeError(f"there is no conditioning {self.conditioning!r}", where=where, hint="one of none, add")

    def build(self, model: LanguageModel, parts: Parts) -> nn.Module:
        raise RecipeError(
            f"{self.not_implemented}, is not built",
            where="DiffusionBlocks",
            hint="use route=FullDepth(), or a later version",
        )
