"""Pairs of answers as what a corpus holds: rows of whole ones, measured in nats per token of an answer."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.hash_cache import HashCache
from lilliput.data.corpora.pairs import PairFiles
from lilliput.data.corpus_format import CorpusFormat, WriteSettings
from lilliput.data.decontaminated import Decontaminated
from lilliput.data.documents import TextHash
from lilliput.data.dropped import Dropped, iterate, kept
from lilliput.data.lost_conversations import check_lost
from lilliput.data.pair_rows import PackedPairs, write_pairs
from lilliput.data.pairs import Pair
from lilliput.data.split import HeldOut


@dataclass(frozen=True)
class PairFormat(CorpusFormat):
    """Pairs of a chosen and a rejected answer."""

    unit: ClassVar[str] = "nats per answer token"
    noun: ClassVar[str] = "pairs"
    packs_rows: ClassVar[bool] = True
    target_share: ClassVar[float] = 0.5
    is_searched: ClassVar[bool] = True

    def items(self, corpus: Any) -> Iterator[Pair]:
        return kept(self.iterate(corpus))

    def iterate(self, corpus: Any) -> Iterator[Pair | Dropped]:
        """Every item of a corpus, and the reasons for which it dropped others."""
        return iterate(corpus, "pairs")

    def text(self, item: Pair) -> str:
        """The contents of all messages: the prompt with either answer, as a question may be given away by both."""
        read = (*item.prompt, *item.chosen, *item.prompt, *item.rejected)
        return "\n".join(message.content for message in read)

    def without_items(self, corpus: Any, index: Path) -> Decontaminated:
        return Decontaminated(source=corpus, format=self, index=index)

    def characters(self, item: Pair) -> int:
        return sum(len(message.content.strip()) for message in (*item.prompt, *item.chosen, *item.rejected))

    def write(
        self, corpus: Any, tokenizer: Tokenizer, split: HeldOut, folder: Path, settings: WriteSettings
    ) -> dict[str, Any]:
        hashing = _HashingPairs(corpus)
        with settings.console.status(f"{settings.name}: encoding"):
            index = write_pairs(hashing, tokenizer, split, folder, settings.length, settings.end)
        outputs = {"text_sha256": hashing.texts.hex(), "index_sha256": index["sha256"], "sides": index["sides"]}
        return outputs | ({"dropped": dict(hashing.dropped)} if hashing.dropped else {})

    def open(self, folder: Path, tokenizer_hash: str | None, verified: HashCache | None) -> PackedPairs:
        return PackedPairs(folder, tokenizer_hash, verified)

    def size(self, side: Mapping[str, Any]) -> int:
        return side["pairs"]

    def tokens_per_pass(self, side: Mapping[str, Any], length: int) -> int:
        return (length - 1) * side["rows"]  # the first token of a row is no target

    def validate(
        self, name: str, sides: Mapping[str, Mapping[str, Any]], *, length: int, lost: float, phases: Sequence[str]
    ) -> None:
        check_lost(name, sides, length, lost, phases, noun=self.noun, reader="PairData")

    def from_files(self, corpus: Any, paths: tuple[str, ...], column: str) -> PairFiles:
        if column:
            raise DataError(
                f"pairs have no column to name, and {column!r} is given",
                where="--source",
                hint="leave it out: columns of pairs are prompt, chosen and rejected",
            )
        files = corpus if isinstance(corpus, PairFiles) else PairFiles(paths=paths)
        return replace(files, paths=paths)


PAIRS = PairFormat()


class _HashingPairs:
    """A corpus of pairs that hashes them as they go by."""

    def __init__(self, corpus: Any):
        self._corpus, self.texts = corpus, TextHash()
        self.dropped: Counter[str] = Counter()
        """Number of pairs that the corpus dropped, by reason."""

    def identity(self) -> Any:
        return self._corpus.identity()

    def pairs(self) -> Iterator[Pair]:
        return kept(self.iterate())

    def iterate(self) -> Iterator[Pair | Dropped]:
        for item in PAIRS.iterate(self._corpus):
            if isinstance(item, Dropped):
                self.dropped[str(item)] += 1
            else:
                for message in (*item.prompt, *item.chosen, *item.rejected):
                    self.texts.add(message.role, message.content)
            yield item
