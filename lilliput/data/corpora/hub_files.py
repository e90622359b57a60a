"""Files of a dataset on the hub: their names at a commit, and rows of JSON Lines read as they are fetched.

The library `datasets` reads no `.jsonl.zst` without another package and knows no files to leave out; this does.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from lilliput.base.errors import DataError
from lilliput.base.hub import is_transient
from lilliput.data.corpora.hub import PAUSES, Subset
from lilliput.data.documents import Document, Null, check_length, documents_of, null_text
from lilliput.data.readers.rows import line_rows


@dataclass(frozen=True, kw_only=True)
class HubJSONLines:
    """Texts of some JSON Lines files of a repository, compressed or not, in this order, at one commit."""

    dataset: str
    commit: str
    files: tuple[str, ...]
    text: str
    id: str
    null: Null
    is_seekable: ClassVar[bool] = True

    def identity(self) -> list[str]:
        """The commit."""
        return [self.dataset, self.commit]

    def documents(self) -> Iterator[Document]:
        """Yield the documents in the order of the files and of their rows."""
        return documents_of(self.iterate_from())

    def iterate_from(self, after: list[int] | None = None) -> Iterator[tuple[Document | str, list[int]]]:
        """The same, and reasons for what is dropped, with marks: the file's index and the row's number."""
        first, number = after or (0, 0)
        for index, file in enumerate(self.files[first:], first):
            for item, row in self._of_file(file, number if index == first else 0):
                yield item, [index, row]

    def fraction_read(self) -> Callable[[list[int]], float]:
        """Return the progress at a mark, by the number of files."""
        return lambda mark: mark[0] / len(self.files)

    def _of_file(self, file: str, number: int) -> Iterator[tuple[Document | str, int]]:
        """Items of a file after a row; each comes once, however often the network fails."""
        subset, attempt = Subset(self.dataset, None, "train", self.commit), 0
        while True:
            try:
                for record in line_rows(Path(file), number, opener=self._open):
                    number, attempt = record.number, 0
                    if record.column(self.text) is None:
                        yield null_text(self.null, self.text, str(record)), number
                        continue
                    text = record.text(self.text)
                    check_length(record, text)
                    name = record.id(self.id)
                    yield Document(text, name, name), number
                return
            except DataError as error:
                cause = error.__cause__
                if not isinstance(cause, Exception) or not is_transient(cause):
                    raise
                if attempt == len(PAUSES):
                    subset.explain(cause, f"{file}, after {number:,} rows")
                time.sleep(PAUSES[attempt])
                attempt += 1

    def _open(self, path: Path) -> Any:
        return open_file(self.dataset, self.commit, path.as_posix())


@cache
def file_names(dataset: str, commit: str) -> tuple[str, ...]:
    """Names of all files of a dataset at a commit.

    Raises:
        DataError: the hub is out of reach, or knows no such dataset.
    """
    from huggingface_hub import HfApi

    try:
        return tuple(sorted(HfApi().list_repo_files(dataset, repo_type="dataset", revision=commit)))
    except Exception as error:  # the libraries below raise what their own libraries do
        Subset(dataset, None, "train", commit).explain(error, "")


def open_file(dataset: str, commit: str, name: str) -> Any:
    """A file of a dataset, fetched piece by piece as it is read."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(f"datasets/{dataset}@{commit}/{name}", "rb")
