"""Passes over the training side of each corpus, by what phases read of their mixtures."""

from collections.abc import Iterable, Mapping
from typing import Any

from lilliput.data.formats import format_of
from lilliput.data.mixture import Mixture
from lilliput.train.phase import Phase


def shares(phase: Phase) -> dict[str, float]:
    """The share of a phase's tokens that comes from each corpus."""
    if not isinstance(phase.data, Mixture):
        return {name: 1 / len(phase.data.corpora) for name in phase.data.corpora}
    total = sum(phase.data.weights.values())
    return {name: weight / total for name, weight in phase.data.weights.items()}


def tokens_per_pass(corpus: Any, record: Mapping[str, Any]) -> int | None:
    """Text tokens that a pass over the training side reads; None while there are no token files.

    Args:
        corpus: as the recipe has it.
        record: the record in the run of its token files.
    """
    if not record.get("done"):
        return None
    side, length = record["outputs"]["sides"]["train"], record["from"].get("length", 0)
    return format_of(corpus).tokens_per_pass(side, length)


def passes(read: Iterable[tuple[Phase, float]], sizes: Mapping[str, int | None]) -> dict[str, float]:
    """Passes over each corpus whose size is known.

    Args:
        read: phases, and the text tokens that each has read.
        sizes: text tokens that a pass reads, by corpus.
    """
    found: dict[str, float] = {}
    for phase, tokens in read:
        for name, share in shares(phase).items():
            if size := sizes.get(name):
                found[name] = found.get(name, 0.0) + share * tokens / size
    return found


def in_words(found: Mapping[str, float]) -> str:
    """The same in words."""
    return ", ".join(f"{name} {value:,.2f}" for name, value in found.items())
