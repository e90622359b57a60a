"""Generated integer arithmetic: a corpus of worked lines, and look-alike ArithMark-2.0 items it can never contain.

Lines read "59 + 45 = 104": one to three of the operators + - * /, integers from -20 to 100, brackets where the order
needs them, every division exact. A fixed hash of the expression puts a tenth of all expressions on the evaluation
side: `arithmetic_items` draws from there only, the corpus skips them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lilliput.base.errors import RecipeError
from lilliput.data.documents import Document
from lilliput.data.split import fraction_of

SMALLEST, LARGEST = -20, 100
"""The integers that expressions are made of."""
LIMIT = 10_000
"""No result, final or between, is larger in size."""
EVALUATION_SHARE = 0.1
"""Share of all expressions that only evaluation items use."""
OPERATORS = (0.6, 0.25, 0.15)
"""Shares of the corpus lines with one, two and three operators."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """A corpus of worked lines, most of them with one operator."""

    count: int
    """Documents."""
    lines: int = 12
    """Lines a document."""
    seed: int = 0
    is_seekable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("count", "lines"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"{name} is {getattr(self, name)}", where=f"Arithmetic.{name}", hint="give a whole number above 0"
                )

    def identity(self) -> None:
        """The spec says it all."""

    def documents(self) -> Iterator[Document]:
        """Yield the documents; each is drawn on its own, so the first ones do not depend on their number."""
        return (document for document, _ in self.iterate_from())

    def iterate_from(self, after: int | None = None) -> Iterator[tuple[Document, int]]:
        """The same with marks: how many there were."""
        for number in range(after or 0, self.count):
            draw = random.Random(f"arithmetic/{self.seed}/{number}")
            lines: list[str] = []
            while len(lines) < self.lines:
                chance = draw.random()
                expression = _expression(draw, 1 + (chance >= OPERATORS[0]) + (chance >= OPERATORS[0] + OPERATORS[1]))
                if not is_evaluation(expression):
                    lines.append(f"{expression.text} = {expression.value}")
            name = f"arithmetic/{self.seed}/{number}"
            yield Document("\n".join(lines), name, name), number + 1

    def fraction_read(self) -> Callable[[int], float]:
        """Return the progress at a mark."""
        return lambda mark: mark / self.count


def arithmetic_items(count: int, seed: int) -> list[dict[str, Any]]:
    """Distinct evaluation items in the form of ArithMark-2.0, to be reported as `arithmark2-synthetic`.

    Returns:
        Dicts of `ctx` ("59 + 45 ="), `endings` (four texts with a leading space), `label` (index of the right one)
        and `operators` (1 to 3, equally likely until the short expressions run out).
    """
    draw = random.Random(f"arithmark2-synthetic/{seed}")
    items: dict[str, dict[str, Any]] = {}
    while len(items) < count:
        expression = _expression(draw, 1 + _below(draw, 3))
        if expression.text in items or not is_evaluation(expression):
            continue
        offsets: list[int] = []
        while len(offsets) < 3:
            offset = (1 + _below(draw, 10)) * (1 if draw.random() < 0.5 else -1)
            if offset not in offsets:
                offsets.append(offset)
        label = _below(draw, 4)
        offsets.insert(label, 0)
        items[expression.text] = {
            "ctx": f"{expression.text} =",
            "endings": [f" {expression.value + offset}" for offset in offsets],
            "label": label,
            "operators": expression.operators,
        }
    return list(items.values())


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression as text, with its value."""

    text: str
    value: int
    symbol: str = ""
    """The operator applied last; "" for a number."""
    operators: int = 0
    operands: tuple[str, ...] = ()
    """Texts to the left and right of the last operator."""


def is_evaluation(expression: Expression) -> bool:
    """Return whether only evaluation may use it; "3 + 4" and "4 + 3" are one expression here, likewise for *."""
    key = expression.text
    if expression.operators == 1 and expression.symbol in "+*":
        key = f" {expression.symbol} ".join(sorted(expression.operands))
    return fraction_of(f"arithmark2-synthetic\0{key}") < EVALUATION_SHARE


def _expression(draw: random.Random, operators: int) -> Expression:
    """A random expression with so many operators, redrawn until every division is exact and no result too large."""
    while True:
        expression = _attempt(draw, operators)
        if expression is not None:
            return expression


def _attempt(draw: random.Random, operators: int) -> Expression | None:
    if operators == 0:
        return _number(draw)
    symbol = "+-*/"[_below(draw, 4)]
    rest = operators - 1
    left_operators = rest if symbol == "/" or draw.random() < 0.7 else _below(draw, operators)
    left = _dividend(draw) if symbol == "/" and not left_operators else _attempt(draw, left_operators)
    if left is None:
        return None
    if symbol == "/":
        right = _divisor(draw, left.value)
    elif symbol == "*" and rest == left_operators:
        right = _leaf(_below(draw, 25) - 12)
    else:
        right = _attempt(draw, rest - left_operators)
    return None if right is None else _joined(left, symbol, right, operators)


def _joined(left: Expression, symbol: str, right: Expression, operators: int) -> Expression | None:
    match symbol:
        case "+":
            value = left.value + right.value
        case "-":
            value = left.value - right.value
        case "*":
            value = left.value * right.value
        case _:
            value = left.value // right.value
    if abs(value) > LIMIT:
        return None
    left_text = f"({left.text})" if _STRENGTH[left.symbol] < _STRENGTH[symbol] else left.text
    weaker = _STRENGTH[right.symbol] < _STRENGTH[symbol]
    same = right.symbol != "" and _STRENGTH[right.symbol] == _STRENGTH[symbol]
    right_text = f"({right.text})" if weaker or same else right.text
    return Expression(f"{left_text} {symbol} {right_text}", value, symbol, operators, (left_text, right_text))


_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2, "": 3}


def _number(draw: random.Random) -> Expression:
    """A third of the numbers are from 0 to 20, the others from the whole range."""
    return _leaf(_below(draw, 21) if draw.random() < 1 / 3 else SMALLEST + _below(draw, LARGEST - SMALLEST + 1))


def _dividend(draw: random.Random) -> Expression:
    """A number with a divisor from 2 to 12, so that division is as frequent as the other operators."""
    divisor = 2 + _below(draw, 11)
    lowest, highest = -(-SMALLEST // divisor), LARGEST // divisor
    return _leaf(divisor * (lowest + _below(draw, highest - lowest + 1)))


def _divisor(draw: random.Random, value: int) -> Expression | None:
    """A number that divides the value exactly; 1 and -1 only where nothing else does."""
    divisors = [number for number in range(SMALLEST, 21) if abs(number) > 1 and value % number == 0]
    divisors = [number for number in divisors if number > 0 or draw.random() < 0.2] or [1]
    return _leaf(divisors[_below(draw, len(divisors))])


def _leaf(value: int) -> Expression:
    return Expression(str(value), value)


def _below(draw: random.Random, limit: int) -> int:
    """A whole number from 0 to below the limit, by the one method whose sequence no Python version changes."""
    return int(draw.random() * limit)
