"""A card compared with the one that its record makes: row by row, field by field, figure by figure.

Rows of tables and the scores of the front matter (`model-index`) are the record's alone. In other lines the words are
free, and the record's figures stand.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

FIGURE = re.compile(
    r"(?<!\w)[-+−–]?\w*\d(?:[.,]?\w)*"  # a sign and digits; letters for hashes and names, too
    r"(?:(?<=[eE])[-+]\d+)?"  # exponent
    r"(?: ?%)?(?: [^\W\d_]+)?"  # unit, in words the next one
)
"""A number as cards write it, with its sign, its exponent and its unit."""
FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?\n)---[ \t]*(?:\n|\Z)", re.DOTALL)
SCORES = "model-index"
"""The field of the front matter that the Hub reads scores from."""
ROW = re.compile(r"[\s>]*\|.*\w|.*<(?:table|thead|tbody|tfoot|caption|tr|td|th)\b", re.IGNORECASE)
"""A row of a table in HTML, or what looks like one where Markdown has none, in deep indentation."""
NEAR = 0.6
"""Likeness, from 0 to 1, above which a line is an edited one and no other."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences between a card and the one that its record makes."""

    figures: int
    """Numbers that stand as the record has them."""
    altered: tuple[str, ...]
    """Rows, scores and figures that differ from the record's, are gone, or were added."""
    added: tuple[str, ...]
    """Other lines with numbers that somebody added: nothing traces these."""


@dataclass(frozen=True, kw_only=True)
class CardLine:
    """A line of a card, a row of a table, or a value in the front matter."""

    number: int
    text: str
    cells: tuple[str, ...] = ()
    """Cells of a row, or path and value of a score; empty for what people may edit."""
    columns: tuple[str, ...] = ()
    """Names of the cells, from the head of the table."""

    @property
    def figures(self) -> list[str]:
        return FIGURE.findall(self.text)

    @property
    def is_row(self) -> bool:
        """True where the words are the record's, as the figures are."""
        return bool(self.cells or ROW.match(self.text))

    @property
    def key(self) -> tuple[str, ...] | str:
        """Content by which lines are equal, wherever they stand."""
        return self.cells or self.text

    def __str__(self) -> str:
        return f"line {self.number}: {_short(self.text)}"


def compare(card: str, fresh: str) -> Comparison:
    """Compare a card with a fresh one of the same record.

    Args:
        card: as it is published, perhaps edited.
        fresh: as the record makes it. Lines of both end in a line feed alone.

    Raises:
        yaml.YAMLError: the front matter of the card is no YAML.
    """
    ours, theirs = list(_lines(fresh)), list(_lines(card))
    figures, altered, added = 0, list[str](), list[str]()
    matcher = SequenceMatcher(a=[line.key for line in ours], b=[line.key for line in theirs], autojunk=False)
    for kind, i, j, k, end in matcher.get_opcodes():
        if kind == "equal":
            figures += sum(len(line.figures) for line in ours[i:j])
            continue
        new = theirs[k:end]
        for line in ours[i:j]:
            if not line.is_row and not line.figures:
                continue
            edited = _nearest(line, new)
            if edited is None:
                altered.append(f"gone: {_short(line.text)}")
                continue
            new.remove(edited)
            if line.is_row or edited.figures != line.figures:
                altered.append(_difference(line, edited))
            else:
                figures += len(line.figures)  # the words around them were edited
        for line in new:
            if line.is_row:
                altered.append(f"no record has {line}")
            elif line.figures:
                added.append(str(line))
    return Comparison(figures=figures, altered=tuple(altered), added=tuple(added))


def _lines(card: str) -> Iterator[CardLine]:
    """Lines of a card. Those of its front matter are its values, in an order that does not depend on the author's."""
    front = FRONT_MATTER.match(card)
    body, skipped = card, 0
    if front is not None:
        body, skipped = card[front.end() :], card.count("\n", 0, front.end())
        root = yaml.compose(front[1])
        yield from _values(root, (), card.count("\n", 0, front.start(1)) + 1, set()) if root else ()
    rows = {line.number: line for line in _rows(MarkdownIt("commonmark").enable("table").parse(body), skipped + 1)}
    for number, text in enumerate(body.split("\n"), start=skipped + 1):
        yield rows.get(number) or CardLine(number=number, text=text.rstrip())


def _values(node: yaml.Node, path: tuple[str, ...], first: int, seen: set[int]) -> Iterator[CardLine]:
    """Values below a node of the front matter, both where a key is there twice; an alias is followed nowhere."""
    is_score, is_alias = path[:1] == (SCORES,), id(node) in seen
    seen.add(id(node))
    children = list[tuple[str, yaml.Node]]()
    if isinstance(node, yaml.MappingNode) and not is_alias:
        children = sorted(((str(key.value), value) for key, value in node.value), key=lambda pair: pair[0])
    elif isinstance(node, yaml.SequenceNode) and not is_alias:
        children = [(str(index) if is_score else "", value) for index, value in enumerate(node.value)]
    else:
        name, value = ".".join(filter(None, path)), "an alias" if is_alias else str(node.value)
        cells, columns = ((name, value), ("field", "value")) if is_score else ((), ())
        yield CardLine(number=first + node.start_mark.line, text=f"{name}: {value}", cells=cells, columns=columns)
    for key, child in children:
        yield from _values(child, (*path, key), first, seen)


def _rows(tokens: list[Token], first: int) -> Iterator[CardLine]:
    """Rows of the tables in Markdown, heads too."""
    columns, cells, number = tuple[str, ...](), list[str](), 0
    for token, before in zip(tokens[1:], tokens, strict=False):
        if token.type == "tr_open":
            cells, number = [], first + (token.map or [0])[0]
        elif token.type == "inline" and before.type in ("th_open", "td_open"):
            cells.append(token.content)
        elif token.type == "tr_close":
            columns = tuple(cells) if before.type == "th_close" else columns
            yield CardLine(number=number, text=" | ".join(cells), cells=tuple(cells), columns=columns)


def _nearest(line: CardLine, others: list[CardLine]) -> CardLine | None:
    """The line that this one became, if there is one alike."""
    best, likeness = None, NEAR
    matcher = SequenceMatcher(b=line.text, autojunk=False)
    for other in others:
        if (other.is_row, len(other.columns)) != (line.is_row, len(line.columns)):
            continue
        matcher.set_seq1(other.text)
        if matcher.quick_ratio() > likeness and (ratio := matcher.ratio()) > likeness:
            best, likeness = other, ratio
    return best


def _difference(ours: CardLine, theirs: CardLine) -> str:
    """Say what a line has in the place of what the record has."""
    before, after = (line.cells or line.figures for line in (ours, theirs))
    names = ours.columns or [""] * len(before)
    changed = [
        f"{name} {two} where the record has {one}".strip()
        for name, one, two in zip(names, before, after, strict=False)
        if one != two
    ]
    if len(before) != len(after) or not changed:
        return f"{theirs}, where the record has {_short(ours.text)}"
    return f"{theirs}, says {', '.join(changed[:3])}"


def _short(text: str) -> str:
    return text if len(text) <= 90 else f"{text[:87]}..."
