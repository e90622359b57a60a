"""`tokenizer.html`: a run's tokenizer on its held-out texts beside others, and what its vocabulary holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lilliput.base.files import write_text
from lilliput.base.text_units import size
from lilliput.report.page import render
from lilliput.report.table import Column, Table

PAGE = "tokenizer.html"


@dataclass(frozen=True, kw_only=True)
class Fertility:
    """A text in the tokens of several tokenizers."""

    name: str
    bytes: int
    tokens: Sequence[int]
    """Number of tokens, one a tokenizer."""


@dataclass(frozen=True, kw_only=True)
class TokenizerFacts:
    """A run's tokenizer, and others beside it."""

    names: Sequence[str]
    """Names of the tokenizers; that of the run is the first."""
    vocabularies: Sequence[int]
    corpora: Sequence[Fertility]
    """Held-out texts, by corpus."""
    kinds: Sequence[Fertility]
    """Small texts of a kind each: code, digits, white space."""
    pieces: Mapping[str, Sequence[str]]
    """Small texts, each as the run's tokenizer cuts it."""
    unused: int
    """Ids that occur nowhere in the training side of the corpora; those of special tokens are not counted."""
    unused_bytes: int
    """Ids among these that stand for one byte each, which no tokenizer of bytes can do without."""
    unused_tokens: Sequence[str]
    """Longest of the others."""
    longest: Sequence[tuple[str, int]]
    """The longest tokens, and how often each occurs in the training side."""


def bytes_per_token_table(names: Sequence[str], texts: Sequence[Fertility], what: str) -> Table:
    """Bytes of text that a token stands for, by text and tokenizer; more is a shorter text."""
    columns = [Column(name=what, cells=[one.name for one in texts], is_text=True)]
    columns += [Column(name="text", cells=[size(one.bytes) for one in texts])]
    for place, name in enumerate(names):
        cells = [f"{one.bytes / max(1, one.tokens[place]):.3f}" for one in texts]
        columns.append(Column(name=name, cells=cells))
    return Table(columns=columns, title="bytes per token")


def write_tokenizer_page(facts: TokenizerFacts, folder: Path, path: Path) -> Path:
    """Write the page about the tokenizer of the run in a folder, whole or not at all; the path of the page."""
    own = facts.vocabularies[0]
    longest = Table(
        columns=[
            Column(name="token", cells=[_spelled(text) for text, _ in facts.longest], is_text=True),
            Column(name="characters", cells=[f"{len(text):,}" for text, _ in facts.longest]),
            Column(name="occurrences", cells=[f"{count:,}" for _, count in facts.longest]),
        ]
    )
    view = {
        "folder": folder.resolve().name,
        "tiles": [(f"{size:,}", "ids", name) for name, size in zip(facts.names, facts.vocabularies, strict=True)]
        + [(f"{facts.unused:,}", "unused", f"{facts.unused / own:.1%}; {facts.unused_bytes:,} of them single bytes")],
        "corpora": bytes_per_token_table(facts.names, facts.corpora, "corpus"),
        "kinds": bytes_per_token_table(facts.names, facts.kinds, "kind of text"),
        "pieces": [(name, list(map(_spelled, pieces))) for name, pieces in facts.pieces.items()],
        "unused": list(map(_spelled, facts.unused_tokens)),
        "longest": longest,
    }
    write_text(path, render("tokenizer.html.jinja", view))
    return path


def _spelled(token: str) -> str:
    """A token with its blanks and ends of lines to be seen."""
    return repr(token)[1:-1].replace(" ", "␣")
