"""A teacher's likeliest tokens at each place of corpora, computed once, for a student that reads them in every pass.

It is `SoftTargets` that charges a student for them. Text is read in rows, in the order of the token files, so that a
token at the beginning of a row of a long document is predicted from less of it than the student may see.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import numpy as np
import torch

from lilliput.base.errors import RecipeError
from lilliput.base.files import read_json
from lilliput.base.ownership import check_name
from lilliput.base.spec import check_range
from lilliput.computations.computation import Computation
from lilliput.data.batch import document_ids_of
from lilliput.data.corpus_format import TokenFiles
from lilliput.data.shards import Shards
from lilliput.data.soft_targets import PROGRESS, SHARDS, SoftTargetWriter, file_name, record_type
from lilliput.growth.growth import Lineage
from lilliput.model import LanguageModel
from lilliput.tokenizer.bpe import tokenizer_hash
from lilliput.train.machine import Machine

SYNC_SECONDS = 20.0
"""Time after which what is computed is safe from a kill."""


class ModelSource(Protocol):
    """A model with its weights; `lilliput.publish.pretrained.PretrainedModel` is one."""

    def build(self, seed: int) -> LanguageModel:
        """Return the model, on the CPU."""
        ...

    def tokenizer_hash(self) -> str:
        """Return the hash of its tokenizer."""
        ...


@dataclass(frozen=True, kw_only=True)
class TopKPredictions(Computation):
    """The `count` likeliest tokens at each place of the train sides of corpora, and their log-probabilities."""

    name: str
    corpora: tuple[str, ...]
    length: int
    """Positions of a row."""
    teacher: ModelSource | None = None
    """A model of the same tokenizer; None for the model of the timeline as it is here, whose student comes after."""
    count: int = 16

    def __post_init__(self) -> None:
        check_name("computation", self.name, "TopKPredictions(name=...)")
        check_range(f"TopKPredictions {self.name!r}", 1, inf, length=self.length, count=self.count)

    def reads(self) -> tuple[str, ...]:
        return self.corpora

    @torch.no_grad()
    def compute(
        self, lineage: Lineage, tokens: Mapping[str, TokenFiles], folder: Path, *, machine: Machine, seed: int
    ) -> dict[str, Any]:
        """The vocabulary, the count, and the hash of the token files of each corpus."""
        model = self._teacher(lineage, seed).to(machine.device)
        texts = {name: self._text(name, tokens[name], model) for name in self.corpora}
        record = record_type(model.spec.vocab, self.count)
        for name, shards in texts.items():
            if not self._is_written(folder, name, shards, record):
                self._write(model, name, shards, folder, record, machine)
        (folder / PROGRESS).unlink(missing_ok=True)
        hashes = {name: shards.index["sha256"] for name, shards in texts.items()}
        return {"vocab": model.spec.vocab, "count": self.count, SHARDS: hashes}

    def _teacher(self, lineage: Lineage, seed: int) -> LanguageModel:
        if self.teacher is None:
            return lineage.model
        if self.teacher.tokenizer_hash() != tokenizer_hash(lineage.tokenizer):
            raise RecipeError(
                "the teacher has another tokenizer than its student: its predictions would be of other tokens",
                where=f"TopKPredictions {self.name!r}",
                hint="train it with the same `tokenizer`, `tokenizer_corpora` and corpora, or let the student take its "
                "own: tokenizer=PretrainedTokenizer(checkpoint=...)",
            )
        return self.teacher.build(seed)

    def _text(self, name: str, shards: TokenFiles, model: LanguageModel) -> Shards:
        where = f"TopKPredictions {self.name!r}"
        if not isinstance(shards, Shards):
            raise RecipeError(f"the corpus {name!r} is no text", where=where, hint="name corpora of documents")
        if self.count > model.spec.vocab:
            raise RecipeError(
                f"there are {model.spec.vocab:,} tokens, not {self.count:,}", where=where, hint="give a smaller count"
            )
        return shards

    def _is_written(self, folder: Path, name: str, shards: Shards, record: np.dtype) -> bool:
        """Return whether a file is whole: the one that is being written is named in `progress.json`."""
        path, progress = folder / file_name(name), folder / PROGRESS
        under_way = progress.is_file() and read_json(progress).get("corpus") == name
        size = shards.index["sides"]["train"]["tokens"] * record.itemsize
        return path.is_file() and not under_way and path.stat().st_size == size

    def _write(
        self, model: LanguageModel, name: str, shards: Shards, folder: Path, record: np.dtype, machine: Machine
    ) -> None:
        saved, rows = monotonic(), machine.held_out_rows(self.length)
        was_training = model.training
        model.eval()
        with SoftTargetWriter(folder, name, shards.index["sha256"], record) as writer:
            for batch, sizes in self._batches(shards, writer.count - 1, rows):
                ids = torch.from_numpy(document_ids_of(batch, shards.end))[:, :-1].to(machine.device)
                inputs = torch.from_numpy(batch)[:, :-1, None].to(machine.device)
                with machine.cast(), torch.compiler.set_stance("force_eager"):
                    logits = model.logits(model.forward_layers(model.embed(inputs), document_ids=ids))
                likeliest = logits.float().log_softmax(dim=-1).topk(self.count)
                kept = (torch.arange(self.length) < torch.from_numpy(sizes)[:, None]).to(machine.device)
                writer.write(likeliest.indices[kept], likeliest.values[kept])
                if monotonic() - saved > SYNC_SECONDS:
                    writer.sync()
                    saved = monotonic()
            writer.sync()
        model.train(was_training)

    def _batches(self, shards: Shards, start: int, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows [B, length + 1] from a position on, and how many positions of each have a next token [B]."""
        stream = shards.stream("train")
        for first in range(start, len(stream) - 1, rows * self.length):
            begins = np.arange(first, min(first + rows * self.length, len(stream) - 1), self.length)
            sizes = np.minimum(self.length, len(stream) - 1 - begins)
            batch = np.full((len(begins), self.length + 1), shards.end, dtype=np.int64)
            for row, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
                batch[row, : size + 1] = stream.read(int(begin), int(size) + 1)
            yield batch, sizes
