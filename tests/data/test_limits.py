"""Files that would fill the memory, or never end: refused by name, before more than the limit of them is held."""

import bz2
import gzip
import json
import lzma
import os
import socket
import tracemalloc
from pathlib import Path
from zlib import crc32

import pyarrow
import pyarrow.parquet
import pytest

from lilliput.base.errors import DataError, LilliputError
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.documents import Document
from lilliput.data.readers import paths
from lilliput.data.readers.paths import files_of
from lilliput.data.readers.rows import read_back

MIB = 1 << 20
PACKED = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
}


def limits(monkeypatch: pytest.MonkeyPatch, **most: int) -> None:
    for name, value in most.items():
        monkeypatch.setenv(f"LILLIPUT_MAX_{name.upper()}", str(value))


def refused(corpus: TextFiles | ChatFiles) -> DataError:
    with pytest.raises(DataError) as raised:
        list(corpus.documents() if isinstance(corpus, TextFiles) else corpus.conversations())
    return raised.value


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_little_is_held_of_what_grows_to_much(name: str, suffix: str, tmp_path: Path, monkeypatch) -> None:
    limits(monkeypatch, line_bytes=MIB, document_bytes=MIB)
    path = tmp_path / (name + suffix)
    good = b'{"text": "one"}\n' if name == "a.jsonl" else b"one\n"
    path.write_bytes(PACKED[suffix](good + bytes(24 * MIB)))
    tracemalloc.start()
    error = refused(TextFiles(paths=(str(path),)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MIB
    assert error.where == (f"{path}, record 2" if name == "a.jsonl" else str(path)) and "1,048,576 bytes" in error.what
    assert f"export LILLIPUT_MAX_{'LINE' if name == 'a.jsonl' else 'DOCUMENT'}_BYTES=2097152" in error.hint


def test_what_is_exactly_as_long_as_a_limit_is_read_and_a_byte_more_is_not(tmp_path: Path, monkeypatch) -> None:
    path, texts = tmp_path / "a.jsonl", ["one", "é" * 40, "three"]
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
    plain = tmp_path / "b.txt"
    plain.write_text(texts[1])
    longest = len(f'{{"text": "{texts[1]}"}}\n'.encode())
    rows, whole = TextFiles(paths=(str(path),)), TextFiles(paths=(str(plain),))
    limits(monkeypatch, line_bytes=longest, document_bytes=80)
    assert [document.text for document in rows.documents()] == texts
    assert list(whole.documents()) == [Document(texts[1], "b.txt", "b.txt")]
    limits(monkeypatch, document_bytes=79)
    for corpus, where in ((rows, f"{path}, record 2"), (whole, str(plain))):
        error = refused(corpus)
        assert error.where == where and "79 bytes" in error.what and "LILLIPUT_MAX_DOCUMENT_BYTES=158" in error.hint
    limits(monkeypatch, line_bytes=longest - 1, document_bytes=80)
    assert refused(rows).where == f"{path}, record 2"


def test_conversations_have_limits_too(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.jsonl"
    turns = [{"role": "user", "content": "x" * 100}, {"role": "assistant", "content": "y" * 100}]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    limits(monkeypatch, document_bytes=200)
    assert len(list(ChatFiles(paths=(str(path),)).conversations())) == 1
    limits(monkeypatch, document_bytes=199)
    assert refused(ChatFiles(paths=(str(path),))).where == f"{path}, record 1"
    limits(monkeypatch, line_bytes=200)
    assert "longer than 200 bytes" in refused(ChatFiles(paths=(str(path),))).what


def test_what_we_wrote_of_a_text_is_read_back_however_long_its_escapes_made_it(tmp_path: Path, monkeypatch) -> None:
    limits(monkeypatch, line_bytes=100, document_bytes=100)
    path = tmp_path / "heldout.jsonl"
    path.write_text(json.dumps({"id": "\x01" * 80, "text": "\x01" * 100}) + "\n")
    assert [record.text("text") for record in read_back(path)] == ["\x01" * 100]
    path.write_text(json.dumps({"id": "a", "text": "x" * 2_000}) + "\n")
    with pytest.raises(DataError, match="longer than 1,200 bytes"):
        list(read_back(path))


def stored(path: Path, columns: dict, **how) -> TextFiles:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **how)
    return TextFiles(paths=(str(path),))


BOMBS = {
    "one cell": (["0" * 16 * MIB], {}),
    "one cell beside many": (["a"] * 1_000 + ["0" * 16 * MIB], {"use_dictionary": False}),
    "cells that are no worse packed": (["a"] * 9 + [os.urandom(MIB).hex()], {}),
    "nothing, very often": ([[None] * 2 * MIB], {}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_little_is_held_of_columns_that_grow(bomb: str, tmp_path: Path, monkeypatch) -> None:
    limits(monkeypatch, line_bytes=MIB, document_bytes=MIB)
    cells, how = BOMBS[bomb]
    corpus = stored(tmp_path / "a.parquet", {"text": cells}, compression="zstd", **how)
    before = pyarrow.default_memory_pool().bytes_allocated()
    documents, error = corpus.documents(), None
    try:
        for _ in documents:
            assert pyarrow.default_memory_pool().bytes_allocated() - before < 6 * MIB
    except DataError as caught:
        error = caught
    assert error is not None and "a.parquet, record" in error.where and "LILLIPUT_MAX_LINE_BYTES" in error.hint


def test_a_cell_that_many_rows_share_is_not_held_for_each_of_them(tmp_path: Path, monkeypatch) -> None:
    limits(monkeypatch, line_bytes=2 * MIB, document_bytes=2 * MIB)
    cell = os.urandom(MIB // 2).hex()
    shared = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100, pyarrow.int32()), pyarrow.array([cell]))
    corpus = stored(tmp_path / "a.parquet", {"text": shared}, dictionary_pagesize_limit=8 * MIB)
    assert (tmp_path / "a.parquet").stat().st_size < 2 * MIB
    before = pyarrow.default_memory_pool().bytes_allocated()
    for document in corpus.documents():
        assert document.text == cell and pyarrow.default_memory_pool().bytes_allocated() - before < 12 * MIB


def test_columns_that_nobody_asks_for_are_not_read(tmp_path: Path, monkeypatch) -> None:
    limits(monkeypatch, line_bytes=MIB)
    texts = [f"text {number}" for number in range(9)]
    unread = {
        "blob": [bytes(2 * MIB)] * 9,
        "when": [10**18] * 9,
        "deep": [{"a": [{"b": [number]}]} for number in range(9)],
    }
    corpus = stored(tmp_path / "a.parquet", unread | {"text": texts}, row_group_size=4, compression="zstd")
    assert [document.text for document in corpus.documents()] == texts
    assert [document.text for document, _ in corpus.iterate_from([0, 5, 0.5])] == texts[5:]
    for name, says in (
        ("body", "no column 'body'"),
        ("deep", "not text"),
        ("when", "is 1000000000000000000, not text"),
    ):
        error = refused(TextFiles(paths=corpus.paths, text=name))
        assert says in error.what and error.where == f"{tmp_path / 'a.parquet'}, record 1"
        assert "blob, when, deep, text" in error.hint, "all columns are named, also those that were not read"


def test_numbers_nesting_and_keys_that_no_reader_takes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for odd, says in (
        ("[" * 100_000, "not JSON"),
        ('{"text": ' + '{"a": ' * 900 + "1" + "}" * 901, "not text|not JSON"),
        ('{"text": "a", "number": ' + "9" * 10_000 + "}", "not JSON"),
        ('{"text": "a", "text": "b"}', "'text' is there twice"),
        ('{"text": 1e999}', "inf, not text"),
        ('{"text": NaN}', "nan, not text"),
        ('{"text": ["a"]}', "not text"),
        ('{"text": "\\ud800", "id": {"a": [1]}}', ""),
        (json.dumps({f"\x1b[2J{number}" * 30: number for number in range(2_000)}), "no column 'text'"),
    ):
        path.write_text(f'{{"text": "fine"}}\n{odd}\n')
        if not says:
            assert len(list(TextFiles(paths=(str(path),)).documents())) == 2
            continue
        with pytest.raises(DataError, match=says) as raised:
            list(TextFiles(paths=(str(path),)).documents())
        assert raised.value.where == f"{path}, record 2" and len(str(raised.value)) < 5_000
        assert "\x1b" not in str(raised.value)


def test_what_is_no_file_is_refused_or_passed_over_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    os.mkfifo(tmp_path / "texts" / "b.txt")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "texts" / "c.txt"))
    for name, target in (("d.txt", "d.txt"), ("e.txt", "/dev/zero"), ("g.txt", "nowhere")):
        (tmp_path / "texts" / name).symlink_to(target)
    assert list(TextFiles(paths=(str(tmp_path / "texts"),)).documents()) == [Document("a", "a.txt", "a.txt")]
    assert len(list(files_of((str(tmp_path / "texts" / "*.txt"),)))) == 1
    for name in ("texts/b.txt", "texts/c.txt", "texts/d.txt", "texts/e.txt", "texts/[b-z].txt"):
        with pytest.raises(DataError, match="no file or folder"):
            list(TextFiles(paths=(str(tmp_path / name),)).documents())


def test_a_pattern_does_not_go_round_in_circles(tmp_path: Path) -> None:
    """Two links to the folder that they are in are 2**40 paths for a pattern that follows them."""
    for name in ("a/b", "other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.txt").write_text(name)
    pattern = f"{tmp_path}/a/**/*.txt"
    (tmp_path / "a" / "link").symlink_to(tmp_path / "other")
    assert [Path(file).parent.name for file in files_of((pattern,))] == ["b", "link"], "links are followed"
    for name in ("one", "two"):
        (tmp_path / "other" / name).symlink_to(tmp_path / "a" / "b")
        (tmp_path / "a" / "b" / name).symlink_to(tmp_path / "other")
    with pytest.raises(LilliputError, match="leads back to one that it lies in") as raised:
        list(files_of((pattern,), "--source texts"))
    assert raised.value.where == "--source texts"


def test_folders_that_links_multiply_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "LINKED", 500)
    for level in range(20):
        (tmp_path / f"{level}").mkdir()
        for name in "ab":
            (tmp_path / f"{level}" / name).symlink_to(tmp_path / f"{level + 1}")
    with pytest.raises(LilliputError, match="behind links"):
        list(files_of((f"{tmp_path}/0/**/*.txt",)))


def test_xz_takes_streams_and_zeros_and_no_more_memory_than_it_may(tmp_path: Path) -> None:
    path, one = tmp_path / "a.jsonl.xz", lzma.compress(b'{"text": "a"}\n')
    path.write_bytes(one * 2 + bytes(8) + one + bytes(4))
    assert len(list(TextFiles(paths=(str(path),)).documents())) == 3
    path.write_bytes(one + b"rubbish")
    assert "cannot be read any further" in refused(TextFiles(paths=(str(path),))).what
    head = bytearray(one)
    head[16] = 40  # the size of the dictionary: 4 GiB
    head[20:24] = crc32(head[12:20]).to_bytes(4, "little")
    path.write_bytes(head)
    assert "Memory usage limit" in refused(TextFiles(paths=(str(path),))).what
