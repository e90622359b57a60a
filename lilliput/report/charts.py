"""Charts: series of points over two axes, placed in percent of a square that is stretched to fit.

`chart.html.jinja` draws a chart on a page, `chart_png.py` as a picture. Where a point lies, which ticks there are and
how they are labeled is decided here for both.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

FARTHEST = 1_000.0
"""Percent outside of the square at most; a browser would lose precision farther out."""
TICKS = 5
"""About so many on an axis of a page."""
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The range of an axis, from `low` to `high`; both above 0 if it is logarithmic."""

    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Scale a value to the axis: 0 at the low end, 1 at the high one, beyond these outside; always finite."""
        if self.logarithmic:
            value = max(value, self.low * 1e-6)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = TICKS) -> list[float]:
        """Round values within the range, in order, about so many."""
        powers = self._powers(about) if self.logarithmic else []
        if len(powers) >= 3:
            return powers
        step = _round((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _powers(self, about: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5)):
            found = [digit * 10.0**decade for decade in decades for digit in digits]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) >= 3:
                break
        return found[:: max(1, math.ceil(len(found) / (about + 2)))]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Axis of a chart, whose range follows from the values."""

    label: str
    logarithmic: bool = False
    from_zero: bool = False
    room: float = 0.06
    """Share of the values' range that stays free beyond them, if the axis is not logarithmic."""
    includes: Sequence[float] = ()
    """Values that it has room for, besides those of the series."""
    skips: float = 0.0
    """Share of the other axis at whose beginning values need no room: the first steps would flatten the rest."""
    names: Mapping[float, str] | None = None
    """The ticks and their labels; by default round numbers."""

    def scale(self, values: Iterable[float]) -> Scale:
        """The range with room for all of these values that are finite (and above 0 on a logarithmic axis)."""
        good = [
            value for value in (*values, *self.includes) if math.isfinite(value) and (value > 0 or not self.logarithmic)
        ]
        low, high = (min(good), max(good)) if good else (1.0, 10.0)
        if self.logarithmic:
            room = max((high / low) ** 0.05, 1.1)
            return Scale(low=low / room, high=high * room, logarithmic=True)
        low = min(low, 0.0) if self.from_zero else low
        room = self.room * (high - low) if low < high else 0.05 * abs(high) or 1.0
        return Scale(low=low if self.from_zero else low - room, high=high + room)

    def ticks(self, scale: Scale, about: int) -> list[tuple[float, str]]:
        """The ticks with their labels."""
        if self.names is not None:
            return list(self.names.items())
        ticks = scale.ticks(about)
        return list(zip(ticks, tick_labels(ticks), strict=True))


TOKENS = Axis(label="text tokens", from_zero=True, room=0.015)
"""Axis of training curves."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one color."""

    name: str
    """Without one it is not in the legend."""
    x: Sequence[float]
    y: Sequence[float]
    steps: Sequence[int] = ()
    """Optimizer steps behind each point, for the read-out of a page."""
    color: int = 0
    """A number; the page and the picture have eight colors each."""
    style: str = "line"
    """`line`, `faint` for single steps behind their mean, `dots` for rare measurements, `dashed` for their likes; in a
    picture also `single` for dots without a line, and `seeds` for small ones."""
    half_widths: Sequence[float] = ()
    """Half widths of an interval around each y."""
    shift: float = 0.0
    """Share of the x axis by which the points are moved, to be seen beside others at the same x."""
    tells_last: bool = True
    """False for a distribution, whose last value is nothing to look for."""

    @property
    def last(self) -> str:
        """The last value, as the legend says it."""
        return short(self.y[-1]) if len(self.y) and self.tells_last else ""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that happened."""

    x: float
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Series over two axes."""

    key: str
    """Unique on a page."""
    title: str
    x: Axis = TOKENS
    y: Axis
    series: Sequence[Series]
    marks: Sequence[Mark] = ()
    levels: Sequence[float] = ()
    """Values of y that are drawn across."""

    @cached_property
    def scales(self) -> tuple[Scale, Scale]:
        """The ranges of both axes."""
        x = [value for series in self.series for value in series.x]
        first = self.y.skips * max(x, default=0.0)
        points = [point for series in self.series for point in zip(series.x, series.y, strict=True)]
        return self.x.scale(x), self.y.scale([*(value for at, value in points if at >= first), *self.levels])

    def left(self, x: float, shift: float = 0.0) -> float:
        """Return where x lies, in percent from the left."""
        return _percent(self.scales[0].place(x) + shift)

    def top(self, y: float) -> float:
        """Return where y lies, in percent from the top."""
        return _percent(1 - self.scales[1].place(y))

    def points(self, series: Series) -> list[tuple[float, float]]:
        """Return where those points of a series lie that are finite, in percent from the left and from the top."""
        return [
            (self.left(x, series.shift), self.top(y))
            for x, y in zip(series.x, series.y, strict=True)
            if math.isfinite(y)
        ]

    def intervals(self, series: Series) -> list[tuple[float, float, float]]:
        """Return the intervals of a series: in percent from the left, and of their ends from the top."""
        pairs = zip(series.x, series.y, series.half_widths, strict=bool(series.half_widths))
        return [(self.left(x, series.shift), self.top(y + half), self.top(y - half)) for x, y, half in pairs if half]

    def x_ticks(self, about: int = TICKS) -> list[tuple[float, str]]:
        """The ticks of x in percent from the left, with their labels."""
        return [(self.left(value), label) for value, label in self.x.ticks(self.scales[0], about)]

    def y_ticks(self, about: int = TICKS) -> list[tuple[float, str]]:
        """The ticks of y in percent from the top, with their labels."""
        return [(self.top(value), label) for value, label in self.y.ticks(self.scales[1], about)]

    @property
    def data(self) -> str:
        """The points and the range of x as JSON, for the read-out of a page."""
        x = self.scales[0]
        points = [
            {"x": list(map(_rounded, series.x)), "y": list(map(_rounded, series.y)), "step": list(series.steps)}
            for series in self.series
        ]
        plain = {"x": [x.low, x.high, x.logarithmic], "series": points}
        return json.dumps(plain, separators=(",", ":"))


def tick_labels(ticks: Sequence[float]) -> list[str]:
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


def _percent(share: float) -> float:
    return round(min(max(100 * share, -FARTHEST), FARTHEST), 2)


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
