"""Code that was rewritten for filling in the middle: the filter that takes the markers out of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from lilliput.data.corpora.filters import FilterResult
from lilliput.data.documents import Document

MARKER = re.compile(r"<\|?fim[_-](prefix|middle|suffix|pad)\|?>", re.IGNORECASE)
"""As tokenizers of code models spell them: `<|fim_prefix|>`, `<fim_prefix>`, `<fim-prefix>`."""


@dataclass(frozen=True, kw_only=True)
class StripFIMMarkers:
    """Documents without markers of filling in the middle; all others stay as they are."""

    name: ClassVar[str] = "fill in the middle"
    remembers: ClassVar[bool] = False

    restore: bool = False
    """If true, the middle goes back between prefix and suffix; if not, the parts keep their order."""

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing."""

        def step(document: Document) -> FilterResult:
            before, *marked = MARKER.split(document.text)
            if not marked:
                return document
            names, parts = [name.lower() for name in marked[::2]], marked[1::2]
            if self.restore and sorted(names) == ["middle", "prefix", "suffix"]:
                by_name = dict(zip(names, parts, strict=True))
                parts = [by_name[name] for name in ("prefix", "middle", "suffix")]
            text = before + "".join(parts)
            return replace(document, text=text) if text.strip() else "nothing but markers"

        return step
