"""Which languages texts are in, by py3langid's model of 97 languages, which comes in its wheel."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import cache
from itertools import islice
from typing import Any

TEXTS = 500
"""Texts that are looked at."""
CHARACTERS = 2_000
"""Characters of each of them."""
LEAST = 20
"""Characters of a text that tells its language."""
SURE = 0.9
"""Probability from which on a language counts as told."""
SHARE = 0.1
"""Smallest share of the sampled characters: rarer languages are not named, and none is where less than half is told."""
_FENCED = re.compile(r"^ *```.*?(^ *```|\Z)", re.MULTILINE | re.DOTALL)


def languages(texts: Iterable[str]) -> list[str]:
    """The languages of texts as ISO 639-1 codes, the most frequent first; none where they cannot be told."""
    named: Counter[str] = Counter()
    seen = 0
    for text in islice(texts, TEXTS):
        piece = text[:CHARACTERS].strip()
        seen += len(piece)
        if language := language_of(piece):
            named[language] += len(piece)
    if named.total() < seen / 2 or not seen:
        return []
    return [language for language, count in named.most_common() if count >= SHARE * seen]


def language_of(text: str) -> str | None:
    """The language of a text as an ISO 639-1 code, by its beginning; None where it is too short or cannot be told."""
    piece = text[:CHARACTERS].strip()
    if len(piece) < LEAST:
        return None
    language, probability = _identifier().classify(piece)
    return language if probability >= SURE else None


def is_in(text: str, allowed: Collection[str]) -> bool:
    """Return whether a text is in one of some languages, as far as can be told; code in fences is no language."""
    language = language_of(_FENCED.sub("", text))
    return language is None or language in allowed


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
