"""Training data of a run, to look at: its tokenizer, token files and rows as they are there. Nothing is written."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lilliput.base.errors import DataError, RunError, reading
from lilliput.base.hash_cache import HashCache
from lilliput.base.run_folder import RunFolder, no_run
from lilliput.data.batch import Cursor, RowSource
from lilliput.data.corpora.concatenated import at_revision
from lilliput.data.corpus_format import TokenFiles
from lilliput.data.formats import format_of
from lilliput.data.pair_format import PAIRS
from lilliput.data.row_text import RowDocument, row_documents
from lilliput.data.small_corpora import sides
from lilliput.recipe import read_recipe, unknown, vocabulary_of
from lilliput.run.decontamination import known_sets
from lilliput.run.verified_token_files import VERIFIED
from lilliput.tokenizer.bpe import load_tokenizer
from lilliput.train.checkpoint import at_step, read_progress, steps_in
from lilliput.train.passes import tokens_per_pass
from lilliput.train.phase import Phase, StepPlan, phase_folder
from lilliput.train.resuming import CHECKPOINTS, continues_data, place_of
from lilliput.train.rollback import Incidents


@dataclass(frozen=True, kw_only=True)
class ShownRow:
    """A row as training reads it."""

    number: int
    """Place of the row in its phase, from 0."""
    source: RowSource | None
    documents: tuple[RowDocument, ...]
    is_of_pairs: bool


class RunData:
    """The recipe of a run, and what there is of its data.

    Args:
        folder: of the run.

    Raises:
        LilliputError: it is no run, or one whose own code may not run.
    """

    def __init__(self, folder: Path):
        if not (folder / "recipe.json").is_file():
            raise no_run(folder)
        self.folder, self.run = folder, RunFolder(folder)
        self.recipe = read_recipe(folder).filled(vocabulary_of(self.run))
        self._files: dict[str, TokenFiles] = {}

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora that the timeline reads and that have token files; a run until a phase has not all."""
        named = dict.fromkeys(name for entry in self.recipe.timeline for name in entry.reads())
        return tuple(name for name in named if self.record(name))

    def phase(self, name: str | None) -> int:
        """The index of a phase in the timeline; of the first one, where none is named.

        Raises:
            RecipeError: there is none of that name.
        """
        named = {phase.name: index for index, phase in self.recipe.phases.items()}
        if name is not None and name not in named:
            raise unknown("phase", name, list(named), str(self.folder))
        if not named:
            raise RunError("the recipe trains nothing", where=str(self.folder), hint="give a run that has a phase")
        return named[name] if name is not None else next(iter(named.values()))

    def tokenizer(self, index: int = 0) -> Tokenizer:
        """The tokenizer as the entry at an index of the timeline has it.

        Raises:
            DataError: the run has none yet.
        """
        folder = self.folder / "tokenizer"
        if not folder.is_dir():
            raise DataError(
                "there is no tokenizer yet", where=str(folder), hint=f"make it: lilliput data {self.folder}"
            )
        tokenizer = load_tokenizer(folder)
        for entry in self.recipe.timeline[:index]:
            tokenizer = entry.retokenize(tokenizer)
        return tokenizer

    def record(self, name: str) -> dict[str, Any]:
        """Return what the run recorded of the token files of a corpus; empty where there are none."""
        record = self.run.record(f"shards/{name}")
        return record["outputs"] if record.get("done") else {}

    def tokens(self, name: str) -> Any:
        """The token files of a corpus, as its format opens them, once.

        Raises:
            DataError: they are not there, or damaged.
        """
        if name not in self._files:
            if not self.record(name):
                raise DataError(
                    f"there are no token files of {name!r} yet",
                    where=str(self.folder / "shards" / name),
                    hint=f"write them: lilliput data {self.folder}",
                )
            with reading(self.folder / VERIFIED, "remove it"):
                known = (self.run.read(VERIFIED) or {"files": {}})["files"]
            verified = HashCache(self.folder, known)
            files = format_of(self.recipe.corpora[name]).open(self.folder / "shards" / name, None, verified)
            files.tokenizer = self.tokenizer()
            self._files[name] = files
        return self._files[name]

    def reader(self, index: int) -> Any:
        """The reader of a phase's rows, without what computations add to them."""
        data = self.recipe.phases[index].data
        return data.open({name: self.tokens(name) for name in data.corpora})

    def document_ids(self, name: str, numbers: Collection[int]) -> dict[int, str]:
        """The ids of training documents by their numbers, from the corpus, which is read again up to the last of them.

        Raises:
            DataError: the corpus is out of reach, or its text has changed since it was encoded.
        """
        record = self.run.record(f"shards/{name}")
        content = record["from"]["corpus"]["content"]
        corpus = at_revision(self.recipe.corpora[name], content)
        if corpus.identity() != content:
            raise DataError(
                f"the text of {name} has changed since the run read it, and the numbers of documents mean others now",
                where=str(self.folder),
                hint="leave --ids out, or put the text back",
            )
        if searched := record["from"].get("evaluation_sets"):
            corpus = known_sets(self.run, searched).without_items(corpus)
        corpus, split = sides(corpus, self.recipe.split, record["outputs"].get("held_out", "groups"))
        train = (document.id for document in corpus.documents() if not split.is_heldout(document.group))
        found = enumerate(islice(train, max(numbers, default=-1) + 1))
        return {number: identity for number, identity in found if number in numbers}

    def tokens_per_pass(self, name: str) -> int:
        """Text tokens that a pass over the training side of a corpus reads.

        Raises:
            DataError: it has no token files.
        """
        self.tokens(name)
        return tokens_per_pass(self.recipe.corpora[name], self.run.record(f"shards/{name}")) or 0

    def read(self, index: int) -> dict[str, int] | None:
        """Return the tokens that a phase has read of each corpus by its last checkpoint; None without one."""
        phase = self.recipe.phases[index]
        checkpoints = self.folder / phase_folder(index, phase) / CHECKPOINTS
        steps = steps_in(checkpoints)
        if not steps:
            return None
        last, begun = read_progress(at_step(checkpoints, steps[-1])).cursor, Cursor()
        before = self.recipe.phase_before(index)
        if phase.resumes is not None and before is not None:
            begun = read_progress(place_of(before[1], self.folder / phase_folder(*before))).cursor
        sizes = {name: self.tokens(name).index.get("length", 2) - 1 for name in phase.reads()}  # of a packed row
        return {name: (last.of(name) - begun.of(name)) * sizes[name] for name in phase.reads()}

    def rows(self, index: int, step: int, count: int) -> list[ShownRow]:
        """The rows that a phase reads from the beginning of a step on, counted from 1; as many as there are steps for.

        Raises:
            RunError: the phase has no such step.
        """
        phase, reader, tokenizer = self.recipe.phases[index], self.reader(index), self.tokenizer(index)
        plan = StepPlan(phase)
        if step > plan.steps:
            raise RunError(
                f"there is no step {step:,}",
                where=f"the phase {phase.name} of {self.folder}",
                hint=f"give one from 1 to {plan.steps:,}",
            )
        end = self.tokens(phase.data.corpora[0]).index["end"]
        is_of_pairs = format_of(self.recipe.corpora[phase.data.corpora[0]]) == PAIRS
        found: list[ShownRow] = []
        for number, cursor in islice(enumerate(self.cursors(index)), step - 1, plan.steps):
            length, overlap = phase.row_tokens(plan.stage(number))
            some = min(plan.rows, count - len(found))
            batch, _ = reader.read(cursor, some, length, overlap)
            sources = _sources(reader, cursor, some, length, overlap)
            for row, source in enumerate(sources):
                is_packed = source is not None and source.row is not None
                documents = row_documents(batch, row, tokenizer, end, overlap=overlap, is_packed=is_packed)
                shown = ShownRow(
                    number=number * plan.rows + row,
                    source=source,
                    documents=tuple(documents),
                    is_of_pairs=is_of_pairs,
                )
                found.append(shown)
            if len(found) == count:
                break
        return found

    def cursors(self, index: int) -> Iterator[Cursor]:
        """Yield where each step of a phase begins to read, and where the last one ends.

        Text that the phase left out after an incident is passed over, as it was in training.
        """
        phase, reader = self.recipe.phases[index], self.reader(index)
        plan, cursor = StepPlan(phase), self._beginning(index, phase)
        incidents = Incidents(self.folder / phase_folder(index, phase) / CHECKPOINTS, writes=False)
        for step in range(plan.steps):
            cursor = incidents.skip(cursor)
            yield cursor
            length, overlap = phase.row_tokens(plan.stage(step))
            cursor = reader.skip(cursor, plan.rows, length, overlap)
        yield cursor

    def _beginning(self, index: int, phase: Phase) -> Cursor:
        before = self.recipe.phase_before(index)
        if before is None or not continues_data(phase, before[1]):
            return Cursor()
        resumed = StepPlan(before[1]).resumable
        return next(cursor for step, cursor in enumerate(self.cursors(before[0])) if step == resumed)


def _sources(reader: Any, cursor: Cursor, rows: int, length: int, overlap: int) -> Sequence[RowSource | None]:
    """Origins of some rows, as far as the reader tells them."""
    return reader.sources(cursor, rows, length, overlap) if hasattr(reader, "sources") else [None] * rows
