"""A chart as the page draws it: curves become paths in a square of 1000 x 1000 that the page stretches."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lilliput.report.scale import Scale, labels, scale_over, short

SIDE = 1000
COLOURS = 8
"""Of the page's style."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    steps: Sequence[int]
    """Optimizer steps behind each point, for the read-out."""
    style: str = "line"
    """`line`, `faint` for single steps behind their mean, `dots` for rare measurements, `dashed` for their likes."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that happened."""

    x: float
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over one axis."""

    key: str
    """Unique on a page."""
    title: str
    unit: str
    """Of y."""
    curves: Sequence[Curve]
    across: str = "text tokens"
    """What x is."""
    marks: Sequence[Mark] = ()
    logarithmic: bool = False
    from_zero: bool = False
    steady: float = 0.0
    """Share of x at the beginning that the y axis need not have room for: the first steps would flatten the rest."""
    x_logarithmic: bool = False
    end: float = 0.0
    """The largest x at least."""
    lines: Sequence[tuple[str, float]] = field(default_factory=tuple)
    """Levels drawn across, by name."""

    def drawn(self) -> dict[str, Any]:
        """What the template needs: paths, ticks in percent, and the points for the read-out as JSON."""
        x, y = self._scales()
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "across": self.across,
            "logarithmic": self.logarithmic,
            "curves": [
                self._curve(curve, x, y, place) for place, curve in zip(self._colours(), self.curves, strict=True)
            ],
            "x_ticks": _ticks(x, flipped=False),
            "y_ticks": _ticks(y, flipped=True),
            "lines": [{"name": name, "at": SIDE * (1 - y.place(value))} for name, value in self.lines],
            "marks": [
                {"at": 100 * x.place(mark.x), "kind": mark.kind, "text": mark.text}
                for mark in self.marks
                if -0.001 <= x.place(mark.x) <= 1.001
            ],
            "data": self._data(x, y),
        }

    def _colours(self) -> list[int]:
        """A colour a curve: a faint one has that of the next, which is its mean, a dashed one that of the last."""
        own = [curve.style not in ("faint", "dashed") for curve in self.curves]
        dashed = [curve.style == "dashed" for curve in self.curves]
        return [(sum(own[:place]) - dashed[place]) % COLOURS for place in range(len(own))]

    def _scales(self) -> tuple[Scale, Scale]:
        across = [value for curve in self.curves for value in curve.x]
        end = max(across, default=1.0) if self.x_logarithmic else max(self.end, *across, 1.0)
        x = scale_over(across, logarithmic=True) if self.x_logarithmic else Scale(low=0.0, high=1.015 * end or 1.0)
        late = [
            value
            for curve in self.curves
            for at, value in zip(curve.x, curve.y, strict=True)
            if at >= self.steady * end
        ]
        late += [value for _, value in self.lines]
        return x, scale_over(late, logarithmic=self.logarithmic, from_zero=self.from_zero)

    def _curve(self, curve: Curve, x: Scale, y: Scale, colour: int) -> dict[str, Any]:
        points = [
            (SIDE * x.place(at), SIDE * (1 - y.place(value)))
            for at, value in zip(curve.x, curve.y, strict=True)
            if math.isfinite(value)
        ]
        line = "M" + "L".join(f"{at:.1f} {_within(value):.1f}" for at, value in points) if points else ""
        dots = "".join(f"M{at:.1f} {_within(value):.1f}h0" for at, value in points) if curve.style == "dots" else ""
        return {
            "name": curve.name,
            "style": curve.style,
            "colour": colour,
            "line": line,
            "dots": dots,
            "points": len(points),
            "last": short(curve.y[-1]) if len(curve.y) else "",
        }

    def _data(self, x: Scale, y: Scale) -> str:
        plain = {
            "x": [x.low, x.high, x.logarithmic],
            "y": [y.low, y.high, y.logarithmic],
            "curves": [
                {
                    "name": curve.name,
                    "x": [_rounded(value) for value in curve.x],
                    "y": [_rounded(value) for value in curve.y],
                    "step": list(curve.steps),
                }
                for curve in self.curves
            ],
        }
        return json.dumps(plain, separators=(",", ":")).replace("<", "\\u003c")  # cannot end its element


def _ticks(scale: Scale, *, flipped: bool) -> list[dict[str, Any]]:
    ticks = scale.ticks()
    places = [100 * ((1 - scale.place(tick)) if flipped else scale.place(tick)) for tick in ticks]
    return [{"at": round(place, 3), "label": label} for place, label in zip(places, labels(ticks), strict=True)]


def _within(value: float) -> float:
    """Not so far outside of the picture that a browser would lose precision."""
    return min(max(value, -10.0 * SIDE), 11.0 * SIDE)


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
