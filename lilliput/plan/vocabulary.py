"""Estimates the vocabulary that a text fills, before its tokenizer is trained."""

from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError
from lilliput.base.run_folder import RunFolder
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.tokenizer_sample import sampled
from lilliput.recipe import Recipe, vocabulary_of
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.specials import vocabulary_size


def foreseen(recipe: Recipe, folder: Path) -> int | None:
    """Return how many ids the tokenizer of a recipe has, or would have if it were learned from the local files as they
    are.

    Args:
        recipe: only where its tokenizer may have fewer ids than it asks for (`BPE(at_most=True)`) is anything read.
        folder: the run folder, whose tokenizer is asked first.

    Returns:
        the number; None where it is the recipe's, or the texts are not here.
    """
    tokenizer = recipe.tokenizer
    if not isinstance(tokenizer, BPE) or not tokenizer.at_most:
        return None
    if learned := vocabulary_of(RunFolder(folder)):
        return learned
    corpora: list[Any] = [recipe.corpora[name] for name in recipe.tokenizer_corpora]
    if not all(map(_is_local, corpora)):
        return None
    size = -(-tokenizer.sample_bytes // max(1, len(corpora)))
    texts = (text for corpus in corpora for text in sampled(corpus, recipe.split, size))
    try:
        return vocabulary_size(tokenizer.train(texts))
    except DataError:  # files that are not there: `run` says so
        return None


def _is_local(corpus: Any) -> bool:
    return isinstance(corpus, TextFiles) or (isinstance(corpus, Filtered) and _is_local(corpus.source))
