"""Corpora of the hub at the commit that a run began with, whatever their branch has come to since."""

from dataclasses import replace
from typing import Any

from lilliput.data.corpora.concatenated import Joined, JoinedChats
from lilliput.data.corpora.filters import Curated
from lilliput.data.corpora.hub import HubChats, HubText


def pinned(corpus: Any, identity: Any) -> Any:
    """The corpus that had this identity, as far as it, or one within it, is on the hub; else as it is."""
    match corpus:
        case HubText() | HubChats():
            return corpus.at(identity)
        case Curated():
            return replace(corpus, source=pinned(corpus.source, identity))
        case Joined() | JoinedChats():
            return replace(corpus, sources=tuple(map(pinned, corpus.sources, identity)))
    return corpus
