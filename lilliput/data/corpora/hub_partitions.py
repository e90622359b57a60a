"""A dataset whose folders are its parts: some are kept and read side by side, others are left out by name."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.units import Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filter, Filtered
from lilliput.data.corpora.hub import BYTES_PER_TOKEN, Subset, check_budgets
from lilliput.data.corpora.hub_files import HubJSONLines, file_names
from lilliput.data.corpora.interleaved import interleaved
from lilliput.data.documents import Corpus, Document, Null, check_null, documents_of
from lilliput.data.readers.formats import JSON_LINES, holds_rows, suffix_of
from lilliput.data.readers.paths import found_files
from lilliput.data.resumable import fraction_read


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A part of a dataset that is kept."""

    files: tuple[str, ...]
    """Patterns of their paths below the dataset's folder, such as `cranecode/*`; `*` stands for any signs, `/` too."""
    tokens: Tokens
    """Tokens of the part; parts are read in these proportions."""
    bytes_per_token: float = 4.5
    """Bytes of text per token, about: code and formulas have fewer than prose."""
    filters: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        if not self.files or not self.bytes_per_token > 0:
            raise RecipeError(
                "a part without files" if not self.files else f"{self.bytes_per_token} bytes are no token",
                where="Partition",
                hint="give patterns of its files, and a number above 0",
            )


@dataclass(frozen=True, kw_only=True)
class HubPartitions:
    """Texts of a dataset of JSON Lines files on the hub, or of a folder that is laid out like one.

    Parts are read side by side, in proportion to their tokens: every stretch of the text is a sample of all of them,
    wherever reading stops. Files of a part come in the order of the SHA-256 of their paths, so that its folders mix,
    too. A file must be of a part that is kept, or one that is left out.
    """

    dataset: str
    """"owner/name", or a local folder."""
    license: str
    """Under which the texts come."""
    kept: Mapping[str, Partition]
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Patterns of files by the reason why they are not read; what is left out is never kept."""
    folder: str = "data"
    """Folder of the dataset that has its parts; the dataset's own folder if a local one has none of that name."""
    text: str = "text"
    """Column that holds the text."""
    id: str = "id"
    """Column that names the row, as for `TextFiles`; the name of the part comes before it."""
    null: Null = "refuse"
    """A row whose text is null: an error (`refuse`), or dropped and counted."""
    revision: str | None = None
    """Branch, tag or commit; a whole commit hash needs no look-up, and never means anything else."""
    tokens: Tokens | None = None
    """Stop after the text that reaches this many, as in `HubText`."""

    def __post_init__(self) -> None:
        check_null("HubPartitions", self.null)
        check_budgets("HubPartitions", tokens=self.tokens and int(self.tokens))
        if not self.kept:
            raise RecipeError(
                "no part is kept", where="HubPartitions(kept=...)", hint="name at least one, with its files and tokens"
            )

    def identity(self) -> Any:
        """The commit, or the kept files of a folder."""
        if self.is_local:
            return TextFiles(paths=tuple(path for paths in self._paths().values() for path in paths)).identity()
        return self._subset.identity()

    def at_revision(self, identity: Any) -> "HubPartitions":
        """The same at the commit of an identity."""
        return replace(self, revision=self._subset.commit_of(identity))

    def in_folder(self, path: str, column: str = "") -> "HubPartitions | None":
        """The same of a local folder, or None if that is not laid out like the dataset.

        Raises:
            DataError: the folder has some of its parts, but lacks one, or has files of none.
        """
        local = replace(self, dataset=path, text=column or self.text)
        patterns = [*(part.files for part in self.kept.values()), *self.left_out.values()]
        if not local.is_local or not any(_matches(name, many) for name in local._local_files() for many in patterns):
            return None
        local._paths()
        return local

    @property
    def is_local(self) -> bool:
        """True if a local folder is read."""
        return self._subset.is_local

    @property
    def is_seekable(self) -> bool:
        """Return whether no filter needs to have seen earlier documents."""
        filters = (filter_ for part in self.kept.values() for filter_ in part.filters)
        return not any(getattr(filter_, "remembers", True) for filter_ in filters)

    def documents(self) -> Iterator[Document]:
        """Yield the documents of the kept parts, side by side.

        Raises:
            DataError: the dataset is not there, or a part has no file, or a file is of none; or a row is no text.
        """
        return documents_of(self.iterate_from())

    def iterate_from(self, after: dict[str, Any] | None = None) -> Iterator[tuple[Document | str, dict[str, Any]]]:
        """The same, and reasons for what is dropped, with marks: bytes and mark of each part."""
        most, names = self.most_bytes, list(self.kept)
        if after and most is not None and sum(after["taken"]) >= most:
            return
        for index, item, mark in interleaved(self._sources(), self._weights(), after):
            yield item if isinstance(item, str) else replace(item, id=f"{names[index]}/{item.id}"), mark
            if most is not None and sum(mark["taken"]) >= most:
                return

    def fraction_read(self) -> Callable[[dict[str, Any]], float | None]:
        """Return the progress at a mark, by the budget or by the files of a folder, whichever is nearer to its end."""
        fractions, weights = [fraction_read(source) for source in self._sources()], self._weights()

        def share(mark: dict[str, Any]) -> float | None:
            budget = [] if self.most_bytes is None else [sum(mark["taken"]) / self.most_bytes]
            parts = zip(fractions, mark["within"], weights, strict=True)
            read = sum(weight * (fraction(at) or 0.0) for fraction, at, weight in parts if at is not None)
            files = read / sum(weights)
            return max([*budget, *([files] if self.is_local else [])], default=None)

        return share

    @property
    def most_bytes(self) -> int | None:
        """The budget in UTF-8 bytes of text; None without one."""
        return None if self.tokens is None else int(self.tokens) * BYTES_PER_TOKEN

    @property
    def expected_bytes(self) -> int:
        """UTF-8 bytes of text on the hub, about, as far as they are read."""
        whole = round(sum(self._weights()))
        return whole if self.most_bytes is None else min(whole, self.most_bytes)

    @property
    def _subset(self) -> Subset:
        return Subset(self.dataset, None, "train", self.revision)

    def _weights(self) -> list[float]:
        """Bytes of the parts, in proportion."""
        return [int(part.tokens) * part.bytes_per_token for part in self.kept.values()]

    def _sources(self) -> list[Corpus]:
        """The kept parts, each as a corpus."""
        return [self._source(files, self.kept[name].filters) for name, files in self._paths().items()]

    def _source(self, files: tuple[str, ...], filters: tuple[Filter, ...]) -> Corpus:
        columns: dict[str, Any] = {"text": self.text, "id": self.id, "null": self.null}
        if self.is_local:
            source: Corpus = TextFiles(paths=files, **columns)
        else:
            source = HubJSONLines(dataset=self.dataset, commit=self._subset.commit(), files=files, **columns)
        return Filtered(source=source, filters=filters) if filters else source

    def _paths(self) -> dict[str, tuple[str, ...]]:
        """The files of each kept part, in the order in which they are read.

        Raises:
            DataError: a part has none, or a file is of no part.
        """
        files = self._local_files() if self.is_local else self._hub_files()
        parts: dict[str, list[str]] = {name: [] for name in self.kept}
        for name in files:
            if any(_matches(name, patterns) for patterns in self.left_out.values()):
                continue
            part = next((one for one, kept in self.kept.items() if _matches(name, kept.files)), None)
            if part is None:
                self._refuse(f"{name!r:.200} is of no part of it", "name its folder among those kept, or left out")
            parts[part].append(name)
        for part, names in parts.items():
            if not names:
                patterns = ", ".join(self.kept[part].files)
                self._refuse(f"there is no file of its part {part!r}, {patterns}", "put it there, or keep it no more")
        return {part: tuple(files[name] for name in sorted(names, key=_digest)) for part, names in parts.items()}

    def _local_files(self) -> dict[str, str]:
        """Paths of files of rows, by their names below the folder of the parts."""
        root = Path(self.dataset).expanduser()
        inner = root / self.folder
        found = found_files((str(inner if inner.is_dir() else root),), f"the folder of {self._subset}")
        return {one.name: str(one.path) for one in found if holds_rows(one.path) and not one.is_about}

    def _hub_files(self) -> dict[str, str]:
        before = f"{self.folder}/" if self.folder else ""
        names = file_names(self.dataset, self._subset.commit())
        rows = (name for name in names if name.startswith(before) and suffix_of(Path(name)) in JSON_LINES)
        return {name.removeprefix(before): name for name in rows}

    def _refuse(self, what: str, hint: str) -> NoReturn:
        raise DataError(what, where=f"{self._subset}, {self.folder}", hint=hint)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
