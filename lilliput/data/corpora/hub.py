"""Corpora of the Hugging Face hub, streamed: only what is read is fetched, and nothing but token files is kept.

Rows come in the order of the repository's files at one commit, so the first so many of them are always the same.
"""

import difflib
import glob
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.hub import hub_trouble, is_transient
from lilliput.base.spec import LATER
from lilliput.base.units import Tokens
from lilliput.data.conversations import Conversation
from lilliput.data.corpora.files import TextFiles
from lilliput.data.documents import Document, Null, check_length, check_null, documents_of, null_text
from lilliput.data.message_formats import COLUMNS, row_messages
from lilliput.data.readers.rows import shown

BYTES_PER_TOKEN = 5
"""Bytes of English text per token; 3.5 to 4.8 in most tokenizers, so that a budget reads a little too much."""
PAUSES = (1.0, 5.0, 20.0, 60.0, *(300.0,) * 12)
"""Seconds before each new attempt at a row; those after it start again. The libraries below try a few times as well."""
_FOOTERS = 16
"""Footers of Parquet files that are fetched together: one after another, thousands of them take minutes."""
LOCAL_FILES = "or read local files instead: --source NAME=PATH"


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """Base of what reads rows of a dataset on the hub, or of a folder that is laid out like one."""

    dataset: str
    """"owner/name", or a local folder."""
    license: str
    """Under which the texts come."""
    config: str | None = None
    """Name of the subset; None where there is only one."""
    split: str = "train"
    id: str = "id"
    """Column that names the row; a row without it is "<dataset>/<config>/<split>:<row number>"."""
    revision: str | None = None
    """Branch, tag or commit; a whole commit hash needs no look-up, and never means anything else."""
    rows: int | None = None
    """Stop after this many rows."""

    def identity(self) -> Any:
        """The commit, or the files of a folder."""
        return self._subset.identity()

    def at_revision(self, identity: Any) -> Self:
        """The same at the commit of an identity."""
        return replace(self, revision=self._subset.commit_of(identity))

    @property
    def _subset(self) -> "Subset":
        return Subset(self.dataset, self.config, self.split, self.revision)


@dataclass(frozen=True, kw_only=True)
class HubText(HubDataset):
    """Texts of a dataset on the hub, or of a folder that is laid out like one."""

    text: str = "text"
    """Column that holds the text."""
    group: str | None = None
    """Column of the held-out group; without one, or where it is null or empty, a document is a group of its own."""
    null: Null = "refuse"
    """A row whose text is null: an error (`refuse`), or dropped and counted."""
    tokens: Tokens | None = None
    """Stop after the text that reaches this many, at `BYTES_PER_TOKEN`: texts are read before a tokenizer is there."""
    bytes: int | None = None
    """Stop after the text that reaches this many UTF-8 bytes."""
    columns: tuple[str, ...] = field(default=(), metadata=LATER)
    """Other columns that filters look at (`Metadata`)."""
    is_seekable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_null("HubText", self.null)
        check_budgets("HubText", tokens=self.tokens and int(self.tokens), bytes=self.bytes, rows=self.rows)

    def documents(self) -> Iterator[Document]:
        """Yield the documents in the order of the files and of their rows.

        Raises:
            DataError: the dataset, its config, split or column is not there, the hub is out of reach, or no row is.
        """
        return documents_of(self.iterate_from())

    def iterate_from(
        self, after: dict[str, Any] | None = None, share: "Share | None" = None
    ) -> Iterator[tuple[Document | str, dict[str, Any]]]:
        """The same, and reasons for what is dropped, with marks: the row's number, the stream's state after it, and the
        UTF-8 bytes of texts so far.

        Going on, files that lie before the mark are not fetched again. With a share, of a corpus that has `file_rows`,
        only its files are read; all shares, one after the other, are the corpus.
        """
        size, most = after["bytes"] if after else 0, self.most_bytes
        columns = (self.text, *self.columns) + (() if self.group is None else (self.group,))
        if most is not None and size >= most:
            return
        for number, row, state in self._subset.rows(columns, (self.id,), self.rows, after, share):
            text = row[self.text]
            if text is None:
                reason = null_text(self.null, self.text, f"{self._subset}, row {number}")
                yield reason, state | {"bytes": size}
                continue
            if not isinstance(text, str):
                self._subset.refuse(
                    f"column {self.text!r} of row {number} is {shown(text)}, not text", "name another column"
                )
            check_length(f"{self._subset}, row {number}", text)
            name = self._subset.id_of(row, self.id, number)
            size += len(text.encode("utf-8", "surrogatepass"))
            group = None if self.group is None else row[self.group]
            metadata = {column: row[column] for column in self.columns}
            document = Document(text, name, name if group in (None, "") else str(group), metadata)
            yield document, state | {"bytes": size}
            if most is not None and size >= most:
                return

    def fraction_read(self) -> Callable[[dict[str, Any]], float | None]:
        """Return the progress at a mark, by the budget that is nearest to being reached."""

        def share(mark: dict[str, Any]) -> float | None:
            most = self.most_bytes
            parts = [mark["bytes"] / most] if most is not None else []
            parts += [mark["row"] / self.rows] if self.rows is not None else []
            return max(parts, default=None)

        return share

    def file_rows(self) -> list[int]:
        """Return the rows of each file, in order, where tasks can share them; else nothing.

        They can if the files are Parquet, which tells its rows without being read, and no budget ends the corpus.

        Raises:
            DataError: as for `documents`.
        """
        return self._subset.file_rows() if self.most_bytes is None and self.rows is None else []

    @property
    def most_bytes(self) -> int | None:
        """The budget in UTF-8 bytes of text; None where only rows are counted, or nothing is."""
        budgets = [] if self.bytes is None else [self.bytes]
        budgets += [] if self.tokens is None else [int(self.tokens) * BYTES_PER_TOKEN]
        return min(budgets, default=None)


@dataclass(frozen=True, kw_only=True)
class HubChats(HubDataset):
    """Conversations of a dataset on the hub, or of a folder that is laid out like one; a row is a group."""

    messages: str | None = None
    """Column that holds the messages, as for `ChatFiles`."""

    def __post_init__(self) -> None:
        check_budgets("HubChats", rows=self.rows)

    def conversations(self) -> Iterator[Conversation]:
        """Yield the conversations in the order of the files and of their rows.

        Raises:
            DataError: as for `HubText`, or a row holds no such list.
        """
        named = () if self.messages is None else (self.messages,)
        for number, row, _ in self._subset.rows(named, (*COLUMNS, self.id), self.rows):
            name = self._subset.id_of(row, self.id, number)
            yield Conversation(row_messages(row, self.messages, f"{self._subset}, row {number}"), name, name)


class Share(NamedTuple):
    """Files of a split, in a row, that one of several tasks reads; each has as many, the first ones one more."""

    rank: int
    tasks: int
    """At most as many as files."""
    rows: list[int]
    """Rows of each file of the split."""

    @property
    def before(self) -> int:
        """Rows of the files before."""
        each, more = divmod(len(self.rows), self.tasks)
        return sum(self.rows[: each * self.rank + min(more, self.rank)])


class Subset(NamedTuple):
    """One split of one config of a dataset."""

    dataset: str
    config: str | None
    split: str
    revision: str | None

    def __str__(self) -> str:
        return "/".join(part for part in (self.dataset, self.config, self.split) if part)

    def id_of(self, row: dict[str, Any], column: str, number: int) -> str:
        value = row.get(column)
        return f"{self}:{number}" if value in (None, "") else str(value)

    def identity(self) -> Any:
        return TextFiles(paths=(self.dataset,)).identity() if self.is_local else [self.dataset, self.commit()]

    def commit_of(self, identity: Any) -> str | None:
        """The commit in an identity of this subset; the files of a folder, which may be away by now, have none."""
        return identity[1] if identity[:1] == [self.dataset] else self.revision

    def rows(
        self,
        columns: tuple[str, ...],
        optional: tuple[str, ...],
        most: int | None,
        after: dict[str, Any] | None = None,
        share: Share | None = None,
    ) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
        """Rows with their numbers from 1, of these columns and of optional ones, each with the state after it; of a
        share those of its files, under the numbers that they have in the whole.

        Each row comes once, in order, however often the network fails: reading goes on from the state after the last,
        or from that of `after`. The state of another version of the library means nothing: then all rows are read, and
        those up to `after` passed over.
        """
        import datasets

        before = share.before if share else 0
        version, number, attempt = datasets.__version__, after["row"] if after else before, 0
        state = after["state"] if after and after["datasets"] == version else None
        while most is None or number < most:
            try:
                dataset = self._open(columns, optional)
                passed = before
                if share is not None:
                    assert dataset.num_shards == len(share.rows), "the library reads a file as one shard"
                    dataset = dataset.shard(num_shards=share.tasks, index=share.rank)
                if state is not None:
                    dataset.load_state_dict(state)
                    passed = number
                for row in dataset:
                    passed += 1
                    if passed <= number:
                        continue
                    number, attempt, state = passed, 0, dataset.state_dict()  # a copy of 2 microseconds
                    yield number, row, {"row": number, "state": state, "datasets": version}
                    if number == most:
                        return
            except Exception as error:  # the libraries below raise what their own libraries do
                if isinstance(error, DataError) or not (number and is_transient(error)) or attempt == len(PAUSES):
                    self.explain(error, f"after {number:,} rows" if number else "")
                time.sleep(PAUSES[attempt])
                attempt += 1
            else:
                if not number and share is None:
                    self.refuse("there is no row", "name another split")
                return

    def file_rows(self) -> list[int]:
        """The rows of each file, in order, if all are Parquet: a footer of each is fetched. Else nothing.

        Raises:
            DataError: as for `rows`.
        """
        import datasets
        import fsspec
        import pyarrow.parquet

        def count(path: str) -> int:
            with fsspec.open(path, "rb") as file:
                return pyarrow.parquet.read_metadata(file).num_rows

        self._open((), ())
        try:
            commit = None if self.is_local else self.commit()
            builder = datasets.load_dataset_builder(self._path, self.config, revision=commit)
            paths = [str(path) for path in (builder.config.data_files or {}).get(self.split, ())]
            if not all(path.endswith(".parquet") for path in paths):
                return []
            with ThreadPoolExecutor(_FOOTERS) as pool:
                return list(pool.map(count, paths))
        except Exception as error:  # the libraries below raise what their own libraries do
            self.explain(error, "")

    def refuse(self, what: str, hint: str) -> NoReturn:
        """Raise the error of a dataset that is not as it should be."""
        raise DataError(what, where=str(self), hint=f"{hint}, {LOCAL_FILES}")

    @property
    def is_local(self) -> bool:
        """Return whether it is a folder."""
        return Path(self.dataset).expanduser().is_dir()

    def commit(self) -> str:
        """The commit that is read.

        Raises:
            DataError: the hub is out of reach, or knows no such dataset.
        """
        if self.revision and re.fullmatch("[0-9a-f]{40}", self.revision):
            return self.revision
        try:
            return _newest(self.dataset, self.revision)
        except Exception as error:
            self.explain(error, "")

    @property
    def _path(self) -> str:
        return str(Path(self.dataset).expanduser().resolve()) if self.is_local else self.dataset

    def _open(self, columns: tuple[str, ...], optional: tuple[str, ...]) -> Any:
        import datasets

        path = self._path
        if self.is_local and (glob.has_magic(path) or "::" in path or not path.isprintable()):
            # The library takes the path for a pattern, and would read the texts of other folders as well.
            self.refuse(f"the path of the folder has a sign that means something else: {path!r}", "rename the folder")
        commit = None if self.is_local else self.commit()
        configs = datasets.get_dataset_config_names(path, revision=commit)
        if self.config is None and len(configs) > 1 and "default" not in configs:
            self.refuse(
                "the dataset has several configs and none is named", f"name one of {', '.join(sorted(configs))}"
            )
        self._find("config", self.config, configs)
        splits: Any = datasets.load_dataset(path, self.config, revision=commit, streaming=True)
        self._find("split", self.split, list(splits))
        dataset = splits[self.split]
        available = dataset.column_names or list(next(iter(dataset), {}))
        for column in columns:
            self._find("column", column, available)
        selected = [column for column in dict.fromkeys((*columns, *optional)) if column in available]
        # Where there is nothing but an id, the error about it names all columns.
        return dataset.select_columns(selected) if columns or len(selected) > 1 else dataset

    def _find(self, kind: str, name: str | None, known: list[str]) -> None:
        if name is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)
            self.refuse(f"there is no {kind} {name!r}", f"nearest names: {', '.join(near) or 'none'}")

    def explain(self, error: Exception, when: str) -> NoReturn:
        """Raise the error of reading, in words."""
        if isinstance(error, DataError):
            raise error
        trouble = hub_trouble(error, "dataset", self.dataset)
        what, hint = trouble or (f"the dataset cannot be read ({str(error) or type(error).__name__})", "mend it")
        raise DataError(f"{what} {when}".strip(), where=str(self), hint=f"{hint}, {LOCAL_FILES}") from error


@cache
def _newest(dataset: str, revision: str | None) -> str:
    """The commit that a branch or tag is at; the same all through a process."""
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(dataset, revision=revision).sha
    assert commit is not None
    return commit


def check_budgets(name: str, **budgets: int | None) -> None:
    """Refuse budgets of nothing.

    Raises:
        RecipeError: one is; it is named.
    """
    for unit, budget in budgets.items():
        if budget is not None and budget < 1:
            raise RecipeError(
                f"nothing is read of {budget}", where=f"{name}({unit}=...)", hint="give at least 1, or None"
            )
