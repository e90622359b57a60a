"""Small steps that datatrove's executors run: read, filter, write keys, compare keys, drop what was there, write.

A task has a rank; its steps pass documents on one by one and write their files once the last has come. A task that was
interrupted begins again and writes the same files, so that nothing depends on when that was. Steps hold plain values
alone, which go to other processes.
"""

from collections.abc import Iterable, Iterator
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep
from safetensors import safe_open
from safetensors.numpy import save

from lilliput.base.files import write_bytes
from lilliput.base.spec import from_plain
from lilliput.data.corpora.filters import FilterChain
from lilliput.data.curate.shard_files import SUFFIX, Drops, document_of, line_of, read_lines, write_lines
from lilliput.data.curate.task_source import task_items
from lilliput.data.documents import Document

_ROWS = 4_096
"""Rows of keys that become one array."""


class ReadSource(PipelineStep):
    """Read this task's part of a corpus."""

    name, type = "read", "lilliput"

    def __init__(self, source: dict[str, Any], rows: list[int], folder: str):
        super().__init__()
        self.source, self.rows, self.folder = source, rows, folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents; what the corpus drops by itself is counted."""
        drops, read = Drops(), 0
        for item in task_items(from_plain(self.source), rank, world_size, self.rows):
            read += 1
            if isinstance(item, str):
                drops.add(item)
            else:
                yield item
        drops.write(Path(self.folder) / f"{rank:05d}.json", documents=read)


class ReadShard(PipelineStep):
    """Read the shard that the stage before has written under this rank."""

    name, type = "read", "lilliput"

    def __init__(self, folder: str):
        super().__init__()
        self.folder = folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[bytes]:
        """Yield the lines."""
        return read_lines(Path(self.folder) / f"{rank:05d}{SUFFIX}")


class ParseLines(PipelineStep):
    """Make documents of the lines of a shard, for steps that look at them."""

    name, type = "parse", "lilliput"

    def run(self, data: Iterable[bytes], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents."""
        return map(document_of, data)


class Filter(PipelineStep):
    """Judge each document by a chain of filters."""

    name, type = "filter", "lilliput"

    def __init__(self, filters: list[dict[str, Any]], folder: str):
        super().__init__()
        self.filters, self.folder = filters, folder

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield what the filters keep."""
        drops, judge = Drops(), FilterChain(from_plain(self.filters)).begin()
        for document in data:
            result = judge(document)
            if isinstance(result, str):
                drops.add(result, document)
            else:
                yield result
        drops.write(Path(self.folder) / f"{rank:05d}.json")


class WriteKeys(PipelineStep):
    """Write the keys that a filter compares documents by."""

    name, type = "keys", "lilliput"

    def __init__(self, keyed: dict[str, Any], folder: str):
        super().__init__()
        self.keyed, self.folder = keyed, folder

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield every document."""
        documents, ahead = tee(data)
        keys = from_plain(self.keyed).keys_of(document.text for document in ahead)
        rows: list[np.ndarray] = []
        blocks: list[np.ndarray] = []
        owners: list[int] = []
        for index, (document, row) in enumerate(zip(documents, keys, strict=True)):
            if row is not None:
                rows.append(row)
                owners.append(index)
            if len(rows) == _ROWS:
                blocks.append(np.stack(rows))
                rows.clear()
            yield document
        blocks += [np.stack(rows)] if rows else []
        columns = np.concatenate(blocks).T if blocks else np.zeros((0, 0), dtype=np.uint64)
        arrays = {"keys": np.ascontiguousarray(columns), "documents": np.array(owners, dtype=np.int64)}
        write_bytes(Path(self.folder) / f"{rank:05d}.keys", save(arrays))


class FindRepeated(PipelineStep):
    """Find the documents, of all tasks, that share a key with one before them; of one task, this rank's column."""

    name, type = "repeated", "lilliput"

    def __init__(self, keys: str, folder: str, tasks: int):
        super().__init__()
        self.keys, self.folder, self.tasks = keys, folder, tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the indexes of documents that are not the first with their key, by task."""
        columns = [self._column(task, rank) for task in range(self.tasks)]
        keys = np.concatenate([column for column, _ in columns])
        order = np.argsort(keys, kind="stable")  # equal keys stay in the order of the documents
        ordered = keys[order]
        repeated = np.zeros(len(keys), dtype=bool)
        repeated[order[1:]] = ordered[1:] == ordered[:-1]
        parts = np.split(repeated, np.cumsum([len(column) for column, _ in columns])[:-1])
        found = {f"{task:05d}": columns[task][1][part] for task, part in enumerate(parts)}
        write_bytes(Path(self.folder) / f"{rank:03d}.repeated", save(found))

    def _column(self, task: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
        with safe_open(Path(self.keys) / f"{task:05d}.keys", framework="numpy") as file:
            keys, documents = file.get_slice("keys"), file.get_tensor("documents")
            return (keys[rank] if len(documents) else np.zeros(0, dtype=np.uint64)), documents


class DropRepeated(PipelineStep):
    """Drop the lines of the documents of this task that `FindRepeated` has found."""

    name, type = "drop", "lilliput"

    def __init__(self, found: str, columns: int, reason: str, folder: str):
        super().__init__()
        self.found, self.columns, self.reason, self.folder = found, columns, reason, folder

    def run(self, data: Iterable[bytes], rank: int = 0, world_size: int = 1) -> Iterator[bytes]:
        """Yield the other lines."""
        repeated = set[int]()
        for column in range(self.columns):
            with safe_open(Path(self.found) / f"{column:03d}.repeated", framework="numpy") as file:
                repeated.update(file.get_tensor(f"{rank:05d}").tolist())
        drops = Drops()
        for index, line in enumerate(data):
            if index in repeated:
                drops.add(self.reason, document_of(line))
            else:
                yield line
        drops.write(Path(self.folder) / f"{rank:05d}.json")


class WriteShard(PipelineStep):
    """Write this task's documents."""

    name, type = "write", "lilliput"

    def __init__(self, folder: str, is_last: bool):
        super().__init__()
        self.folder, self.is_last = folder, is_last

    def run(self, data: Iterable[Document | bytes], rank: int = 0, world_size: int = 1) -> Iterator[bytes]:
        """Yield the line of every document; of one that no step parsed, the line that was read."""
        lines = (item if isinstance(item, bytes) else line_of(item) for item in data)
        return write_lines(Path(self.folder) / f"{rank:05d}{SUFFIX}", lines, is_last=self.is_last)
