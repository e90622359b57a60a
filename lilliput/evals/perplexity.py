"""Perplexity and bits per byte of any text under any model folder, by the harness path of held-out text."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.corpora.files import TextFiles
from lilliput.data.documents import bytes_of
from lilliput.data.readers.formats import holds_rows
from lilliput.evals.evaluation import Evaluation
from lilliput.evals.harness import evaluate
from lilliput.evals.native_model import Native
from lilliput.evals.question_files import Hub
from lilliput.evals.suites import HELDOUT, Suite, TaskUse

PIECE = 10_000
"""Characters of a piece of a plain text file, at least; a standard error needs more than one."""
METRICS = ("bits_per_byte", "byte_perplexity", "word_perplexity")


def measure_text(
    model_folder: Path | Native,
    path: Path,
    *,
    column: str | None = None,
    limit: int | None = None,
    **settings: Any,
) -> Evaluation:
    """Bits per byte, and perplexity per UTF-8 byte and per blank-separated word, with standard errors over documents.

    Every document is led by one token of context and cut into windows of the model's length that share no token.

    Args:
        model_folder: config, weights, tokenizer, and the model's own code where it has any; or a native model.
        path: rows, a document each, in any format of `TextFiles`; or plain text, whose documents are pieces of at least
            10,000 characters that end where a line does. Compressed files are read as they are.
        column: of the rows' texts; `text` by default.
        limit: read only the first so many documents.
        settings: of `lilliput.evals.harness.evaluate`: its `device`, `dtype` and those after them but `limit`.

    Raises:
        DataError: the file cannot be read, has no such column, or holds less than two documents.
    """
    use = TaskUse(task=HELDOUT.task, metrics=METRICS, chance=None, display=path.name)
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        file, count = work / "text.jsonl", 0
        with open(file, "w", encoding="utf-8") as lines:
            for text in islice(filter(None, _documents(path, column)), limit if limit is None else max(limit, 0)):
                lines.write(json.dumps({"text": text}) + "\n")
                count += 1
        if count < 2:
            raise DataError(
                f"{path} holds {count} documents",
                where="--text",
                hint="give at least two rows, or two words of plain text; a standard error needs them",
            )
        suite, item_files = Suite(name="text", made=(use,)), {use.task: file}
        return evaluate(model_folder, suite, Hub(), item_files=item_files, work=work, **settings)


def _documents(path: Path, column: str | None) -> Iterator[str]:
    if not path.is_file():
        raise DataError(f"{path} is not a file", where="--text", hint="give one file; it may be compressed")
    if column is not None and not holds_rows(path):
        raise DataError(f"{path} holds plain text, which has no columns", where="--column", hint="leave it out")
    for document in TextFiles(paths=(str(path),), text=column or "text").documents():
        bytes_of(document)  # what is no text has none
        yield from (document.text,) if holds_rows(path) else _pieces(document.text)


def _pieces(text: str) -> Iterator[str]:
    """A text in parts of at least `PIECE` characters, but the last, that end with a line; with a word if it is one."""
    size = min(PIECE, max(1, len(text) // 2))
    mark = "\n" if 0 <= text.find("\n", size - 1) < len(text) - 1 else " "
    start = 0
    while start < len(text):
        newline = text.find(mark, start + size - 1)
        end = newline + 1 if newline >= 0 else len(text)
        yield text[start:end]
        start = end
