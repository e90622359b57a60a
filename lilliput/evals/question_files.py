"""Sources of a suite's questions: the Hugging Face hub, or a folder of files and no network at all.

Either way the harness's own task files make the requests; a folder only stands in for their datasets.
"""

import glob
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lilliput.base.errors import DataError
from lilliput.base.files import write_text
from lilliput.base.limits import limit, raising
from lilliput.data.readers.formats import COMPRESSED
from lilliput.data.readers.row_files import rows
from lilliput.evals.load_tasks import load_tasks
from lilliput.evals.local_files import FILES, Row, checked, identity_of
from lilliput.evals.offline import offline, quiet
from lilliput.evals.suites import Suite, TaskUse


@dataclass(frozen=True, kw_only=True)
class Questions:
    """One task's questions, ready for the harness."""

    settings: dict[str, Any]
    """Changes to the settings in the task's file."""
    note: str = ""
    """Note about them for readers."""
    identity: str | None = None
    """See `lilliput.evals.local_files.identity_of`; None where the harness has to load them first."""


class QuestionSource(Protocol):
    """A source of questions."""

    def missing(self, use: TaskUse) -> str | None:
        """The name of what it lacks for a task; None if it lacks nothing that can be seen without loading."""
        ...

    def questions(self, use: TaskUse, work: Path) -> Questions:
        """A task's questions; files that have to be written go to `work`."""
        ...

    def rows(self, use: TaskUse, work: Path) -> Iterator[Row]:
        """A task's questions as rows in the hub's columns.

        Raises:
            DataError: they cannot be had.
        """
        ...

    def loading(self, work: Path) -> AbstractContextManager[None]:
        """Under which the questions are loaded."""
        ...

    def identity(self, uses: Iterable[TaskUse]) -> dict[str, str]:
        """Return what the questions of tasks depend on, by the harness's names, as far as it can be told without
        loading.
        """
        ...

    def differs(self, uses: Iterable[TaskUse], known: Mapping[str, str]) -> bool:
        """Return whether it is seen to have other questions than those with the identities `known`; asks no network."""
        ...


@dataclass(frozen=True)
class Hub:
    """The datasets that the harness's task files name, fetched once and kept in the libraries' own cache."""

    def __str__(self) -> str:
        return "the hub"

    def missing(self, use: TaskUse) -> str | None:
        """Tasks that the harness does not ship have their questions in files alone."""
        return None if use.shipped else f"{FILES[use.task].name}.jsonl"

    def questions(self, use: TaskUse, work: Path) -> Questions:
        """Read the questions as the task's file says."""
        return Questions(settings={}, note=_examples(use))

    def rows(self, use: TaskUse, work: Path) -> Iterator[Row]:
        """The rows of the dataset that the task's file names."""
        with self.loading(work):
            task = load_tasks([use], {use.task: {}}, source=str(self))[use.task]
            yield from task.dataset[FILES[use.task].split]

    def loading(self, work: Path) -> AbstractContextManager[None]:
        """Allow the network, unless the environment forbids it (HF_HUB_OFFLINE)."""
        return quiet(work)

    def identity(self, uses: Iterable[TaskUse]) -> dict[str, str]:
        """The hub, as it is."""
        return {use.task: "hub" for use in uses}

    def differs(self, uses: Iterable[TaskUse], known: Mapping[str, str]) -> bool:
        """Never: it is what is asked where nothing is said, so that it is no wish for other questions either."""
        return False


@dataclass(frozen=True)
class Folder:
    """Local files as `lilliput.evals.local_files` names them; nothing touches the network."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def missing(self, use: TaskUse) -> str | None:
        """The file that should be there."""
        return None if self._found(use) else f"{FILES[use.task].name}.jsonl"

    def questions(self, use: TaskUse, work: Path) -> Questions:
        """The file's rows in the hub's columns.

        Raises:
            DataError: the file is damaged, lacks a column, or has less than two rows.
        """
        file = FILES[use.task]
        pairs, lines, size, most = [], [], 0, limit("document_bytes")
        for row, question in self._rows(use):
            pairs.append((row, question))
            lines.append(json.dumps(question) + "\n")
            size += len(lines[-1])
            if size > most:
                raise DataError(
                    f"{self._found(use)} holds more than {most:,} bytes of questions",
                    where=f"task {use.task!r}",
                    hint=f"give the task's own file; {raising('document_bytes')}",
                )
        if len(pairs) < 2:
            raise DataError(
                f"{self._found(use)} has {len(pairs)} questions",
                where=f"task {use.task!r}",
                hint="a standard error needs two",
            )
        asked = [question for _, question in pairs]
        plain = work / "questions" / f"{use.task}.jsonl"
        write_text(plain, "".join(lines))
        splits = ("training_split", "validation_split", "test_split", "fewshot_split")
        settings: dict[str, Any] = from_files({file.split: plain}, work=work) | dict.fromkeys(splits)
        if use.num_fewshot:
            examples = self._write_examples(use, asked[0], work)
            files = {file.split: plain, "examples": examples}
            settings |= from_files(files, work=work) | {"training_split": "examples"}
        rewritten = file.note if any(question is not row for row, question in pairs) else ""
        return Questions(
            settings=settings | {f"{file.split}_split": file.split},
            note="; ".join(filter(None, (_examples(use), rewritten))),
            identity=identity_of(asked, file),
        )

    def _write_examples(self, use: TaskUse, like: Row, work: Path) -> Path:
        """Write the questions that few-shot examples are drawn from: those of another split, which is not scored.

        Raises:
            DataError: there is no such file, or it is damaged.
        """
        file, name = FILES[use.task], FILES[use.task].name.rpartition(".")[0]
        names = [f"{name}.{split}" for split in ("train", "validation") if f"{name}.{split}" != FILES[use.task].name]
        found = next((path for path in map(self._file, names) if path), None)
        if found is None:
            raise DataError(
                f"{self} has no examples: {' or '.join(f'{one}.jsonl' for one in names)}",
                where=f"task {use.task!r} with --num-fewshot {use.num_fewshot}",
                hint="put the split there, or leave --num-fewshot out",
            )
        examples = (checked(record.values, file, where=str(record)) for record in rows(found, file.columns))
        path = work / "questions" / f"{use.task}.examples.jsonl"
        write_text(path, "".join(json.dumps({key: one.get(key) for key in like}) + "\n" for one in examples))
        return path

    def rows(self, use: TaskUse, work: Path) -> Iterator[Row]:
        """The rows of the file."""
        return (question for _, question in self._rows(use))

    def loading(self, work: Path) -> AbstractContextManager[None]:
        """Without network."""
        return offline(work)

    def identity(self, uses: Iterable[TaskUse]) -> dict[str, str]:
        """The hash of the questions of every file.

        Raises:
            DataError: a file is damaged or lacks a column.
        """
        available = (use for use in uses if self._found(use))
        return {
            use.task: identity_of((question for _, question in self._rows(use)), FILES[use.task]) for use in available
        }

    def stamps(self) -> dict[str, list[int]]:
        """Return size and time of change of every file that is known by its name, without reading any."""
        found = {file.name: self._file(file.name) for file in FILES.values()}
        stats = {name: path.stat() for name, path in sorted(found.items()) if path is not None}
        return {name: [one.st_size, one.st_mtime_ns] for name, one in stats.items()}

    def differs(self, uses: Iterable[TaskUse], known: Mapping[str, str]) -> bool:
        """Return whether a file holds other questions, or some of a task that was not asked."""
        return not self.identity(uses).items() <= known.items()

    def _rows(self, use: TaskUse) -> Iterator[tuple[Row, Row]]:
        """The rows of a task's file, each with what it is in the hub's columns."""
        file, found = FILES[use.task], self._found(use)
        assert found is not None, "asked for after `missing`"
        for record in rows(found, file.columns):
            yield record.values, checked(record.values, file, where=str(record))

    def _found(self, use: TaskUse) -> Path | None:
        return self._file(FILES[use.task].name)

    def _file(self, name: str) -> Path | None:
        plain = self.path / f"{name}.jsonl"
        candidates = [plain, *(plain.with_name(plain.name + suffix) for suffix in COMPRESSED)]
        return next((path for path in candidates if path.is_file()), None)


def question_source(folder: Path | None) -> QuestionSource:
    """Return what `--eval-data` means: the folder, or the hub where none is given.

    Raises:
        DataError: there is no such folder.
    """
    if folder is None:
        return Hub()
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder",
            where="--eval-data",
            hint="give the folder with the evaluation sets, or leave the option out to fetch them from the hub",
        )
    return Folder(folder)


def from_file(path: Path, *, split: str, work: Path) -> dict[str, Any]:
    """Settings of a task that reads one JSON lines file as one split."""
    return from_files({split: path}, work=work)


def from_files(splits: Mapping[str, Path], *, work: Path) -> dict[str, Any]:
    """Settings of a task that reads JSON lines files, one a split."""
    # "shards/[x]/heldout.txt.jsonl" would be read from "shards/x" otherwise.
    exactly = {split: glob.escape(str(path.resolve())) for split, path in splits.items()}
    files = {"data_files": exactly, "cache_dir": str(work.resolve() / "datasets")}
    return {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": files}


def check_questions(suite: Suite, questions: QuestionSource) -> None:
    """Refuse a suite whose questions cannot be had, before anything is loaded or trained.

    Raises:
        DataError: a file is missing; all of them are named.
    """
    missing = {use.task: questions.missing(use) for use in suite.tasks}
    lacking = [name for name in missing.values() if name]
    if lacking:
        available = [task for task, name in missing.items() if not name]
        others = f"or ask only the others: --tasks {','.join(available)}" if available else "or ask another suite"
        raise DataError(
            f"{questions} lacks {', '.join(dict.fromkeys(lacking))}",
            where=f"evaluation suite {suite.name!r}",
            hint=f"put it in the folder of --eval-data, plain or compressed, {others}",
        )


def absent(suite: Suite, questions: QuestionSource) -> dict[str, str]:
    """The missing files of tasks of a suite that are left out for it, by the name of the task on cards."""
    missing = {use.display: questions.missing(use) for use in suite.optional}
    return {name: file for name, file in missing.items() if file is not None}


def _examples(use: TaskUse) -> str:
    """The note of a task that is asked after examples."""
    return f"{use.num_fewshot} examples before each" if use.num_fewshot else ""


def asked(suite: Suite, questions: QuestionSource, made: Iterable[str]) -> tuple[TaskUse, ...]:
    """The tasks of a suite that are asked, given the names of those whose items were made."""
    optional = (use for use in suite.optional if questions.missing(use) is None)
    return (*suite.tasks, *optional, *(use for use in suite.made if use.task in set(made)))
