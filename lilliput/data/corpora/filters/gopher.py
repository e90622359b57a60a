"""The rules of Gopher for documents of the web: quality and repetition (Rae et al. 2021, arXiv 2112.11446, A.1)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lilliput.data.corpora.filters.datatrove_filter import DatatroveFilter


@dataclass(frozen=True, kw_only=True)
class GopherQuality(DatatroveFilter):
    """Documents of plausible length, words, signs and lines, with some of the commonest English words.

    For another language give its own `stop_words`, or none with `min_stop_words=0`.
    """

    name: ClassVar[str] = "gopher quality"

    min_doc_words: int = 50
    max_doc_words: int = 100_000
    min_avg_word_length: float = 3
    max_avg_word_length: float = 10
    max_symbol_word_ratio: float = 0.1
    """Most hash signs, and ellipses, per word."""
    max_bullet_lines_ratio: float = 0.9
    max_ellipsis_lines_ratio: float = 0.3
    max_non_alpha_words_ratio: float = 0.8
    """Least share of words that have a letter; the name is datatrove's."""
    min_stop_words: int = 2
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")

    def build(self, arguments: dict[str, Any]) -> Any:
        """Return the filter of datatrove."""
        from datatrove.pipeline.filters import GopherQualityFilter

        return GopherQualityFilter(**arguments)


@dataclass(frozen=True, kw_only=True)
class GopherRepetition(DatatroveFilter):
    """Documents that do not repeat many of their lines, paragraphs or runs of words."""

    name: ClassVar[str] = "gopher repetition"

    dup_line_frac: float = 0.3
    """Most lines that were there before, as a share of lines."""
    dup_para_frac: float = 0.3
    dup_line_char_frac: float = 0.2
    """The same as a share of characters."""
    dup_para_char_frac: float = 0.2
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    """Most of the text that the commonest run of n words makes up."""
    dup_n_grams: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
    """Most of the text that is in runs of n words that were there before."""

    def build(self, arguments: dict[str, Any]) -> Any:
        """Return the filter of datatrove."""
        from datatrove.pipeline.filters import GopherRepetitionFilter

        return GopherRepetitionFilter(**arguments)
