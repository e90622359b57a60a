"""Text that was decoded by the wrong encoding, repaired by ftfy: `schÃ¶n` becomes `schön`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from lilliput.data.corpora.filters import FilterResult
from lilliput.data.corpora.filters.datatrove_filter import not_installed
from lilliput.data.documents import Document


@dataclass(frozen=True, kw_only=True)
class RepairMojibake:
    """Wrongly decoded characters, each line by itself; `Clean` sees to normalization, spaces and control characters."""

    name: ClassVar[str] = "repair mojibake"
    remembers: ClassVar[bool] = False

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing.

        Raises:
            RecipeError: ftfy is not installed.
        """
        try:
            from ftfy import TextFixerConfig, fix_text  # type: ignore[reportMissingImports], an extra
        except ImportError as error:
            raise not_installed("ftfy", type(self).__name__) from error
        config = TextFixerConfig(
            unescape_html=False,
            remove_terminal_escapes=False,
            fix_latin_ligatures=False,
            fix_character_width=False,
            uncurl_quotes=False,
            fix_line_breaks=False,
            remove_control_chars=False,
            normalization=None,
            explain=False,
        )

        def step(document: Document) -> FilterResult:
            if document.text.isascii():
                return document
            text = fix_text(document.text, config)
            return document if text == document.text else replace(document, text=text)

        return step
