"""Benchmark items that a run's own training text gives away.

An item counts as read where the training text has 13 words in a row of its question and right answer, or all of one of
8 to 12 words (`lilliput.data.ngram_index`); shorter items cannot be told from everyday phrases, and count as not read.
The text is that of the token files, decoded: what the model saw, after every filter; of conversations the contents of
the messages, so that an item is found where its question and its answer are two of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from lilliput.base.files import read_json
from lilliput.data.chat_rows import PackedChats
from lilliput.data.encoded_documents import document_texts, encoded_documents
from lilliput.data.ngram_index import Items, NgramIndex
from lilliput.data.pair_rows import PackedPairs
from lilliput.data.shards import Shards
from lilliput.data.token_files import INDEX
from lilliput.evals.benchmark_index import indexed_items
from lilliput.evals.question_files import QuestionSource
from lilliput.evals.suites import TaskUse
from lilliput.run.run_data import RunData

_KINDS = {"documents": Shards, "conversations": PackedChats, "pairs": PackedPairs}
Report = Callable[[str], None]
"""Called with a line that says how far the search is."""


@dataclass(frozen=True, kw_only=True)
class ReadItems:
    """Items of tasks that training text overlaps."""

    items: frozenset[str]
    """Keys, `item_key` of a task and the number that the harness has for the item."""
    texts: Mapping[str, int]
    """Tokens of training text that were searched, by corpus."""
    counts: Mapping[str, Items]
    """Items that could be found, and those that are too short, by the harness's name of their task."""

    def of(self, task: str) -> int:
        """Return how many items of a task were found."""
        return sum(item.rpartition("/")[0] == task for item in self.items)


def find_read_items(
    folder: Path, corpora: Iterable[str], uses: Iterable[TaskUse], questions: QuestionSource, *, report: Report
) -> ReadItems:
    """Search the training text of a run for the items of tasks.

    Args:
        folder: of the run.
        corpora: names of those that are searched.
        uses: the tasks.
        questions: source of their questions.
        report: called as the search proceeds.

    Raises:
        DataError: questions or token files are missing or damaged.
    """
    uses = tuple(uses)
    with TemporaryDirectory() as work:
        keyed = (
            (item_key(use.task, number), text)
            for use in uses
            for number, text in enumerate(indexed_items(use, questions, Path(work)))
        )
        index = NgramIndex(keyed)
    texts: dict[str, int] = {}
    found = set[str]()
    data = RunData(folder)
    tokenizer = data.tokenizer(len(data.recipe.timeline))
    for name in corpora:
        if not (folder / "shards" / name / INDEX).is_file():
            continue  # of a phase that is still to come
        index_file = read_json(folder / "shards" / name / INDEX)
        tokens = texts[name] = index_file["sides"]["train"]["tokens"]
        searched = 0
        for size, batch in _texts(folder / "shards" / name, index_file["kind"], tokenizer):
            for overlaps in index.overlaps_of(batch):
                found.update(overlaps)
            searched += size
            report(f"{name}: {searched:,} of {tokens:,} tokens searched, {len(found):,} items found")
    counts: dict[str, Items] = {}
    for key, one in index.items.items():
        task = key.rpartition("/")[0]
        before = counts.get(task, Items())
        counts[task] = Items(before.indexed + one.indexed, before.short + one.short)
    return ReadItems(items=frozenset(found), texts=texts, counts=counts)


def item_key(task: str, number: int) -> str:
    """Return the key of an item by the harness's name of its task and the number that the harness has for it."""
    return f"{task}/{number}"


def _texts(folder: Path, kind: str, tokenizer: Tokenizer) -> Iterator[tuple[int, list[str]]]:
    """The training texts of a corpus in batches, each with its number of tokens.

    They are decoded: the texts themselves may lie on another machine by now.
    """
    for batch in encoded_documents(_KINDS[kind](folder), "train"):
        yield sum(map(len, batch)), document_texts([one for one in batch if len(one)], tokenizer)
