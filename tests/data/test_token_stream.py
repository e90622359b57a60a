"""Token files read once from beginning to end: every token, and memory that does not grow with the files."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lilliput.base.hash_cache import digest
from lilliput.data.packed_rows import ARRAYS, PackedRows
from lilliput.data.pieces import POSITION, piece_begins
from lilliput.data.token_files import TokenArray, header, in_bytes
from lilliput.data.token_stream import TokenStream

END = 0
MEGABYTE = 1 << 20


def numbers(path: Path, values: np.ndarray, dtype: str = "uint16") -> TokenArray:
    path.write_bytes(header(dtype, "0" * 64) + in_bytes(values, dtype))
    return TokenArray(path, dtype, digest(path)[1], int(values.max(initial=0)) + 1)


def mapped() -> int:
    """Return the bytes of files that are mapped into memory and there."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_blocks_are_all_tokens_in_order(tmp_path: Path, size: int) -> None:
    values = [np.arange(1, 20), np.arange(0), np.arange(20, 51)]
    stream = TokenStream([numbers(tmp_path / f"{place}", some) for place, some in enumerate(values)], END)
    blocks = list(stream.blocks(size))
    assert np.concatenate(blocks).tolist() == list(range(1, 51)) and max(map(len, blocks)) <= size
    assert stream.read(3, 5).tolist() == [4, 5, 6, 7, 8], "pages that were released are read again"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reading_once_keeps_no_page_in_memory(tmp_path: Path) -> None:
    values = np.tile(np.arange(1, 1 << 10, dtype=np.uint16), 64 << 10)  # 128 MB
    stream = TokenStream([numbers(tmp_path / "0", values[: len(values) // 2]), numbers(tmp_path / "1", values)], END)
    before, most = mapped(), 0
    for _ in stream.blocks(MEGABYTE):
        most = max(most, mapped() - before)
    assert most < 16 * MEGABYTE, "192 MB were read"
    stream.read(0, 16 * MEGABYTE)
    assert mapped() - before > 24 * MEGABYTE, "what is read otherwise is measured by the same rule"


def test_documents_begin_where_pieces_do_that_begin_with_the_end_token(tmp_path: Path) -> None:
    """There are more pieces than are read together; a document of 20,000 tokens is three of them."""
    values = np.tile(np.array([END, 5, 6]), 70_000)
    values[-20_000:] = 7
    begins = np.concatenate(list(piece_begins([values], END)))
    stream = TokenStream([numbers(tmp_path / "0", values)], END, numbers(tmp_path / "1", begins, POSITION))
    assert stream.document_begins.tolist() == np.flatnonzero(values == END).tolist() < begins.tolist()
    assert len(begins) > len(stream.document_begins) > 1 << 15


class Rows(PackedRows):
    """Rows of two tokens in files of their own, without an index."""

    def __init__(self, folder: Path, count: int):
        values = np.arange(2 * count)
        self.index = {"sides": {"train": {"rows": count}}, "end": END}
        self.length = 2
        self._arrays = {("train", array): numbers(folder / array, values) for array in ARRAYS}


@pytest.mark.parametrize("count", [1, 5, 6])
def test_batches_are_all_rows_in_order(tmp_path: Path, count: int) -> None:
    batches = [batch.tokens for batch in Rows(tmp_path, count).batches("train", 3)]
    assert [row.tolist() for rows in batches for row in rows] == [[2 * n, 2 * n + 1] for n in range(count)]
    assert max(map(len, batches)) <= 3
