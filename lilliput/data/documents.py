"""Documents, what a corpus of them has, and what all corpora ask of their texts."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal, Protocol, TypeGuard, get_args

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.limits import limit, raising

Null = Literal["refuse", "drop"]
"""Treatment of a row whose text is null."""
NULL_TEXT = "null text"
"""The reason why such a row is dropped."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text."""

    text: str
    id: str
    """Names the document; the same in every run."""
    group: str
    """The unit of the held-out split: documents of one group never land on both sides."""
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Values of other columns that the corpus was asked to read, for filters."""


class Corpus(Protocol):
    """Anything that yields documents; a frozen keyword-only spec, so that a recipe can name it."""

    def documents(self) -> Iterator[Document]:
        """Every document, in an order that never changes."""
        ...

    def identity(self) -> Any:
        """Return what the documents depend on besides the spec, as JSON; another value means other documents."""
        ...


def null_text(null: Null, column: str, where: str) -> str:
    """The reason for dropping a row whose text is null.

    Raises:
        DataError: it is to be refused.
    """
    if null == "drop":
        return NULL_TEXT
    raise DataError(
        f"column {column!r:.80} is null, not text",
        where=where,
        hint='drop such rows, which are then counted: null="drop" of the corpus, or --set corpora.NAME.null=drop',
    )


def check_null(spec: str, null: str) -> None:
    """Refuse a rule about null texts that there is not.

    Raises:
        RecipeError: it is none.
    """
    if null not in get_args(Null):
        raise RecipeError(f"null is {null!r:.80}", where=f"{spec}(null=...)", hint='give "refuse" or "drop"')


class TextHash:
    """SHA-256 over texts in order; corpora with the same hash train the same model.

    Each step hashes the one before together with its own texts, so that it goes on from what `hex` said.
    """

    def __init__(self, so_far: str = hashlib.sha256().hexdigest()):
        self._digest = bytes.fromhex(so_far)

    def add(self, *parts: str) -> None:
        """Take in the next parts; where one ends and the next begins counts too."""
        step = hashlib.sha256(self._digest)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            step.update(len(data).to_bytes(8, "little"))
            step.update(data)
        self._digest = step.digest()

    def hex(self) -> str:
        """The hash so far, in hex."""
        return self._digest.hex()


def check_length(where: Any, *texts: str) -> None:
    """Refuse texts of one document, or of one conversation, that are longer than the limit `document_bytes`.

    Raises:
        DataError: they are.
    """
    most = limit("document_bytes")
    if 4 * sum(map(len, texts)) > most and sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) > most:
        raise DataError(
            f"the text is longer than {most:,} bytes",
            where=str(where),
            hint=f"cut it into several, or leave it out; {raising('document_bytes')}",
        )


def bytes_of(document: Document) -> int:
    """UTF-8 bytes of a document.

    Raises:
        DataError: it holds what is no text.
    """
    if document.text.isascii():
        return len(document.text)
    try:
        return len(document.text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text has an unpaired surrogate at character {error.start}",
            where=f"the document {document.id!r}",
            hint="drop it with a filter, or repair its text",
        ) from error


def documents_of(marked: Iterable[tuple[Document | str, Any]]) -> Iterator[Document]:
    """The documents among items with marks; unlike a generator's variable, nothing here keeps one any longer."""
    return filter(_is_document, map(itemgetter(0), marked))


def _is_document(item: Document | str) -> TypeGuard[Document]:
    return isinstance(item, Document)


def licenses(plain: Any) -> list[str]:
    """The licenses that the plain form of a corpus, or of those within it, names; each once."""
    parts = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    own = [plain["license"]] if isinstance(plain, dict) and isinstance(plain.get("license"), str) else []
    return list(dict.fromkeys(own + [license for part in parts for license in licenses(part)]))
