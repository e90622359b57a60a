"""Scores of other models that published cards give, as they give them: `peers.json`, by evaluation suite."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("peers.json")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A model and what a card says of it."""

    company: str
    model: str
    tokens: str | None
    """Training tokens, as the card writes them; None if it does not say."""
    scores: tuple[float | str | None, ...]
    """In percent, one a column; text where the card gives a figure as an approximate one, None where it gives none."""


@dataclass(frozen=True, kw_only=True)
class PeerTable:
    """The peers of a suite."""

    source: str
    """The card, and whom it quotes."""
    harness: str
    """With which they were measured."""
    columns: dict[str, str]
    """By heading, which score of ours stands under it: task and metric, as in "HellaSwag/acc_norm", or an average."""
    peers: tuple[Peer, ...]


@cache
def peer_tables() -> dict[str, PeerTable]:
    """The tables by the name of a suite."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        suite: PeerTable(**table | {"peers": tuple(_peer(**peer) for peer in table["peers"])})
        for suite, table in stored.items()
    }


def _peer(scores: list[float | str | None], **named: str) -> Peer:
    return Peer(scores=tuple(scores), **named)
