"""Scores as somebody quotes them, and what of them cannot be: no count of right answers, two values for one figure."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from lilliput.data.attainable import COUNTED, QUESTIONS, objection

FIGURE = re.compile(r"\d+(\.\d+)?")
APPROXIMATE = "~"
"""Before a figure that is given as about right."""
AMBIGUOUS = {"Winograd": ("Winograd (WSC273)", "Winograd (SuperGLUE WSC)")}
"""Benchmarks that a name may stand for."""


@dataclass(frozen=True, kw_only=True)
class QuotedRow:
    """The scores of a model."""

    model: str
    scores: tuple[str | None, ...]
    """In percent and as they are written, one a column; None for an empty cell."""
    harness: str
    """With which they were measured, as far as the source names it."""
    company: str = ""
    tokens: str | None = None
    """Training tokens, as they are written; None if the source does not say."""
    parameters: str | None = None
    """Parameters, as they are written; None if the table does not have them."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class QuotedTable:
    """A table of scores."""

    columns: Mapping[str, str]
    """By heading, the figure below it: a benchmark and a metric, as in "HellaSwag/acc_norm", or an average."""
    rows: tuple[QuotedRow, ...]
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By the heading of an average, the weights of the other columns in it."""

    @property
    def harnesses(self) -> tuple[str, ...]:
        """The harnesses of the table, each once."""
        return tuple(dict.fromkeys(row.harness for row in self.rows))


@dataclass(frozen=True, kw_only=True)
class QuotedCard:
    """Figures of a card that can be held against each other."""

    tables: tuple[QuotedTable, ...]
    tokens: float | None = None
    """Training tokens."""
    events: Mapping[str, float] = field(default_factory=dict)
    """Tokens after which something is said to happen during training, by what it is."""


def contradictions(card: QuotedCard) -> list[str]:
    """Say what cannot be, or is said in two ways; one sentence each."""
    found = [text for table in card.tables for text in _of_table(table)]
    found += _said_twice(card.tables)
    for event, after in card.events.items():
        if card.tokens is not None and after > card.tokens:
            found.append(f"{event} after {after / 1e9:g}B tokens, of {card.tokens / 1e9:g}B in all")
    return found


def _of_table(table: QuotedTable) -> Iterator[str]:
    for row in table.rows:
        for (heading, figure), score in zip(table.columns.items(), row.scores, strict=True):
            if score is None:
                continue
            name, value = f"{heading} of {row.model}", score.removeprefix(APPROXIMATE)
            if not FIGURE.fullmatch(value):
                yield f"{name} is {score!r}, which is no figure"
            elif value == score and (why := _unattainable(figure, score)):
                yield f"{name}: {why}"
        for heading, weights in table.weights.items():
            scores = dict(zip(table.columns, row.scores, strict=True))
            yield from _of_average(row.model, heading, scores, weights)


def _unattainable(figure: str, score: str) -> str | None:
    """Why a score is none that a benchmark can give; of a name for several, which of them it is not."""
    benchmark, _, metric = figure.partition("/")
    if benchmark in AMBIGUOUS:
        whys = {name: objection(score, QUESTIONS[name]) for name in AMBIGUOUS[benchmark]}
        fitting = [name for name, why in whys.items() if why is None]
        others = "; ".join(f"not {name}, {why}" for name, why in whys.items() if why)
        return f"it can be {' or '.join(fitting) or 'neither'}, {others}" if others else None
    if benchmark not in QUESTIONS or metric not in COUNTED:
        return None
    return objection(score, QUESTIONS[benchmark])


def _of_average(model: str, heading: str, scores: Mapping[str, str | None], weights: Mapping[str, float]) -> list[str]:
    parts, said = [scores[name] for name in weights], scores[heading]
    if said is None or any(part is None or not FIGURE.fullmatch(part) for part in parts):
        return []
    decimals = len(said.partition(".")[2])
    value = sum(weight * float(part or 0) for weight, part in zip(weights.values(), parts, strict=True))
    slack = 10.0**-decimals  # half a unit of its own last digit, and half a one of its parts'
    if math.isclose(float(said), value, abs_tol=slack + 1e-9):
        return []
    return [f"{heading} of {model} is {said}, its parts give {value:.{decimals}f}"]


def _said_twice(tables: Sequence[QuotedTable]) -> Iterator[str]:
    """Figures of one model with two values, whichever table they are in."""
    known: dict[tuple[str, str], list[str]] = {}
    for table in tables:
        for row in table.rows:
            for figure, score in zip(table.columns.values(), row.scores, strict=True):
                if score is not None and FIGURE.fullmatch(score):
                    known.setdefault((row.model, figure), []).append(score)
    for (model, figure), scores in known.items():
        for one, other in combinations(dict.fromkeys(scores), 2):
            digits = min(len(text.partition(".")[2]) for text in (one, other))
            if not math.isclose(float(one), float(other), abs_tol=0.5 * 10.0**-digits + 1e-9):
                yield f"{figure.partition('/')[0]} of {model} is both {one}% and {other}%"
