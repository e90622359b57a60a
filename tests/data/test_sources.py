"""Local files, the split, conversations and curation: real files, every error path."""

import gzip
import hashlib
import json
import lzma
import random
import unicodedata
from pathlib import Path
from time import monotonic

import pytest

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.spec import from_plain, to_plain
from lilliput.data.conversations import ChatFiles, Message
from lilliput.data.corpora.filters import Clean, Exact, FilterChain, Filtered, Length, MostlyText, SeenParagraphs
from lilliput.data.documents import Document, TextFiles, TextHash, corpus_hash
from lilliput.data.split import Split

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
        ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', r"(?s)xff' at place 10 is not UTF-8.*record 2"),
        ("a.txt", b"fine\nbad \xe9\n", r"(?s)not UTF-8.*line 2"),
        ("a.jsonl", b"\n\n", r"(?s)no record in any.*a\.jsonl"),
        ("a.parquet", b"PAR1 no more", r"(?s)cannot be read.*a\.parquet, record 1"),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-20], r"(?s)cannot be read.*record \d.*cut short"),
        ("a.jsonl.gz", b"no gzip at all", r"(?s)cannot be read.*record 1"),
        ("a.jsonl.xz", lzma.compress(LINES)[:-20], r"(?s)cannot be read.*record \d.*cut short"),
        ("a.jsonl.zst", zst(LINES)[:-20], r"(?s)cannot be read.*record \d.*cut short"),
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
    with pytest.raises(DataError, match="no record"):
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


def test_corpus_hash_depends_on_ids_texts_order_and_their_borders() -> None:
    one, two = Document("ab", "1", "g"), Document("c", "2", "g")
    base = corpus_hash([one, two])
    assert base == corpus_hash(iter([one, two])) == corpus_hash([Document("ab", "1", "other"), two])
    others = ([two, one], [one], [Document("a", "1", "g"), two], [Document("b", "1a", "g"), two], [one, two, two])
    assert len({base, *map(corpus_hash, others)}) == 6
    parts = b"".join(len(part).to_bytes(8, "little") + part for part in (b"1", b"ab"))
    assert corpus_hash([one]) == hashlib.sha256(hashlib.sha256().digest() + parts).hexdigest()
    texts = TextHash(corpus_hash([one]))
    texts.add(two.id, two.text)
    assert texts.hex() == base, "it goes on from what was hashed before"


def test_split_holds_out_its_share_by_group_and_salt() -> None:
    groups = [f"group-{number}" for number in range(5000)]
    heldout = [group for group in groups if Split(share=0.1).is_heldout(group)]
    assert 420 < len(heldout) < 580
    assert set(heldout) <= {group for group in groups if Split(share=0.2).is_heldout(group)}
    assert set(heldout) != {group for group in groups if Split(share=0.1, salt="x").is_heldout(group)}
    assert not any(map(Split(share=0.0).is_heldout, groups)) and all(map(Split(share=1.0).is_heldout, groups))
    assert heldout[:3] == ["group-2", "group-17", "group-24"], "a fixed hash: the same on every machine"
    with pytest.raises(RecipeError, match="share"):
        Split(share=1.5)


def test_chat_files(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    rows = [{"messages": turns, "id": "x"}, {"messages": turns[:1]}]
    path = write(tmp_path / "c.jsonl.xz", lzma.compress("\n".join(map(json.dumps, rows)).encode()))
    one, two = ChatFiles(paths=(path,)).conversations()
    assert one.messages == (Message("user", "Hi"), Message("assistant", "Hello.")) and one.id == one.group == "x"
    assert two.id == "c.jsonl.xz:2" and len(two.messages) == 1


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("c.jsonl", {"turns": []}, r"(?s)no column holds messages.*there are: turns"),
        ("c.jsonl", {"messages": []}, "not a list of messages"),
        ("c.jsonl", {"messages": "Hi"}, "not a list of messages"),
        ("c.jsonl", {"messages": [{"role": "user"}]}, "without role or content"),
        ("c.jsonl", {"messages": [{"role": "", "content": "x"}]}, "without role or content"),
        ("c.jsonl", {"messages": ["Hi"]}, "without role or content"),
        ("c.txt", {"messages": []}, r"a \.txt file holds no conversations"),
    ],
)
def test_bad_conversations_are_errors(tmp_path: Path, name: str, row: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(ChatFiles(paths=(write(tmp_path / name, json.dumps(row).encode()),)).conversations())


def curated(texts: list[str], *filters) -> tuple[list[str], dict[str, int]]:
    curation = FilterChain(filters)
    documents = [Document(text, str(place), str(place)) for place, text in enumerate(texts)]
    first = [document.text for document in curation.run(documents)]
    counts = dict(curation.counts)
    assert [document.text for document in curation.run(documents)] == first, "a run remembers nothing of the last one"
    assert dict(curation.counts) == counts
    return first, counts


def test_clean() -> None:
    texts = ["e\u0301 \r\nb\x00\x1b\t x  \n\n\n\n\n\ny\ud800\ufeff\n", " \n\x01 ", "\n  indented\n"]
    kept, counts = curated(texts, Clean())
    assert kept == ["é\nb\t x\n\n\ny", "  indented"]
    assert counts == {"kept": 2, "clean: empty": 1}


def test_clean_takes_no_longer_for_what_never_changes() -> None:
    """Of either, a million signs once took an hour: each was compared with all before it."""
    began = monotonic()
    marks = "a" + "\u0301\u0323" * 100_000
    kept, _ = curated([" " * 200_000 + "x", marks, "\n \n" * 60_000 + "x"], Clean())
    assert monotonic() - began < 5
    composed = "\u1ea1" + "\u0323" * 99_999 + "\u0301" * 100_000
    assert [len(text) for text in kept[:2]] == [200_001, 200_000] and (kept[1] == composed) is True
    draw = random.Random(0)
    for length in (64, 65, 66, 200):
        text = "é" + "".join(draw.choices("\u0301\u0323\u0316\u0345\u3099\u05b0—🙂", k=length)) + "é"
        assert curated([text], Clean())[0] == [unicodedata.normalize("NFC", text)]


def test_length_and_mostly_text() -> None:
    kept, counts = curated(
        ["abc", "abcdef", "abcdefghi", "1234ab"], Length(at_least=4, at_most=8), MostlyText(letters=0.5)
    )
    assert kept == ["abcdef"]
    assert counts == {"kept": 1, "length: too short": 1, "length: too long": 1, "mostly text: too few letters": 1}


def test_exact_ignores_case_and_white_space() -> None:
    kept, counts = curated(["One two", "one\n  TWO", "one three", "One two"], Exact())
    assert kept == ["One two", "one three"] and counts == {"kept": 2, "exact: duplicate": 2}


def test_seen_paragraphs_are_removed_and_mostly_seen_documents_dropped() -> None:
    long = ["The quick brown fox jumps over the lazy dog near the river " + name * 9 for name in "abcd"]
    texts = [
        f"{long[0]}\n\nshort\n\n{long[1]}",
        f"{long[2]} and much that nobody ever wrote before\n\nshort\n\n{long[0].upper()}",
        f"{long[0]}\n\n{long[1]}\n\n{long[3]}",
        long[3],
    ]
    kept, counts = curated(texts, SeenParagraphs(share=0.5, at_least=60))
    assert kept[0] == texts[0]
    assert kept[1] == f"{long[2]} and much that nobody ever wrote before\n\nshort"
    assert kept[2:] == [long[3]], "the dropped third document did not count as having been there"
    assert counts == {"kept": 3, "seen paragraphs: mostly seen": 1}


def test_curated_files_are_a_spec(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINES * 2)
    corpus = Filtered(source=TextFiles(paths=(path,)), filters=(Clean(), MostlyText(), Exact(), SeenParagraphs()))
    assert len(list(corpus.documents())) == 5
    again = from_plain(json.loads(json.dumps(to_plain(corpus))))
    assert again == corpus and corpus_hash(again.documents()) == corpus_hash(corpus.documents())


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
