"""Corpora of the hub at the commit that a run began with, whatever their branch has come to since."""

from dataclasses import replace
from typing import Any

from lilliput.data.curate import Curated
from lilliput.data.hub import HubChats, HubText
from lilliput.data.joined import Joined, JoinedChats


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
