"""The format of a corpus, decided here and nowhere else."""

from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.base.untrusted import shown
from lilliput.data.chat_format import CHATS
from lilliput.data.corpus_format import CorpusFormat
from lilliput.data.pair_format import PAIRS
from lilliput.data.text_format import TEXT


def format_of(corpus: Any, where: str = "a corpus of the recipe") -> CorpusFormat:
    """The format of a corpus: the one that it names, else by the method that it has; `where` is for the error.

    Raises:
        RecipeError: it names none, and yields neither documents, conversations nor pairs.
    """
    if (named := getattr(corpus, "format", None)) is not None:
        return named
    if hasattr(corpus, "pairs"):
        return PAIRS
    if hasattr(corpus, "conversations"):
        return CHATS
    if hasattr(corpus, "documents"):
        return TEXT
    raise RecipeError(
        f"{shown(corpus)} has neither documents, conversations nor pairs, and names no format",
        where=where,
        hint='give a spec, such as TextFiles(paths=("texts",))',
    )
