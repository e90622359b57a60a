"""Text as what a corpus holds: shards of one stream of documents, measured in bits per byte."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer

from lilliput.base.hash_cache import HashCache
from lilliput.base.progress import Progress
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.corpora.filters.decontaminate import Decontaminate
from lilliput.data.corpora.hub_partitions import HubPartitions
from lilliput.data.corpus_format import CorpusFormat, WriteSettings
from lilliput.data.documents import Corpus, Document, Null
from lilliput.data.shards import HELDOUT_TEXTS, Shards, write_shards
from lilliput.data.split import HeldOut
from lilliput.data.tokenization_report import ProgressLines


@dataclass(frozen=True)
class TextFormat(CorpusFormat):
    """Documents."""

    unit: ClassVar[str] = "bits per byte"
    noun: ClassVar[str] = "text"
    can_cut: ClassVar[bool] = True
    heldout_texts: ClassVar[str | None] = HELDOUT_TEXTS
    is_searched: ClassVar[bool] = True

    def items(self, corpus: Corpus) -> Iterator[Document]:
        return corpus.documents()

    def characters(self, item: Document) -> int:
        return len(item.text.strip())

    def without_items(self, corpus: Corpus, index: Path) -> Filtered:
        return Filtered(source=corpus, filters=(Decontaminate(index=str(index)),))

    def write(
        self, corpus: Corpus, tokenizer: Tokenizer, split: HeldOut, folder: Path, settings: WriteSettings
    ) -> dict[str, Any]:
        with Progress(settings.console, settings.name, "encoding") as shown:
            written = write_shards(
                corpus,
                tokenizer,
                split,
                folder,
                shard_tokens=settings.shard_tokens,
                progress=ProgressLines(shown),
                end=settings.end,
                inputs=settings.inputs,
                processes=settings.processes,
            )
        index = written.index
        outputs = {"text_sha256": written.text, "index_sha256": index["sha256"], "sides": index["sides"]}
        return outputs | ({"dropped": written.dropped} if written.dropped else {})

    def open(self, folder: Path, tokenizer_hash: str | None, verified: HashCache | None) -> Shards:
        return Shards(folder, tokenizer_hash, verified)

    def size(self, side: Mapping[str, Any]) -> int:
        return side["bytes"]

    def tokens_per_pass(self, side: Mapping[str, Any], length: int) -> int:
        return side["tokens"]

    def text_bytes(self, sides: Mapping[str, Mapping[str, Any]]) -> int:
        return sum(side["bytes"] for side in sides.values())

    def from_files(self, corpus: Any, paths: tuple[str, ...], column: str) -> TextFiles | HubPartitions:
        if isinstance(corpus, HubPartitions) and len(paths) == 1 and (local := corpus.in_folder(*paths, column)):
            return local
        null: Null = getattr(corpus, "null", "refuse")
        files = corpus if isinstance(corpus, TextFiles) else TextFiles(paths=paths, null=null)
        return replace(files, paths=paths, text=column or files.text)


TEXT = TextFormat()
