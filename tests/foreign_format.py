"""A third kind of corpus, defined outside of the package: pairs of a good text and a worse one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import tiny
import torch

from lilliput.base.files import new_folder
from lilliput.data.batch import Batch, Cursor
from lilliput.data.corpus_format import CorpusFormat
from lilliput.data.documents import TextHash
from lilliput.data.token_files import SIDES, header, in_bytes, new_index, open_index, seal_index


@dataclass(frozen=True)
class Pair:
    good: str
    bad: str
    group: str


@dataclass(frozen=True)
class PairFormat(CorpusFormat):
    """A row holds both texts of a pair, one after the other, of which the good one has targets."""

    unit: ClassVar[str] = "nats per good token"
    noun: ClassVar[str] = "pairs"
    packs_rows: ClassVar[bool] = True
    target_share: ClassVar[float] = 0.25

    def items(self, corpus):
        return corpus.pairs()

    def characters(self, item):
        return len(item.good.strip())

    def write(self, corpus, tokenizer, split, folder, settings):
        index, text = new_index("pairs", tokenizer, settings.end) | {"length": settings.length}, TextHash()
        rows: dict[str, list[list[int]]] = {side: [] for side in SIDES}
        for pair in corpus.pairs():
            text.add(pair.good, pair.bad)
            row = []
            for one, room in ((pair.good, settings.length // 2), (pair.bad, -(-settings.length // 2))):
                ids = tokenizer.encode(one).ids[:room]
                row += ids + [index["end"]] * (room - len(ids))
            rows["heldout" if split.is_heldout(pair.group) else "train"].append(row)
        with new_folder(folder) as partial:
            for side in SIDES:
                numbers = np.array(rows[side], dtype=np.int64).reshape(-1)
                path = partial / f"{side}-pairs.bin"
                path.write_bytes(header(index["dtype"], index["tokenizer"]) + in_bytes(numbers, index["dtype"]))
            index["files"] = [{"name": f"{side}-pairs.bin"} for side in SIDES]
            index["sides"] = {side: {"pairs": len(rows[side]), "rows": len(rows[side])} for side in SIDES}
            index = seal_index(partial, index)
        return {"text_sha256": text.hex(), "index_sha256": index["sha256"], "sides": index["sides"]}

    def open(self, folder, tokenizer_hash, verified):
        return PairFiles(open_index(folder, "pairs", tokenizer_hash, verified, _lengths))

    def size(self, side: Mapping[str, Any]):
        return side["pairs"]

    def tokens_per_pass(self, side: Mapping[str, Any], length: int):
        return side["rows"] * length


def _lengths(index):
    width = np.dtype(index["dtype"]).itemsize * index["length"]
    return {f"{side}-pairs.bin": index["sides"][side]["rows"] * width for side in SIDES}


class PairFiles:
    tokenizer = None

    def __init__(self, opened):
        self.folder, self.index, self.length = opened.folder, opened.index, opened.index["length"]
        self._sides = {
            side: opened.numbers(f"{side}-pairs.bin", self.index["dtype"], self.index["vocab"]) for side in SIDES
        }

    @property
    def heldout_size(self):
        return self.count("heldout")

    def count(self, side):
        return self.index["sides"][side]["rows"]

    def take(self, side, indices):
        tokens = torch.from_numpy(self._sides[side].rows(indices, self.length).astype(np.int64))
        document_ids = torch.zeros(tokens.shape, dtype=torch.int32)
        document_ids[:, self.length // 2 :] = 1
        weight = ((document_ids == 0) & (tokens != self.index["end"])).float()
        return Batch(tokens=tokens, weight=weight, document_ids=document_ids)

    def heldout_batches(self, length, positions, rows):
        yield self.take("heldout", range(min(self.count("heldout"), positions // self.length)))

    def heldout_loss(self, total, targets):
        return total / targets


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """So many pairs."""

    format: ClassVar = PairFormat()
    count: int

    def identity(self):
        return self.count

    def pairs(self) -> Iterator[Pair]:
        for number in range(self.count):
            yield Pair(tiny.sentences(number), tiny.sentences(number)[::-1], f"pair {number}")


@dataclass(frozen=True, kw_only=True)
class PairData:
    """Training on the pairs of a corpus, in order."""

    corpus: str

    @property
    def corpora(self):
        return (self.corpus,)

    def bytes_per_token(self, tokens):
        return None

    def open(self, tokens):
        return PairReader(self.corpus, tokens[self.corpus])


class PairReader:
    def __init__(self, name, rows):
        self.name, self.rows = name, rows

    @property
    def tokens_available(self):
        return self.rows.count("train") * self.rows.length

    def read(self, cursor, rows, length, overlap=1):
        start, count = cursor.of(self.name), self.rows.count("train")
        assert length == self.rows.length
        indices = list(islice((row % count for row in range(start, start + rows)), rows))
        return self.rows.take("train", indices), Cursor(positions=((self.name, start + rows),))
