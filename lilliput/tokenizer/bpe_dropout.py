"""BPE with dropout (arXiv 1910.13267): other tokenizations of a word, drawn by number instead of by a generator.

BPE merges the pair of the lowest rank until none is left. With dropout every pair that could be merged is passed over
with some probability, again before each merge; where all of them are, the word stays as it is by then.
"""

import json
from functools import lru_cache
from itertools import pairwise
from random import Random

from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.tokenizer.cuts import cuts_of

DRAWS = 32
"""Draws of a word that differ; texts repeat their words, and each draw is made once."""
_KNOWN = 2**18
"""Draws that are remembered."""


class BPEDropout:
    """Draws tokenizations of words.

    Args:
        tokenizer: with BPE over bytes whose rules are known to the letter; see `lilliput.tokenizer.cuts`.
        dropout: the probability that a merge is passed over.
        seed: decides, with a word and the number of a draw, what is drawn.

    Raises:
        DataError: it is another kind of tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, dropout: float, seed: int):
        if cuts_of(tokenizer) is None:
            raise DataError(
                "words of this tokenizer cannot be tokenized in other ways: it is no BPE over bytes with rules we know",
                where="Mixture(segmentations=...)",
                hint="use the tokenizer BPE(...), or leave segmentations out",
            )
        model = json.loads(tokenizer.model.__getstate__())
        pairs = (tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"])
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._vocab: dict[str, int] = model["vocab"]
        self._dropout, self._seed = dropout, seed
        self.draw = lru_cache(maxsize=_KNOWN)(self._draw)

    def _draw(self, word: str, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of a word, given by its bytes as letters, and the bytes of each."""
        random = Random(f"{self._seed}/{number % DRAWS}/{word}")
        parts = list(word)
        while True:
            pairs = enumerate(pairwise(parts))
            ranked = [(self._ranks[pair], place) for place, pair in pairs if pair in self._ranks]
            kept = [one for one in ranked if random.random() >= self._dropout]
            if not kept:
                return tuple(self._vocab[part] for part in parts), tuple(map(len, parts))
            _, place = min(kept)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
