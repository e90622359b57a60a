"""Reading ahead: the same bytes and the same errors, in the same places, and no more than a few pieces of them."""

import bz2
import gzip
import io
import lzma
import threading
import time
from pathlib import Path

import pytest

from lilliput.base.errors import DataError
from lilliput.data.readers import ahead
from lilliput.data.readers.ahead import ReadAhead
from lilliput.data.readers.lines import lines

LINES = [f"line {number} of a file\n".encode() for number in range(60_000)]


@pytest.mark.parametrize(("suffix", "packed"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_packed_file_is_read_to_its_end_or_to_where_it_is_damaged(suffix: str, packed, tmp_path: Path) -> None:
    path, data = tmp_path / f"a.jsonl{suffix}", packed(b"".join(LINES))
    path.write_bytes(data)
    assert [line for _, line, _ in lines(path)] == LINES
    path.write_bytes(data[: len(data) // 2])
    read = []
    with pytest.raises(DataError, match="cannot be read any further") as raised:
        read.extend(line for _, line, _ in lines(path))
    assert raised.value.where.startswith(f"{path}, record ")


class Source(io.BytesIO):
    """A file of which so many pieces can be read."""

    pieces = 1_000_000
    taken = 0

    def read1(self, size: int | None = -1) -> bytes:
        self.taken += 1
        if self.taken > self.pieces:
            raise OSError("the disk is gone")
        return b"some" * 1_000


def test_errors_come_after_what_was_read_before_them() -> None:
    source = Source()
    source.pieces = 3
    with io.BufferedReader(ReadAhead(source, source.tell)) as file:
        assert file.read(12_000) == b"some" * 3_000
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                file.read(1)


def test_few_pieces_are_read_ahead_and_the_thread_ends_with_the_file() -> None:
    source = Source()
    with io.BufferedReader(ReadAhead(source, source.tell), 4_000) as file:
        file.read(40_000)
        time.sleep(0.2)
        assert 10 < source.taken < 20
    assert not any(thread.name.endswith("(_read_all)") for thread in threading.enumerate())


def test_a_file_that_waits_for_ever_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_PATIENCE", 0.05)
    answers = threading.Event()
    source = Source()
    monkeypatch.setattr(source, "read1", lambda size: answers.wait() and b"")
    began = time.monotonic()
    ReadAhead(source, source.tell).close()
    assert time.monotonic() - began < 5
    answers.set()
