"""Generated arithmetic: right results, and evaluation items that the corpus can never contain."""

import ast
import re
from collections import Counter

import pytest
from tiny_corpora import corpus_hash

from lilliput.base.errors import RecipeError
from lilliput.data.corpora.arithmetic import LARGEST, LIMIT, SMALLEST, Arithmetic, arithmetic_items

CORPUS = "4fe3e9560799"
"""Start of the hash of the first fifty documents."""
OPERATOR = re.compile(r" ([-+*/]) ")


def lines_of(count: int, seed: int = 0) -> list[str]:
    return [line for document in Arithmetic(count=count, seed=seed).documents() for line in document.text.split("\n")]


def value_of(expression: str) -> int:
    """The value by Python's own reading of the text; every division must be exact."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(int(number)):
                return number
            case ast.UnaryOp(ast.USub(), operand):
                return -value(operand)
            case ast.BinOp(left, ast.Div(), right):
                quotient, rest = divmod(value(left), value(right))
                assert rest == 0, f"{expression} is not exact"
                return quotient
            case ast.BinOp(left, symbol, right):
                return {ast.Add: int.__add__, ast.Sub: int.__sub__, ast.Mult: int.__mul__}[type(symbol)](
                    value(left), value(right)
                )
        raise AssertionError(expression)

    return value(ast.parse(expression, mode="eval").body)


def canonical(expression: str) -> str:
    """One form for a + b and b + a, likewise for *, written without the code under test."""
    match = re.fullmatch(r"(-?\d+) ([+*]) (-?\d+)", expression)
    return expression if not match else match[2].join(sorted((match[1], match[3])))


def test_every_line_is_right_and_in_range() -> None:
    lines = lines_of(1500)
    counts = Counter(len(OPERATOR.findall(line)) for line in lines)
    assert set(counts) == {1, 2, 3} and counts[1] > 0.5 * len(lines)
    for line in lines:
        expression, result = line.split(" = ")
        assert value_of(expression) == int(result), line
        assert abs(int(result)) <= LIMIT
        assert all(SMALLEST <= int(number) <= LARGEST for number in re.findall(r"(?<!\d)-?\d+", expression)), line
    assert set("".join(lines)) <= set("0123456789-+*/()= "), "plain characters only"
    assert any("(" in line for line in lines)
    symbols = Counter(OPERATOR.findall("\n".join(lines)))
    assert min(symbols.values()) > 0.15 * symbols.total()


def test_evaluation_items_never_occur_in_the_corpus() -> None:
    trained = {canonical(line.split(" = ")[0]) for seed in range(3) for line in lines_of(3000, seed)}
    items = {canonical(item["ctx"].removesuffix(" =")) for seed in range(3) for item in arithmetic_items(2500, seed)}
    assert len(trained) > 50_000 and len(items) > 4_000
    assert not trained & items
    held = sum(item.count(" ") < 3 for item in items)
    known = {item for item in trained if item.count(" ") < 3}
    assert held > 500 and len(known) > 9 * 500, "short expressions, of which the corpus sees most, are on both sides"


def test_items_have_the_form_of_the_benchmark() -> None:
    items = arithmetic_items(4000, seed=1)
    assert len({item["ctx"] for item in items}) == 4000
    for item in items:
        assert set(item) == {"ctx", "endings", "label", "operators"}
        expression = item["ctx"].removesuffix(" =")
        assert item["operators"] == len(OPERATOR.findall(expression)) and item["ctx"].endswith(" =")
        assert len(set(item["endings"])) == 4
        assert all(re.fullmatch(r" -?\d+", ending) for ending in item["endings"])
        assert value_of(expression) == int(item["endings"][item["label"]])
    labels = Counter(item["label"] for item in items)
    assert all(abs(labels[label] - 1000) < 110 for label in range(4)), labels
    ranks = Counter(sorted(map(int, item["endings"])).index(int(item["endings"][item["label"]])) for item in items)
    assert min(ranks.values()) > 300, f"the right answer must not be told by its rank: {ranks}"
    assert min(Counter(item["operators"] for item in items).values()) > 500


def test_the_same_seed_gives_the_same_text_everywhere() -> None:
    assert corpus_hash(Arithmetic(count=50).documents()).startswith(CORPUS)
    assert not corpus_hash(Arithmetic(count=50, seed=1).documents()).startswith(CORPUS)
    short, long = (list(Arithmetic(count=count, lines=3).documents()) for count in (5, 9))
    assert short == long[:5] and all(document.text.count("\n") == 2 for document in long)
    assert len({document.group for document in long}) == 9
    assert arithmetic_items(30, 0) == arithmetic_items(60, 0)[:30] != arithmetic_items(30, 1)


def test_empty_corpora_are_refused() -> None:
    for wrong in ({"count": 0}, {"count": 3, "lines": 0}):
        with pytest.raises(RecipeError, match="is 0"):
            Arithmetic(**wrong)
