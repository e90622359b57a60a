"""Filters as stages of datatrove pipelines: one more after each filter that compares the keys of all documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.base.spec import to_plain
from lilliput.data.corpora.filters import Filter, KeyedFilter

DOCUMENTS, DROPPED, KEYS, REPEATED = "documents", "dropped", "keys", "repeated"
"""Folders of a stage."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A pipeline that a number of tasks run, each with its own part."""

    name: str
    steps: list[Any]
    """Steps of datatrove; any of its executors takes the list."""
    tasks: int


def stages(
    source: Any, rows: list[int], filters: Sequence[Filter], work: Path, shards: Path, tasks: int
) -> list[Stage]:
    """The stages that curate a corpus; each reads what the one before has written.

    Args:
        source: the corpus, without filters.
        rows: of each of its files, see `task_source.file_rows`.
        filters: in order.
        work: folder for what stages leave to later ones, and for their records.
        shards: folder of the last stage's documents.
        tasks: number of tasks that share the corpus.

    Raises:
        RecipeError: a filter remembers documents, and no other task could know them.
    """
    from lilliput.data.curate import steps

    made: list[Stage] = []
    begin: list[Any] = [steps.ReadSource(to_plain(source), rows, str(work / "00-0-read" / DROPPED))]
    parts = list(_split(filters))
    for index, (chain, keyed) in enumerate(parts):
        folder = work / f"{index:02d}-1-filter"
        _refuse_memory(chain, tasks)
        middle = [steps.Filter(to_plain(chain), str(folder / DROPPED))] if chain else []
        begin += [steps.ParseLines()] if index and (middle or keyed) else []
        if keyed is None:
            made.append(
                Stage(name=folder.name, steps=[*begin, *middle, steps.WriteShard(str(shards), True)], tasks=tasks)
            )
            break
        keys, found, documents = (str(folder / name) for name in (KEYS, REPEATED, DOCUMENTS))
        ends = [steps.WriteKeys(to_plain(keyed), keys), steps.WriteShard(documents, False)]
        made.append(Stage(name=folder.name, steps=[*begin, *middle, *ends], tasks=tasks))
        columns = key_columns(keyed)
        made.append(Stage(name=f"{index:02d}-2-compare", steps=[steps.FindRepeated(keys, found, tasks)], tasks=columns))
        reason, dropped = f"{keyed.name}: {keyed.reason}", str(work / f"{index + 1:02d}-0-repeated" / DROPPED)
        begin = [steps.ReadShard(documents), steps.DropRepeated(found, columns, reason, dropped)]
    return made


def key_columns(keyed: KeyedFilter) -> int:
    """Return how many keys a filter makes of a text."""
    return getattr(keyed, "buckets", 1)


def _split(filters: Sequence[Filter]) -> Iterator[tuple[tuple[Filter, ...], KeyedFilter | None]]:
    """Filters up to each that compares keys, with it, and the rest."""
    chain: list[Filter] = []
    for filter_ in filters:
        if isinstance(filter_, KeyedFilter):
            yield tuple(chain), filter_
            chain = []
        else:
            chain.append(filter_)
    yield tuple(chain), None


def _refuse_memory(chain: Sequence[Filter], tasks: int) -> None:
    for filter_ in chain:
        if tasks > 1 and getattr(filter_, "remembers", True):
            raise RecipeError(
                f"{type(filter_).__name__} has to see all documents in order, and {tasks} tasks share them",
                where="the filters of the corpus",
                hint="give --tasks 1, or leave it out; Exact and NearDuplicates work with any number of tasks",
            )
