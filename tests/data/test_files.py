"""Local files of texts: real files, every compression, every error path."""

import gzip
import json
import lzma
from pathlib import Path

import pytest

from lilliput.base.errors import DataError
from lilliput.data.corpora.files import TextFiles
from lilliput.data.documents import Document

ROWS = [
    {"text": f"Text number {number}, été.", "id": f"row-{number}", "source": "ab"[number % 2]} for number in range(5)
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def zst(data: bytes) -> bytes:
    import pyarrow as arrow

    sink = arrow.BufferOutputStream()
    with arrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKERS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zst}


@pytest.mark.parametrize("suffix", PACKERS)
def test_rows_are_read_through_every_compression(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.jsonl{suffix}", PACKERS[suffix](b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\n\n", 1)))
    documents = list(TextFiles(paths=(path,), group="source").documents())
    assert [document.text for document in documents] == [row["text"] for row in ROWS]
    assert [document.id for document in documents] == [row["id"] for row in ROWS]
    assert [document.group for document in documents] == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_text_file_is_one_document(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"story.txt{suffix}", PACKERS[suffix]("Für immer.\r\nEnd".encode()))
    name = f"story.txt{suffix}"
    assert list(TextFiles(paths=(path,)).documents()) == [Document("Für immer.\r\nEnd", name, name)]


def test_parquet_gives_the_same_documents_as_json_lines(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=2)
    lines = write(tmp_path / "a.jsonl", LINES)
    for group in (None, "source"):
        rows = list(TextFiles(paths=(str(tmp_path / "a.parquet"),), group=group).documents())
        assert rows == list(TextFiles(paths=(lines,), group=group).documents())
    missing = TextFiles(paths=(str(tmp_path / "a.parquet"),), text="body")
    with pytest.raises(DataError, match=r"(?s)no column 'body'.*a\.parquet, record 1.*text, id, source"):
        list(missing.documents())


def test_rows_without_id_are_named_by_file_and_number(tmp_path: Path) -> None:
    path = write(tmp_path / "b.jsonl", b'{"text": "one"}\n\n{"text": "two", "id": 7}\n')
    assert [(item.id, item.group) for item in TextFiles(paths=(path,)).documents()] == [("b.jsonl:1",) * 2, ("7",) * 2]


def test_folders_and_globs_are_sorted_and_hidden_files_left_out(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/y.txt", ".hidden.txt", ".git/x.txt", "c.jsonl.partial"):
        write(tmp_path / name, name.encode())
    folder = [document.text for document in TextFiles(paths=(str(tmp_path),)).documents()]
    assert folder == ["a/y.txt", "a/z.txt", "b.txt"]
    pattern = TextFiles(paths=(f"{tmp_path}/**/[yb].txt", str(tmp_path / "a" / "z.txt")))
    assert [document.text for document in pattern.documents()] == ["a/y.txt", "b.txt", "a/z.txt"]


def test_documents_keep_their_names_wherever_their_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("texts/b.txt", "texts/a/z.txt"):
        write(tmp_path / name, b"x")

    def names(*paths: str) -> list[str]:
        return [document.id for document in TextFiles(paths=paths).documents()]

    below = ["a/z.txt", "b.txt"]
    assert names(f"{tmp_path}/texts") == names(f"{tmp_path}/texts/**/*.txt") == below
    assert names(f"{tmp_path}/texts/a/z.txt") == ["z.txt"] and names(f"{tmp_path}/*/b.txt") == ["texts/b.txt"]
    monkeypatch.chdir(tmp_path / "texts")
    assert names(".") == names("**/*.txt") == names("../texts") == below


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", LINES[:-10], r"(?s)not JSON.*a\.jsonl, record 5.*hint"),
        ("a.jsonl", b'{"text": "ok"}\n[1]\n', r"(?s)not a JSON object.*record 2"),
        ("a.jsonl", b'{"text": "ok"}\n{"body": "x"}\n', r"(?s)no column 'text'.*record 2.*body"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": null}\n', r"(?s)is null, not text.*record 2.*null=\"drop\""),
        ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', r"(?s)xff' at offset 10 is not UTF-8.*record 2"),
        ("a.txt", b"fine\nbad \xe9\n", r"(?s)not UTF-8.*line 2"),
        ("a.jsonl", b"\n\n", r"(?s)holds a record.*a\.jsonl"),
        ("a.parquet", b"PAR1 no more", r"(?s)cannot be read.*a\.parquet, record 1"),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-20], r"(?s)cannot be read.*record \d.*truncated"),
        ("a.jsonl.gz", b"no gzip at all", r"(?s)cannot be read.*record 1"),
        ("a.jsonl.xz", lzma.compress(LINES)[:-20], r"(?s)cannot be read.*record \d.*truncated"),
        ("a.jsonl.zst", zst(LINES)[:-20], r"(?s)cannot be read.*record \d.*truncated"),
        ("a.txt.xz", lzma.compress(LINES)[:60], r"(?s)cannot be read.*a\.txt\.xz"),
    ],
)
def test_damage_is_reported_with_file_and_record(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(DataError, match=message):
        list(TextFiles(paths=(path,)).documents())


def test_missing_paths_and_groups_are_errors(tmp_path: Path) -> None:
    for path in (str(tmp_path / "none.jsonl"), str(tmp_path / "*.txt")):
        with pytest.raises(DataError, match="no file or folder"):
            list(TextFiles(paths=(path,)).documents())
    with pytest.raises(DataError, match="holds no file"):
        list(TextFiles(paths=(str(tmp_path),)).documents())
    with pytest.raises(DataError, match="holds a record"):
        list(TextFiles(paths=()).documents())
    path = write(tmp_path / "a.jsonl", LINES)
    with pytest.raises(DataError, match="no column 'shelf'"):
        list(TextFiles(paths=(path,), group="shelf").documents())


def test_rows_are_streamed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(LINES * 20_000)[:-50])
    documents = TextFiles(paths=(path,)).documents()
    assert next(documents).id == "row-0", "the first row comes before the damage at the end is met"
    with pytest.raises(DataError):
        list(documents)


def test_a_linked_folder_is_read_and_one_that_leads_back_refused(tmp_path):
    texts, elsewhere = tmp_path / "texts", tmp_path / "elsewhere"
    texts.mkdir()
    elsewhere.mkdir()
    (texts / "a.txt").write_text("here")
    (elsewhere / "b.txt").write_text("there")
    (texts / "more").symlink_to(elsewhere)
    assert [each.text for each in TextFiles(paths=(str(texts),)).documents()] == ["here", "there"]
    (elsewhere / "back").symlink_to(texts)
    with pytest.raises(DataError, match="back"):
        list(TextFiles(paths=(str(texts),)).documents())
