"""Scales: where on an axis a value lies, which values are marked on it, and how they are written."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

MARKED = 5
"""About so many ticks on an axis."""
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis from `low` to `high`; both above 0 where it is logarithmic."""

    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one, outside of it beyond; finite for any value."""
        if self.logarithmic:
            value = max(value, self.low * 1e-6)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values within the axis, in order."""
        powers = self._powers() if self.logarithmic else []
        if len(powers) >= 3:
            return powers
        step = _round((self.high - self.low) / MARKED)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _powers(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5)):
            found = [digit * 10.0**decade for decade in decades for digit in digits]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) >= 3:
                break
        return found[:: max(1, math.ceil(len(found) / (MARKED + 2)))]


def scale_over(values: Iterable[float], *, logarithmic: bool = False, from_zero: bool = False) -> Scale:
    """An axis with room for all of these values that are finite (and, on a logarithmic one, above 0)."""
    good = [value for value in values if math.isfinite(value) and (value > 0 or not logarithmic)]
    low, high = (min(good), max(good)) if good else (1.0, 10.0)
    if logarithmic:
        room = max((high / low) ** 0.05, 1.1)
        return Scale(low=low / room, high=high * room, logarithmic=True)
    low = min(low, 0.0) if from_zero else low
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low=low if from_zero else low - room, high=high + room)


def labels(ticks: list[float]) -> list[str]:
    """The ticks of one axis, written with as many digits as tell them apart and no more."""
    for digits in range(1, 8):
        texts = [short(tick, digits) for tick in ticks]
        if len(set(texts)) == len(texts) and all(
            math.isclose(_read(text), tick, rel_tol=1e-6, abs_tol=1e-12)
            for text, tick in zip(texts, ticks, strict=True)
        ):
            return texts
    return [short(tick, 4) for tick in ticks]


def short(value: float, digits: int = 4) -> str:
    """A number to so many digits, thousands and more with a letter: `2.04`, `614k`, `1.23M`, `2e-05`."""
    if not math.isfinite(value):
        return str(value)
    value = float(f"{value:.{digits}g}")
    for size, letter in UNITS:
        if abs(value) >= size:
            return f"{float(f'{value / size:.{digits}g}'):.{max(digits, 4)}g}{letter}"
    return f"{value:g}"


def _read(text: str) -> float:
    size = next((size for size, letter in UNITS if text.endswith(letter)), 1.0)
    return float(text.rstrip("TBMk")) * size


def _round(step: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, near `step` and not below it."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= step * (1 - 1e-9))
