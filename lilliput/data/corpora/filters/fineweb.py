"""The rules that FineWeb added to those of Gopher and C4 (Penedo et al. 2024, arXiv 2406.17557, 3.6)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lilliput.data.corpora.filters.datatrove_filter import DatatroveFilter


@dataclass(frozen=True, kw_only=True)
class FineWebQuality(DatatroveFilter):
    """Documents whose lines end like sentences, are not mostly short and do not repeat: no lists, menus and tables.

    Of the web's text that Gopher's and C4's rules leave, these drop another 22%; code and verse go with the lists.
    """

    name: ClassVar[str] = "fineweb quality"

    line_punct_thr: float = 0.12
    """Least share of lines that end with a mark that ends a sentence."""
    short_line_thr: float = 0.67
    """Most lines of up to `short_line_length` characters, as a share of lines."""
    short_line_length: int = 30
    char_duplicates_ratio: float = 0.01
    """Most characters in lines that were there before."""
    new_line_ratio: float = 0.3
    """Most line breaks per word."""

    def build(self, arguments: dict[str, Any]) -> Any:
        """Return the filter of datatrove."""
        from datatrove.pipeline.filters import FineWebQualityFilter

        return FineWebQualityFilter(**arguments)
