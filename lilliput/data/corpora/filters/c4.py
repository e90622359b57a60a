"""The rules of C4 for pages of the web (Raffel et al. 2020, arXiv 1910.10683, 2.2), without its list of bad words.

That list lies on a server, and drops what people of some groups write more often than others (Dodge et al. 2021, arXiv
2104.08758).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from lilliput.data.corpora.filters.datatrove_filter import DatatroveFilter


@dataclass(frozen=True, kw_only=True)
class C4Quality(DatatroveFilter):
    """Lines that are sentences, and the document if enough of them are left; no code and no placeholder text.

    FineWeb applies these rules without `filter_no_terminal_punct`, which drops a third of the web's text by itself.
    """

    name: ClassVar[str] = "c4 quality"

    remove_citations: bool = True
    """Take out `[1]`, `[edit]` and `[citation needed]`."""
    filter_no_terminal_punct: bool = True
    """Take out lines that do not end with a mark that ends a sentence."""
    min_num_sentences: int = 5
    """Least sentences of what is left; -1 for any number."""
    min_words_per_line: int = 3
    max_word_length: int = 1_000
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    """Take out lines that mention JavaScript."""
    filter_curly_bracket: bool = True
    """Drop documents that have a `{`, which most programming languages use and hardly any prose does."""
    filter_policy: bool = True
    """Take out lines about cookies and terms of use."""

    def build(self, arguments: dict[str, Any]) -> Any:
        """Return the filter of datatrove."""
        from datatrove.pipeline.filters import C4QualityFilter

        return C4QualityFilter(**arguments)
