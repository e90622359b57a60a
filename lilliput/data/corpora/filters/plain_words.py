"""Words and sentences as datatrove's filters ask for them, by their signs alone: no model has to be downloaded.

A word keeps its hyphens and apostrophes; other signs in a row are a word, as for the tokenizers of spaCy and NLTK. A
sentence ends with `.`, `!` or `?`, or their like in other scripts, before white space.
"""

import re

from datatrove.utils.word_tokenizers import WordTokenizer

_WORDS = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]+")
_ENDS = re.compile(r"(?:[.!?…؟।]+[\"'”’)\]]*(?=\s|$)|[。！？])\s*")


class PlainWords(WordTokenizer):
    """A tokenizer for languages that put spaces between words."""

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        return _WORDS.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the sentences of a text, without white space around them."""
        return [sentence for start, end in self.span_tokenize(text) if (sentence := text[start:end].strip())]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the beginnings and ends of sentences, which together are the text."""
        ends = [end.end() for end in _ENDS.finditer(text)]
        if not ends or ends[-1] < len(text):
            ends.append(len(text))
        return list(zip([0, *ends], ends, strict=False))


PLAIN_WORDS = PlainWords()
"""The one of a process: datatrove caches words by it."""
