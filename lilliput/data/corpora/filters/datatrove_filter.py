"""Filters of datatrove that judge each document alone, in the form of Lilliput's; without its tokenizers' downloads."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from lilliput.base.errors import RecipeError
from lilliput.data.corpora.filters import FilterResult
from lilliput.data.documents import Document

EXTRA = "pip install 'lilliput[curate]'"
"""Command that installs what curation needs."""


@dataclass(frozen=True, kw_only=True)
class DatatroveFilter(ABC):
    """Base of specs whose fields are arguments of a filter of datatrove.

    Words and sentences are found without models, see `lilliput.data.corpora.filters.plain_words`.
    """

    remembers: ClassVar[bool] = False

    @abstractmethod
    def build(self, arguments: dict[str, Any]) -> Any:
        """Return the filter of datatrove."""

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing.

        Raises:
            RecipeError: datatrove is not installed.
        """
        try:
            from datatrove.data import Document as TheirDocument

            from lilliput.data.corpora.filters.plain_words import PLAIN_WORDS
        except ImportError as error:
            raise not_installed("datatrove", type(self).__name__) from error
        theirs = self.build({field.name: getattr(self, field.name) for field in fields(self)})
        theirs.language = PLAIN_WORDS

        def step(document: Document) -> FilterResult:
            if not document.text.strip():
                return "empty"
            one = TheirDocument(text=document.text, id=document.id)
            result = theirs.filter(one)
            kept, reason = result if isinstance(result, tuple) else (result, "dropped")
            if not kept:
                return reason.replace("_", " ")
            return document if one.text == document.text else replace(document, text=one.text)

        return step


def not_installed(package: str, filter_name: str) -> RecipeError:
    """Make the error for a filter whose library is not there."""
    return RecipeError(f"{package} is not installed", where=f"the filter {filter_name}", hint=EXTRA)
