"""Rows that are kept by a column beside their text, such as a score that a classifier gave."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from lilliput.base.errors import DataError, RecipeError
from lilliput.data.corpora.filters import FilterResult
from lilliput.data.documents import Document


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Documents whose value of a column lies in a range, or is one of some; `columns` of the corpus names it."""

    name: ClassVar[str] = "metadata"
    remembers: ClassVar[bool] = False

    column: str
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[str | float | bool, ...] = ()
    """Values that are kept; empty for any."""

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None and not self.one_of:
            raise RecipeError(
                f"nothing is asked of the column {self.column!r}",
                where="Metadata",
                hint="give at_least, at_most or one_of",
            )

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing."""
        low, high = self.at_least, self.at_most

        def step(document: Document) -> FilterResult:
            value = self._value(document)
            if value is None:
                return f"no {self.column}"
            if self.one_of and value not in self.one_of:
                return f"another {self.column}"
            if low is not None or high is not None:
                number = self._number(value, document)
                if not (low is None or number >= low):  # NaN is less than anything
                    return f"{self.column} below {low:g}"
                if high is not None and number > high:
                    return f"{self.column} above {high:g}"
            return document

        return step

    def _value(self, document: Document) -> object:
        if self.column not in document.metadata:
            raise DataError(
                f"the column {self.column!r} was not read",
                where=f"the filter Metadata and the document {document.id!r}",
                hint=f'name it in the corpus: columns=("{self.column}",)',
            )
        return document.metadata[self.column]

    def _number(self, value: object, document: Document) -> float:
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the column {self.column!r} is {value!r:.60}, not a number",
                where=f"the filter Metadata and the document {document.id!r}",
                hint="name a column of numbers, or give one_of",
            ) from error
