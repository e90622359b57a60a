"""Evaluation sets whose items nothing that a run reads may give away: read before training, from `--eval-data`.

Their index is a part of the run, so that a run which began with one resumes with it on any machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from lilliput.base.errors import DataError
from lilliput.base.files import sha256
from lilliput.base.run_folder import RunFolder
from lilliput.data.curate.curation import evaluation_sets
from lilliput.data.formats import format_of
from lilliput.data.replies.teacher_replies import TeacherReplies
from lilliput.evals.benchmark_index import benchmark_index
from lilliput.evals.question_files import Folder, QuestionSource
from lilliput.evals.suites import Suite, named
from lilliput.recipe import Recipe

PART = "evaluation_sets"
_ITEMS = "items.safetensors"


@dataclass(frozen=True, kw_only=True)
class SearchedSets:
    """Evaluation sets whose items are searched for in corpora."""

    index: Path
    """File of their n-grams."""
    sha256: str
    """Hash of the index: of all that decides what goes."""
    compared: tuple[str, ...]
    """Names of the tasks, as the harness has them."""

    def without_items(self, corpus: Any) -> Any:
        """A corpus without what overlaps an item; each that goes is counted by the tasks that it overlaps."""
        return format_of(corpus).without_items(corpus, self.index)


class Decontamination:
    """Makes the index of a run's evaluation sets, once, where the recipe names suites and they are at hand.

    Args:
        run: the open run.
        recipe: names suites in its releases.
        questions: source of the evaluation sets; what only the hub has is not searched for.
        console: where progress is shown.
    """

    def __init__(self, run: RunFolder, recipe: Recipe, questions: QuestionSource, console: Console):
        self._run, self._recipe, self._questions, self._console = run, recipe, questions, console

    @cached_property
    def sets(self) -> SearchedSets | None:
        """The sets; None where there are none at hand and the run began with none, or the recipe wants no search."""
        if not self._recipe.decontaminate or not self._suites:
            return None
        outputs = self._indexed() if isinstance(self._questions, Folder) else self._known()
        if outputs is None or not outputs["compared"]:
            return None
        return _searched(self._run, outputs)

    def outputs(self, corpus: Any, sets: SearchedSets | None) -> dict[str, Any]:
        """Return the sets that a corpus was `compared` with, and those `absent`, as `decontaminated`; {} without any.

        Args:
            corpus: of the recipe as it is read; shards of a curation were compared when they were written, and a
                teacher's replies when they had come.
            sets: those that the run compared it with.
        """
        found = corpus.evaluation_sets if isinstance(corpus, TeacherReplies) else evaluation_sets(corpus)
        earlier = found or {"compared": [], "absent": []}
        compared = sorted({*earlier["compared"], *(sets.compared if sets else ())})
        wanted = {use.task for suite in self._suites for use in (*suite.tasks, *suite.optional)}
        absent = sorted({*earlier["absent"], *(wanted if self._recipe.decontaminate else ())} - set(compared))
        return {"decontaminated": {"compared": compared, "absent": absent}} if compared or absent else {}

    @cached_property
    def _suites(self) -> tuple[Suite, ...]:
        return tuple(named(release.suite) for release in self._recipe.releases.values())

    def _known(self) -> Mapping[str, Any] | None:
        """The outputs of the part as the run has it, whatever it was made of."""
        begun = self._run.record(PART).get("from")
        return None if begun is None else self._run.outputs(PART, begun, _is_whole)

    def _indexed(self) -> Mapping[str, Any]:
        """The outputs of the part, made of the sets in the folder unless it was made of these files."""
        questions = self._questions
        assert isinstance(questions, Folder)
        inputs = {"suites": sorted({suite.name for suite in self._suites}), "files": questions.stamps()}

        def build(folder: Path) -> dict[str, Any]:
            with self._console.status("reading the evaluation sets"), TemporaryDirectory() as work:
                found = benchmark_index(self._suites, questions, Path(work)).index
            found.write(folder / _ITEMS)
            tasks = [task for task, counts in found.items.items() if counts.indexed]
            return {"sha256": found.sha256, "compared": tasks, "file": sha256(folder / _ITEMS)}

        return self._run.cached(PART, inputs, build, _is_whole)


def known_sets(run: RunFolder, index: str) -> SearchedSets:
    """Return the evaluation sets of a run, by the hash of their index.

    Raises:
        DataError: the run has another index by now, or none.
    """
    record = run.record(PART)
    outputs = run.outputs(PART, record.get("from"), _is_whole) if record.get("from") else None
    if outputs is None or outputs["sha256"] != index:
        raise DataError(
            "the evaluation sets that its texts were compared with are not those of the run any more",
            where=str(run.path / PART),
            hint="repeat lilliput run with the --eval-data of then",
        )
    return _searched(run, outputs)


def _searched(run: RunFolder, outputs: Mapping[str, Any]) -> SearchedSets:
    path = run.path / PART / _ITEMS
    return SearchedSets(index=path, sha256=outputs["sha256"], compared=tuple(outputs["compared"]))


def _is_whole(folder: Path, outputs: Any) -> bool:
    path = folder / _ITEMS
    return path.is_file() and sha256(path) == outputs["file"]
