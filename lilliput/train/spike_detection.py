"""The guard of a phase: a loss that jumps and a gradient that is not finite are noticed before the weights change.

    loss           above   median + loss * spread, and more than a tenth of a nat above the median
    gradient norm  above   median + norm * spread, and more than ten times what gradients are clipped to
    spread = the larger of the median distance from the median and a twentieth of the median

over the last `window` steps of the same stage and variant. Medians, because a spike must not widen what counts as
usual. What happens then is `train/rollback.py`'s: back to the last checkpoint, and on from there without the text in
between.
"""

from collections import deque
from dataclasses import dataclass
from math import inf, isfinite
from statistics import median
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lilliput.base.spec import check_range

FLOOR = 0.05
"""The least spread, as a share of the median: numbers that hardly differ must not make the next one a spike."""
RISE = 0.1
"""Nats that a loss may rise in any case. A block of the least noise has losses of 0.003 now and 0.03 then."""


CLIPS = 10
"""Gradients beyond what they are clipped to that a norm may have in any case: of a denoising block whose norms are 0.09
one in some hundred steps is 3 (SLM-10M's shape, one H200), and clipped to 1 it does no harm."""


class GuardSpec(Protocol):
    """A guard as recipes write it."""

    @property
    def max_rollbacks(self) -> int:
        """Incidents after one checkpoint that end the training."""
        ...

    def build(self, clip: float) -> "SpikeDetector | NoDetector":
        """Return what judges the steps of a phase whose gradients are clipped to a norm."""
        ...


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Go back and leave text out where training jumps; ordinary runs are never that far from their own median."""

    window: int = 100
    """Steps that are looked back on; before there are as many only numbers that are not finite count."""
    loss: float = 20.0
    """Spreads above the median; at least twice the median, since a spread is a twentieth of it."""
    norm: float = 200.0
    """The same of the gradient norm; at least eleven times the median."""
    max_rollbacks: int = 3
    """Incidents after one checkpoint that end the training."""

    def __post_init__(self) -> None:
        check_range("Guard", 2, inf, window=self.window)
        check_range("Guard", 1, inf, max_rollbacks=self.max_rollbacks)
        check_range("Guard", 0, inf, loss=self.loss, norm=self.norm)

    def build(self, clip: float) -> "SpikeDetector":
        return SpikeDetector(self, clip)


@dataclass(frozen=True, kw_only=True)
class NoGuard:
    """A gradient that is not finite ends the training; anything else is taken."""

    @property
    def max_rollbacks(self) -> int:
        return 1

    def build(self, clip: float) -> "NoDetector":
        return NoDetector()


class SpikeDetector:
    """Looks at the numbers of a step and remembers those of the steps that it let pass."""

    def __init__(self, guard: Guard, clip: float):
        self._guard, self._clip = guard, clip
        self._stage = 0
        self._windows: dict[int, _Window] = {}

    def check(self, stage: int, variant: int, loss: float, norm: float) -> str | None:
        """Return what is wrong with a step, or None, which remembers it.

        Args:
            stage: the index of its stage; the losses of another one say nothing about this one's.
            variant: of the objective, each of which has losses of its own.
            loss: the objective's headline.
            norm: of the gradient, before it was clipped.
        """
        if not isfinite(norm) or not isfinite(loss):
            return f"the gradient is not finite (norm {norm:g}, loss {loss:g})"
        if stage != self._stage:
            self._stage = stage
            self._windows.clear()
        seen = self._windows.setdefault(variant, self._window())
        if len(seen.losses) == self._guard.window:
            most = max(_most(seen.losses, self._guard.loss), median(seen.losses) + RISE)
            if loss > most:
                return f"the loss jumped to {loss:.4g}, more than {most:.4g}"
            most = max(_most(seen.norms, self._guard.norm), CLIPS * self._clip)
            if norm > most:
                return f"the gradient norm jumped to {norm:.4g}, more than {most:.4g}"
        seen.losses.append(loss)
        seen.norms.append(norm)
        return None

    def _window(self) -> "_Window":
        return _Window(losses=deque(maxlen=self._guard.window), norms=deque(maxlen=self._guard.window))

    def tensors(self) -> dict[str, Tensor]:
        """Its state."""
        numbers = {
            f"{name}/{variant}": torch.tensor(list(values), dtype=torch.float64)
            for variant, window in self._windows.items()
            for name, values in window._asdict().items()
        }
        return {"stage": torch.tensor(self._stage)} | numbers

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from that state."""
        numbers = dict(tensors)
        if numbers:
            self._stage = int(numbers.pop("stage"))
        for key, values in numbers.items():
            name, _, variant = key.partition("/")
            getattr(self._windows.setdefault(int(variant), self._window()), name).extend(values.tolist())


class _Window(NamedTuple):
    """The last steps of one variant."""

    losses: deque[float]
    norms: deque[float]


class NoDetector:
    """Lets everything pass, for `Precision.step` to refuse what cannot be taken."""

    def check(self, stage: int, variant: int, loss: float, norm: float) -> str | None:
        return None

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None: ...


def _most(numbers: deque[float], deviations: float) -> float:
    middle = median(numbers)
    spread = max(median(abs(number - middle) for number in numbers), FLOOR * middle)
    return middle + deviations * spread
