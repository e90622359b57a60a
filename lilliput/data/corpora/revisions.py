"""Corpora of the hub at the commit that a run began with, whatever their branch has come to since."""

from dataclasses import replace
from typing import Any

from lilliput.data.corpora.concatenated import Concatenated, ConcatenatedChats
from lilliput.data.corpora.filters import Filtered
from lilliput.data.corpora.hub import HubChats, HubText


def at_revision(corpus: Any, identity: Any) -> Any:
    """The corpus that had this identity, as far as it, or one within it, is on the hub; else as it is."""
    match corpus:
        case HubText() | HubChats():
            return corpus.at_revision(identity)
        case Filtered():
            return replace(corpus, source=at_revision(corpus.source, identity))
        case Concatenated() | ConcatenatedChats():
            return replace(corpus, sources=tuple(map(at_revision, corpus.sources, identity)))
    return corpus
