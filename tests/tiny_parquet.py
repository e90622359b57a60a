"""Folders of Parquet files laid out like datasets that SLM-10M and MTLM1 were trained on: their columns, a few rows."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import tiny_partitions

FILES = {
    "fineweb-edu": ("sample/10BT", "{:03d}_00000.parquet"),
    "fineweb": ("sample/10BT", "{:03d}_00000.parquet"),
    "fineweb-hq": ("data/CC-MAIN-2013-20", "train-{:05d}-of-00002.parquet"),
    "cosmopedia": ("data/stanford", "train-{:05d}-of-00002.parquet"),
    "cosmopedia-v2": ("cosmopedia-v2", "train-{:05d}-of-00002.parquet"),
    "finemath": ("finemath-4plus", "train-{:05d}-of-00002.parquet"),
    "knowledge": ("20231101.en", "train-{:05d}-of-00002.parquet"),
}
"""Where a dataset has its files, by name of the corpus in the recipes."""


def write_folder(root: Path, corpus: str, documents: int) -> Path:
    """Write the folder of a corpus, in two files, and return it."""
    place, name = FILES[corpus]
    (root / place).mkdir(parents=True)
    for file in range(2):
        rows = [_row(corpus, number) for number in range(file * documents, (file + 1) * documents)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / place / name.format(file))
    return root


def _row(corpus: str, number: int) -> dict[str, Any]:
    text = tiny_partitions.text_of(corpus, number)
    if corpus.startswith("cosmopedia"):
        about = {"prompt": f"Write about {number}.", "text_token_length": 200, "seed_data": "stanford"}
        return about | {"text": text, "format": "textbook", "audience": "students"}
    if corpus == "knowledge":
        return {"id": str(number), "url": f"https://example.org/{number}", "title": f"Page {number}", "text": text}
    crawled = {"id": f"<urn:uuid:{number}>", "dump": "CC-MAIN-2013-20", "url": f"https://example.org/{number}"}
    return {"text": text} | crawled | {"language": "en", "language_score": 0.97, "token_count": 200, "score": 3.1}
