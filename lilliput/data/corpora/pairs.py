"""The corpora of pairs: of local files, of the hub, and made from a chat corpus by taking another question's answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lilliput.base.errors import DataError
from lilliput.base.spec import LATER
from lilliput.data.conversations import ChatCorpus
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.hub import HubDataset, check_budgets
from lilliput.data.messages import ASSISTANT
from lilliput.data.pairs import CHOSEN, PAIR_COLUMNS, REJECTED, Pair, row_pair
from lilliput.data.readers.formats import holds_rows, suffix_of
from lilliput.data.readers.paths import nothing_in, readable_files
from lilliput.data.readers.row_files import rows


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """Local files of rows, in any format of `TextFiles`, that hold pairs in any form of `data/pairs.py`."""

    paths: tuple[str, ...]
    """Files, folders and glob patterns, as for `TextFiles`."""
    id: str = "id"
    """Column that names the row; a row without it is "<file name>:<row number>"."""
    license: str | None = field(default=None, metadata=LATER)
    """Under which the texts come, by its hub name; None: not named, as cards then say."""

    def identity(self) -> list[Any]:
        """Size and time of change of every file."""
        return TextFiles(paths=self.paths).identity()

    def pairs(self) -> Iterator[Pair]:
        """Yield the pairs in the order of the files and of their rows.

        Raises:
            DataError: a file is missing, damaged or of another kind, a row holds no pair, or none has a row.
        """
        empty = True
        for found in readable_files(self.paths):
            if found.is_about:
                continue
            if not holds_rows(found.path):
                raise DataError(
                    f"a {suffix_of(found.path) or 'nameless'} file holds no pairs",
                    where=str(found.path),
                    hint="give .jsonl, .ndjson, .json, .csv, .tsv (plain or compressed) or .parquet files",
                )
            for record in rows(found.path, (*PAIR_COLUMNS, self.id)):
                empty = False
                yield row_pair(record.values, record.id(self.id), str(record), record.columns)
        if empty:
            raise nothing_in(self.paths)


@dataclass(frozen=True, kw_only=True)
class HubPairs(HubDataset):
    """Pairs of a dataset on the hub, or of a folder that is laid out like one.

    For UltraFeedback: `HubPairs(dataset="HuggingFaceH4/ultrafeedback_binarized", split="train_prefs", license="mit")`.
    """

    def __post_init__(self) -> None:
        check_budgets("HubPairs", rows=self.rows)

    def pairs(self) -> Iterator[Pair]:
        """Yield the pairs in the order of the files and of their rows.

        Raises:
            DataError: as for `HubText`, or a row holds no pair.
        """
        for number, row, _ in self._subset.rows((CHOSEN, REJECTED), (*PAIR_COLUMNS, self.id), self.rows):
            yield row_pair(row, self._subset.id_of(row, self.id, number), f"{self._subset}, row {number}")


@dataclass(frozen=True, kw_only=True)
class ShuffledAnswers:
    """The first question of each conversation with its answer as the chosen one, and another question's as rejected.

    They are not judged: they teach to listen to the question, and make a preference phase testable without a
    dataset. A conversation of the same answer as the one before it, or without a question and an answer, is left out.
    """

    source: ChatCorpus

    def identity(self) -> Any:
        """Return what the source's conversations depend on."""
        return self.source.identity()

    def pairs(self) -> Iterator[Pair]:
        """Yield a pair for each conversation after the first one, whose answer is the rejected one of the next."""
        before = None
        for conversation in self.source.conversations():
            messages = conversation.messages
            place = next((index for index, one in enumerate(messages) if one.role == ASSISTANT), 0)
            if not place or messages[place - 1].role != "user":
                continue
            answer = messages[place]
            if before is not None and before.content != answer.content:
                yield Pair(messages[:place], (answer,), (before,), conversation.id)
            before = answer
