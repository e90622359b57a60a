"""The seam for which layers a training position runs through, and on what input."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from lilliput.model import LanguageModel, ModelSpec
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import Parts


class RouteInput(NamedTuple):
    """Rows that a route runs; B rows, L positions, S tokens in a bag, D width."""

    x: Tensor
    """Input embeddings [B, L, D]."""
    targets: Tensor
    """[B, L, S]."""
    document_ids: Tensor
    """Document numbers of the inputs [B, L]."""
    target_document_ids: Tensor
    """Document numbers of the targets [B, L]; where one differs from its input's, the target begins a document."""
    row: Tensor
    """Numbers of the rows within the step [B], to draw noise by."""


class Routed(NamedTuple):
    """One stream that the head reads."""

    name: str
    """Terms of the loss are recorded under it, as `<name>/<term>`; "" for the plain name of the term."""
    hidden: Tensor
    """[B, L, D], before the final norm."""
    weight: Tensor | None = None
    """Weight of each row's loss [B], above 0, which terms are recorded without; None for 1."""


class Route(Protocol):
    """A route as recipes write it: a frozen dataclass."""

    def build(self, model: LanguageModel, parts: Parts) -> nn.Module:
        """Return a `RouteModule`, which may own parameters; they are gone when the phase ends."""
        ...


class RouteModule(Protocol):
    """A route at work: an `nn.Module`."""

    @property
    def variants(self) -> int:
        """As of an `ObjectiveModule`."""
        ...

    def active(self, variant: int) -> Iterable[nn.Parameter]:
        """As of an `ObjectiveModule`, the route's own parameters among them."""
        ...

    def __call__(self, rows: RouteInput, variant: int, progress: Tensor, noise: Noise) -> Sequence[Routed]:
        """Return the streams that the head reads, of which the first one's loss is the headline."""
        ...

    def evaluate(self, x: Tensor, document_ids: Tensor) -> Tensor | None:
        """Return what the head reads in evaluation, [B, L, D] -> [B, L, D]; None where that is not defined."""
        ...


class CountedRoute(Route, Protocol):
    """A route whose steps do not run every layer once: plans ask it, and count every layer otherwise."""

    def flops(self, spec: ModelSpec, length: int) -> int:
        """Return a third of the floating-point operations of a training step, a position, in rows of `length`.

        Args:
            spec: of the model.
            length: positions of a row.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FullDepth:
    """Ordinary training: every layer, on the embedded input."""

    def build(self, model: LanguageModel, parts: Parts) -> nn.Module:
        return FullDepthModule(model)


class FullDepthModule(nn.Module):
    """All layers of a model, all of whose parameters are trained."""

    variants = 1

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model

    def active(self, variant: int) -> Iterable[nn.Parameter]:
        return self.model.parameters()

    def forward(self, rows: RouteInput, variant: int, progress: Tensor, noise: Noise) -> tuple[Routed]:
        return (Routed("", self.model.forward_layers(rows.x, document_ids=rows.document_ids)),)

    def evaluate(self, x: Tensor, document_ids: Tensor) -> Tensor:
        return self.model.forward_layers(x, document_ids=document_ids)
