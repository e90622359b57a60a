"""The precision of a step: of its products, and of what keeps gradients in fp16's range.

fp16 ends at 65,504 and loses bits below 6e-5. So the loss is multiplied by a power of two before backward, and the
gradients are divided by it after, in fp32:

    gradient not finite: the step is skipped and the scale halved
    2,000 steps taken in a row: the scale is doubled, up to 2^16

A skipped step changes nothing else, but its data has been read. Weights, gradients and the optimizer's state are fp32
in every precision.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor, nn

from lilliput.base.errors import DivergenceError
from lilliput.train.fp16_range import ActivationRange, watch_activations
from lilliput.train.grad_clip import GradientClipper, NormOf, l2_norm

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_SCALE = 2.0**16
"""The first one, too."""
GROWS_AFTER = 2_000
"""Steps taken in a row after which the scale is doubled."""
PATIENCE = 20
"""Steps skipped in a row that end the training: no scale helps any more."""
LOOKS_EVERY = 100
"""Steps between two looks at the activations, which cost a pass over them."""


def autocast(device: str, precision: str) -> AbstractContextManager:
    """The context in which products are made in a precision."""
    narrow = PRECISIONS[precision]
    return torch.autocast(torch.device(device).type, dtype=narrow, enabled=narrow != torch.float32)


class Precision(Protocol):
    """Precision of a step: how it handles the range of its numbers."""

    @property
    def due(self) -> bool:
        """Return whether the next forward pass is watched, so that it has to run eagerly."""
        ...

    @property
    def skips_nonfinite(self) -> bool:
        """Return whether `step` skips a gradient that is not finite, instead of raising."""
        ...

    def cast(self) -> AbstractContextManager:
        """The context of one forward pass of training."""
        ...

    def scale(self, loss: Tensor) -> Tensor:
        """Return what to differentiate for a loss; `clip` divides gradients by the factor."""
        ...

    def reset_step(self) -> None:
        """The same step is made again from its first micro-batch on, as if there had been no passes yet."""
        ...

    def clip(self, max_norm: float, norm_of: NormOf = l2_norm) -> dict[str, Tensor]:
        """Make gradients those of the loss itself, of an l2 norm of `max_norm` at most; see `GradientClipper.clip`."""
        ...

    def step(self, update: Callable[[], object], norm: float, where: str) -> bool:
        """Take the step, for all parameters or for none.

        Args:
            update: moves every parameter that has a gradient.
            norm: of the gradients, `clip`'s `grad_norm`.
            where: the step, for the error.

        Returns:
            whether it was taken.

        Raises:
            DivergenceError: gradients are not finite, and nothing here can mend that.
        """
        ...

    def metrics(self) -> dict[str, float]:
        """Return what to record of the step just taken."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Its state."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from that state."""
        ...


def precision_of(device: str, precision: str, model: nn.Module) -> Precision:
    """fp16 scales the loss; fp32 and bf16 have range enough."""
    return ScaledPrecision(device, model) if precision == "fp16" else WidePrecision(device, precision, model)


class WidePrecision:
    """fp32, or bf16, which has the range of fp32."""

    skips_nonfinite = False

    def __init__(self, device: str, precision: str, model: nn.Module):
        self._device, self._precision, self._gradients = device, precision, GradientClipper(model)

    @property
    def due(self) -> bool:
        return False

    def cast(self) -> AbstractContextManager:
        return autocast(self._device, self._precision)

    def scale(self, loss: Tensor) -> Tensor:
        return loss

    def reset_step(self) -> None: ...

    def clip(self, max_norm: float, norm_of: NormOf = l2_norm) -> dict[str, Tensor]:
        return self._gradients.clip(max_norm, norm_of)

    def step(self, update: Callable[[], object], norm: float, where: str) -> bool:
        if not isfinite(norm):
            raise DivergenceError(
                "the gradient is not finite",
                where=where,
                hint="earlier checkpoints are intact; lower the learning rate and start the phase again",
            )
        with self.cast():  # an optimizer that multiplies matrices does so in the machine's precision
            update()
        return True

    def metrics(self) -> dict[str, float]:
        return {}

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None: ...


@dataclass
class Scaling:
    """Loss scale and its history; all numbers are exact in fp64."""

    scale: float = LARGEST_SCALE
    taken: int = 0
    """Steps."""
    skipped: int = 0
    taken_in_a_row: int = 0
    """Since the scale changed."""
    skipped_in_a_row: int = 0

    def take(self) -> None:
        """After a step that was taken."""
        self.taken += 1
        self.skipped_in_a_row = 0
        self.taken_in_a_row += 1
        if self.taken_in_a_row == GROWS_AFTER:
            self.scale, self.taken_in_a_row = min(2 * self.scale, LARGEST_SCALE), 0

    def skip(self) -> None:
        """After a step that was not."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        self.scale, self.taken_in_a_row = self.scale / 2, 0


class ScaledPrecision:
    """fp16 with a scaled loss."""

    skips_nonfinite = True

    def __init__(self, device: str, model: nn.Module):
        self._device, self._model, self._gradients = device, model, GradientClipper(model)
        self._scaling = Scaling()
        # What losses are multiplied by is read on the device, so that a recorded pass follows it.
        self._factor = torch.tensor(self._scaling.scale, device=device)
        self.due = True
        self._seen: ActivationRange | None = None

    @contextmanager
    def cast(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.due:
                self.due, self._seen = False, stack.enter_context(watch_activations())
            stack.enter_context(autocast(self._device, "fp16"))
            yield

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self._factor

    def reset_step(self) -> None:
        self._seen = None
        self._follow()

    def clip(self, max_norm: float, norm_of: NormOf = l2_norm) -> dict[str, Tensor]:
        torch._foreach_mul_(self._gradients.all(), 1 / self._scaling.scale)
        return self._gradients.clip(max_norm, norm_of)

    def step(self, update: Callable[[], object], norm: float, where: str) -> bool:
        taken = isfinite(norm)
        if taken:
            with autocast(self._device, "fp16"):
                update()
            self._scaling.take()
        else:
            self._scaling.skip()
        if self._scaling.skipped_in_a_row == PATIENCE:
            raise self._out_of_range(where)
        self._follow()
        return taken

    def metrics(self) -> dict[str, float]:
        seen, self._seen = self._seen, None
        found = {"loss_scale": self._scaling.scale, "skipped": self._scaling.skipped}
        return found | ({"headroom": seen.value()} if seen else {})

    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.tensor(float(value), dtype=torch.float64) for name, value in asdict(self._scaling).items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        numbers = {name: value.item() for name, value in tensors.items()}
        scale = numbers.pop("scale", LARGEST_SCALE)
        self._scaling = Scaling(scale=scale, **{name: int(number) for name, number in numbers.items()})
        self._follow()

    def _follow(self) -> None:
        """Scale as is said now, and look at activations every so often, and after a skip to say why."""
        self._factor.fill_(self._scaling.scale)
        self.due = self._scaling.taken % LOOKS_EVERY == 0 or self._scaling.skipped_in_a_row > 0

    def _out_of_range(self, where: str) -> DivergenceError:
        gradients = ((name, parameter.grad) for name, parameter in self._model.named_parameters())
        found = (name for name, gradient in gradients if gradient is not None and not gradient.isfinite().all())
        first = next(found, "all parameters together")
        seen = f" and activations of up to {self._seen.largest():.4g} (fp16 ends at 65,504)" if self._seen else ""
        return DivergenceError(
            f"the gradient was not finite {PATIENCE} times in a row, last that of {first} with a loss scale of "
            f"{2 * self._scaling.scale:g}{seen}",
            where=where,
            hint="earlier checkpoints are intact; start another run on a machine with precision bf16 or fp32, or "
            "with a lower learning rate",
        )
