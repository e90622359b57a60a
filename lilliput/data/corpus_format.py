"""The seam for what corpora hold: how it becomes token files, and what everyone asks of these.

Text, conversations and pairs are the formats of Lilliput. Another is a class like theirs: inherit `CorpusFormat`, which
answers for what only some formats have, and give corpora of it the class attribute `format`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rich.console import Console
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.hash_cache import HashCache
from lilliput.data.batch import Batch
from lilliput.data.split import HeldOut


class TokenFiles(Protocol):
    """Token files of a corpus, verified and open for reading; what a `DataSpec` opens to train on."""

    folder: Path
    index: dict[str, Any]
    """`sides` with counts of each, `sha256` over all of it, and what else its format needs."""

    tokenizer: Tokenizer | None
    """Whose ids these are; a run sets it when it has opened them."""

    @property
    def heldout_size(self) -> int:
        """Return how much there is to measure on, in whatever the format counts; 0 for nothing."""
        ...

    def heldout_batches(self, length: int, positions: int, rows: Callable[[int], int]) -> Iterator[Batch]:
        """The first held-out rows, always the same ones.

        Args:
            length: tokens of a row, where the files do not decide it.
            positions: to measure at most; one row at least.
            rows: of a batch, given the length of a row.
        """
        ...

    def heldout_loss(self, total: float, targets: float) -> float:
        """Cross-entropy in the unit of the format, from the sum in nats over so many targets."""
        ...


@dataclass(frozen=True, kw_only=True)
class WriteSettings:
    """Settings of a run for the token files of a corpus."""

    name: str
    """Name of the corpus."""
    end: str
    """The tokenizer's token that ends documents."""
    length: int
    """Tokens of a row, for a format that packs rows; else 0."""
    shard_tokens: int
    inputs: Any
    """JSON value that decides, with the corpus as it is read, what is written: the same after a kill."""
    processes: int
    """Processes that encode, where there is enough to do; the files are the same with any number."""
    console: Console


class CorpusFormat(Protocol):
    """Kind of data in a corpus; a frozen value without fields."""

    unit: ClassVar[str]
    """Unit of held-out cross-entropy, such as `bits per byte`."""
    noun: ClassVar[str]
    """Noun of its items in messages."""
    packs_rows: ClassVar[bool] = False
    """True if token files hold whole rows, of one length, with their empty ends."""
    can_cut: ClassVar[bool] = False
    """True if the end of an item can be held out alone."""
    target_share: ClassVar[float] = 1.0
    """The share of a row that has targets, about."""
    heldout_texts: ClassVar[str | None] = None
    """The file of held-out texts, JSON lines, among the token files; None for a format of other things."""
    is_searched: ClassVar[bool] = False
    """True if its items are searched for those of evaluation sets: if it has a `without_items`."""

    def items(self, corpus: Any) -> Iterator[Any]:
        """Every item of a corpus, each with a `group`, the unit of the held-out split."""
        ...

    def characters(self, item: Any) -> int:
        """Return how long an item is, white space at its ends aside; 0: there is nothing to learn from."""
        ...

    def without_items(self, corpus: Any, index: Path) -> Any:
        """A corpus without what overlaps an item of an evaluation set; `write` counts that by task.

        Args:
            corpus: of this format.
            index: file of the sets' n-grams (`NgramIndex.write`).
        """
        return corpus

    def write(
        self, corpus: Any, tokenizer: Tokenizer, split: HeldOut, folder: Path, settings: WriteSettings
    ) -> dict[str, Any]:
        """Encode a corpus into a folder, which appears whole or not at all.

        Returns:
            `text_sha256` over what was read, `index_sha256`, `sides` with counts of each, and `dropped` by reason.
        """
        ...

    def open(self, folder: Path, tokenizer_hash: str | None, verified: HashCache | None) -> TokenFiles:
        """Token files that `write` wrote, each compared with its hash."""
        ...

    def size(self, side: Mapping[str, Any]) -> int:
        """Return how much a side holds, by its counts; 0: nothing."""
        ...

    def tokens_per_pass(self, side: Mapping[str, Any], length: int) -> int:
        """Text tokens that a pass over the training side reads, by its counts and the length of its rows."""
        ...

    def text_bytes(self, sides: Mapping[str, Mapping[str, Any]]) -> int | None:
        """UTF-8 bytes of text on all sides; None where tokens alone are counted."""
        return None

    def validate(
        self, name: str, sides: Mapping[str, Mapping[str, Any]], *, length: int, lost: float, phases: Sequence[str]
    ) -> None:
        """Refuse token files that lack too much of a corpus.

        Args:
            name: of the corpus.
            sides: counts by side.
            length: tokens of a row.
            lost: share of the items that may be lost.
            phases: names of those that read it.

        Raises:
            DataError: they do.
        """

    def from_files(self, corpus: Any, paths: tuple[str, ...], column: str) -> Any:
        """A corpus that is read from local files in the place of another one.

        Raises:
            DataError: no files hold what this format is of.
        """
        raise DataError(
            f"a corpus of {self.noun} is not read from files",
            where=f"--source for {type(corpus).__name__}",
            hint="change the recipe: only corpora of texts and conversations are read from files",
        )


class FormattedCorpus(Protocol):
    """A corpus that says what it holds; a frozen keyword-only spec, so that a recipe can name it."""

    @property
    def format(self) -> CorpusFormat:
        """A class attribute, so that it is no setting of the corpus."""
        ...

    def identity(self) -> Any:
        """Return what its items depend on besides the spec, as a JSON value."""
        ...
