"""Formats of local files: the same rows in each, the same from the middle on, and a name for what is not read."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lilliput.base.errors import DataError, LilliputError, RecipeError
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.documents import Document
from lilliput.data.readers import json_array
from lilliput.data.readers.paths import files_of
from lilliput.overrides import replace_sources
from lilliput.recipes import own_text
from lilliput.run.command_record import RecipeOptions

MIB = 1 << 20
SIGNS = [
    "a",
    "é",
    "🙂",
    '"',
    "\\",
    "\n",
    "\r\n",
    ",",
    "\t",
    ";",
    "[",
    "]",
    "{",
    "}",
    " ",
    "'",
    "x" * 70,
    "\u2028",
    "\ufeff",
]
PACKED = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".XZ": lzma.compress,
    ".zst": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
}


def random_rows(seed: int, count: int = 40) -> list[dict[str, str]]:
    draw = random.Random(seed)
    return [
        {"id": f"r{number}", "text": "t" + "".join(draw.choices(SIGNS, k=draw.randint(0, 30)))}
        for number in range(count)
    ]


def separated(rows: list[dict[str, str]], separator: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


FORMS = {
    ".jsonl": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    ".NDJSON": lambda rows: "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(),
    ".json": lambda rows: json.dumps(rows, ensure_ascii=False).encode(),
    ".Json": lambda rows: b"\xef\xbb\xbf \n" + json.dumps(rows, indent=2).encode() + b"\n",
    "-lines.json": lambda rows: ("\n" + "\n".join(map(json.dumps, rows))).encode(),
    ".csv": lambda rows: separated(rows, ","),
    ".TSV": lambda rows: b"\xef\xbb\xbf" + separated(rows, "\t"),
}


def refused(corpus: TextFiles | ChatFiles) -> DataError:
    with pytest.raises(DataError) as raised:
        list(corpus.documents() if isinstance(corpus, TextFiles) else corpus.conversations())
    assert raised.value.where and raised.value.hint
    return raised.value


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("form", FORMS)
def test_rows_are_the_same_in_every_format_from_wherever_they_are_read(form, suffix, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(json_array, "_PIECE", 37)  # so that every element is cut somewhere
    for seed in range(3):
        rows = random_rows(seed)
        path = tmp_path / f"{seed}{form}{suffix}"
        path.write_bytes(PACKED[suffix](FORMS[form](rows)))
        corpus = TextFiles(paths=(str(path),))
        items = list(corpus.iterate_from())
        assert [item for item, _ in items] == [Document(row["text"], row["id"], row["id"]) for row in rows]
        shares = [corpus.fraction_read()(mark) for _, mark in items]
        assert shares == sorted(shares) and 0 < shares[0] <= shares[-1] <= 1
        for index in (0, 1, 17, 38, 39):
            assert list(corpus.iterate_from(items[index][1])) == items[index + 1 :]


def test_instructions_in_a_csv_are_conversations(tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": "1, 2", "output": "3"}, {"instruction": "Hi", "input": "", "output": "Ho"}]
    for form, write in FORMS.items():
        (tmp_path / f"a{form}").write_bytes(write(rows))
        one, two = ChatFiles(paths=(str(tmp_path / f"a{form}"),)).conversations()
        assert [message.content for message in (*one.messages, *two.messages)] == ["Add.\n\n1, 2", "3", "Hi", "Ho"]


@contextmanager
def held_below(most: int):
    """What Python holds at once inside stays below so many bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", [".json", ".csv"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_rows_are_streamed_and_none_is_longer_than_a_line_may_be(form: str, suffix: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LILLIPUT_MAX_LINE_BYTES", str(MIB // 2))
    path, pack = tmp_path / f"a{form}{suffix}", PACKED[suffix]
    corpus, row = TextFiles(paths=(str(path),)), {"id": "", "text": "é" * 100_000}
    path.write_bytes(pack(FORMS[form]([row | {"id": str(number)} for number in range(160)])))
    with held_below(16 * MIB):  # of 32
        assert sum(1 for _ in corpus.documents()) == 160
    path.write_bytes(pack(FORMS[form]([row, {"id": "b", "text": "y" * 32 * MIB}])))
    with held_below(16 * MIB):
        error = refused(corpus)
    assert f"longer than {MIB // 2:,} bytes" in error.what and "MAX_LINE_BYTES" in error.hint
    assert error.where.endswith(", line 3" if form == ".csv" else ", record 2")  # after a header


def test_a_quote_that_is_never_closed_takes_no_more_than_a_row_may(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LILLIPUT_MAX_LINE_BYTES", "1000")
    (tmp_path / "a.csv").write_text('text\na\n"b\n' + "c,d\n" * 1_000)
    error = refused(TextFiles(paths=(str(tmp_path / "a.csv"),)))
    assert error.what == "the row is longer than 1,000 bytes" and "not closed" in error.hint
    assert error.where == f"{tmp_path / 'a.csv'}, record 2 at line 253"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.json", b'[{"text": "a"}, {"text": "b"]', r"(?s)not JSON \(Expecting ',' delimiter\).*record 2"),
        ("a.json", b'[{"text": "a"} {"text": "b"}]', r"(?s)neither a comma.*record 1"),
        ("a.json", b'[{"text": "a"},]', r"(?s)not JSON.*record 2"),
        ("a.json", b'[{"text": "a"}', r"(?s)not JSON.*neither a comma.*record 1"),
        ("a.json", b'[{"text": "a', r"(?s)not JSON \(Unterminated string.*record 1.*interrupted download"),
        ("a.json", b'[{"text": "a"}] {}', r"(?s)something follows the array"),
        ("a.json", b'[{"text": "a"}, 12]', r"(?s)'12' is not a JSON object.*record 2"),
        ("a.json", b'[{"text": "a"}, {"text": 1, "text": 2}]', r"(?s)'text' is there twice.*record 2"),
        ("a.json", b"[" * 100_000, r"(?s)not JSON.*record 1"),
        ("a.json", b'[{"text": "a\xff"}]', r"(?s)xff' at offset \d+ is not UTF-8.*record 1.*iconv"),
        ("a.json", b'[{"text": "a\xc3', r"(?s)is not UTF-8.*record 1"),
        ("a.json", b"[]", "holds a record"),
        ("a.json", b" \n ", "holds a record"),
        ("a.json", b"12", r"(?s)'12' is not a JSON object"),
        ("a.json", b'{\n "width": 64\n}\n', r"(?s)neither an array of objects nor one object per line.*json\.tool"),
        ("a.json", b'{"width": 64,\n "depth": 2\n}\n', r"(?s)neither an array of objects nor one object per line"),
        ("a.json", b'{"text": "a"}\n{"text": \n', r"(?s)not JSON.*record 2"),
        ("a.json.gz", gzip.compress(b'[{"text": "a"}, {"text": "b"}]', mtime=0)[:-9], r"(?s)cannot be read.*record"),
        ("a.json.gz", b"no gzip", r"(?s)cannot be read.*record 1"),
        ("a.jsonl", b'[{"text": "a"}]', r"(?s)not a JSON object.*one array of them \.json"),
        ("a.csv", b'id,text\n1,a\n2,"b\n', r"(?s)quoted wrongly.*record 2 at line 3"),
        ("a.csv", b'id,text\n1,"a"b\n', r"(?s)quoted wrongly.*record 1 at line 2"),
        ("a.csv", b"id,text\n1,a,b\n", r"(?s)3 values for 2 columns \(id, text\).*record 1 at line 2"),
        ("a.csv", b"id,text\n\n1\n", r"(?s)1 values for 2 columns.*record 1 at line 3"),
        ("a.csv", b"text,text\n1,a\n", r"(?s)the column 'text' occurs more than once.*line 1"),
        ("a.csv", b"id;text\n1;a\n", r"(?s)no column 'text'.*id;text"),
        ("a.csv", b"id,text\n1,a\0\n", r"(?s)x00' at offset 3 is never part of a text.*line 2"),
        ("a.csv", b"id,text\n1,\xe9\n", r"(?s)xe9' at offset 2 is not UTF-8.*line 2"),
        ("a.csv", b"id,text\n1,\n", r"(?s)column 'text' is null"),
        ("a.csv", b"id,text\r1,a\r", r"(?s)quoted wrongly"),
        ("a.csv", b"id,text\n", "holds a record"),
        ("a.csv", b"", "holds a record"),
        ("a.tsv", "id\ttext\n1\té\n".encode("utf-16"), r"(?s)never part of a text.*it is UTF-16: iconv"),
        ("a.csv.xz", lzma.compress(b"id,text\n1,a\n")[:-20], r"(?s)cannot be read.*line \d"),
        (
            "a.parquet.gz",
            gzip.compress(b"PAR1", mtime=0),
            r"(?s)a \.parquet file cannot be read as text.*undo its compression",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_record(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    error = refused(TextFiles(paths=(str(path),)))
    with pytest.raises(DataError, match=says):
        raise error
    assert str(path) in str(error) and len(str(error)) < 2_000


def test_a_long_file_with_a_mistake_in_its_first_element_is_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[{'text': 1}, " + b'{"text": "a"}, ' * 400_000)
    with held_below(5 * MIB):
        assert "Expecting property name" in refused(TextFiles(paths=(str(path),))).what


def test_damaged_files_end_in_errors_that_name_them(tmp_path: Path) -> None:
    """Whatever is cut out of a file or put into it, if what is left is no rows."""
    draw, rows = random.Random(0), random_rows(7, count=6)
    for form, write in FORMS.items():
        whole = write(rows)
        for _ in range(60):
            data, path = bytearray(whole), tmp_path / f"a{form}"
            for _ in range(draw.randint(1, 3)):
                offset = draw.randrange(len(data))
                data[offset : offset + draw.randint(0, 9)] = draw.choice(
                    [b"", b'"', b"\xff", b"\0", b"[", b"}", b"\n", b","]
                )
            path.write_bytes(data)
            for corpus in (TextFiles(paths=(str(path),)), ChatFiles(paths=(str(path),))):
                try:
                    list(corpus.documents() if isinstance(corpus, TextFiles) else corpus.conversations())
                except DataError as error:
                    assert str(tmp_path) in error.where


def folder_of(base: Path, files: dict[str, str | bytes]) -> str:
    for name, data in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return str(base)


ROW = '{"text": "row"}\n'
TALK = '{"messages": [{"role": "user", "content": "a"}]}\n'


def test_what_tells_of_rows_is_no_text_and_is_counted(tmp_path: Path) -> None:
    files = {
        "README.md": "# a card",
        "LICENSE": "all of it",
        "dataset_infos.json": "{\n}",
        "data/state.json": '{"_fingerprint": 1}',
        "data/train.jsonl": ROW,
        "data/notes.txt": "a note",
        "other/README.md": "# a text, for there are no rows beside or below it",
        "readme-first.md": "a text",
    }
    corpus = TextFiles(paths=(folder_of(tmp_path / "set", files),))
    texts = [document.text for document in corpus.documents()]
    assert texts == ["a note", "row", files["other/README.md"], "a text"]
    items = list(corpus.iterate_from())
    beside = ["LICENSE", "README.md", "state.json", "dataset_infos.json"]
    assert [item for item, _ in items if isinstance(item, str)] == [f"{name} beside rows" for name in beside]
    for index, (_, mark) in enumerate(items):
        assert list(corpus.iterate_from(mark)) == items[index + 1 :]
    named = TextFiles(paths=(str(tmp_path / "set" / "README.md"), f"{tmp_path}/set/*.md"))
    assert [document.text for document in named.documents()] == ["# a card", "# a card", "a text"], "as it is asked for"
    only = folder_of(tmp_path / "only", {"README.md": "# a text", "a.txt": "another"})
    assert len(list(TextFiles(paths=(only,)).documents())) == 2
    nothing = folder_of(tmp_path / "none", {"README.md": "# a card", "a.jsonl": "\n"})
    assert "holds a record" in refused(TextFiles(paths=(nothing,))).what


def test_conversations_of_a_folder_with_a_card(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"README.md": "# a card", "data/a.jsonl": TALK})
    assert len(list(ChatFiles(paths=(folder,)).conversations())) == 1
    folder_of(tmp_path / "set", {"data/b.txt": "a text"})
    assert "a .txt file holds no conversations" in refused(ChatFiles(paths=(folder,))).what


@pytest.mark.parametrize(
    "name", ["a.pdf", "a.DOCX", "b/a.tar.gz", "a.zip", "a.png", "a.arrow", "a.safetensors", "a.npy", "a.br"]
)
def test_what_no_text_is_read_from_is_refused_before_anything_is_read(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "se[t]", {name: b"\x00\x01", "0.txt": "a", "1.txt.gz": gzip.compress(b"b", mtime=0)})
    for paths in ((folder,), (f"{tmp_path}/*/**/*.*",), (f"{folder}/{name}",)):
        with pytest.raises(DataError, match=r"a \.\w+ file cannot be read as text") as raised:
            next(TextFiles(paths=paths).documents())
        assert str(tmp_path / "se[t]" / name) in raised.value.where
        with pytest.raises(DataError, match="cannot be read as text"):
            replace_sources(own_text.recipe, {"texts": paths})
        if paths != (f"{folder}/{name}",):
            pattern = raised.value.hint.split('"')[-2]
            assert [document.text for document in TextFiles(paths=(pattern,)).documents()] == ["a"], "the hint works"
    assert len(TextFiles(paths=(folder,)).identity()) == 3, "a dataset of the hub may hold them"


def test_arrow_files_become_parquet_as_the_hint_says(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a", "b"]})
    with (
        pyarrow.OSFile(str(tmp_path / "FILE.arrow"), "wb") as sink,
        pyarrow.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    command = refused(TextFiles(paths=(str(tmp_path / "FILE.arrow"),))).hint.partition(": ")[2]
    subprocess.run(command.replace("python ", f"{sys.executable} ", 1), shell=True, cwd=tmp_path, check=True)
    assert [each.text for each in TextFiles(paths=(str(tmp_path / "FILE.parquet"),)).documents()] == ["a", "b"]


def test_an_object_over_lines_becomes_a_row_as_the_hint_says(tmp_path: Path) -> None:
    (tmp_path / "it's one.json").write_text('{\n"text": "a"\n}')
    hint = refused(TextFiles(paths=(str(tmp_path / "it's one.json"),))).hint
    command = hint.partition("python ")[2].partition(", and read that")[0]
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True)
    pattern = hint.split('"')[-2]
    assert [each.text for each in TextFiles(paths=(pattern,)).documents()] == ["a"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_texts_in_other_encodings_become_utf8_as_the_hint_says(encoding: str, tmp_path: Path) -> None:
    text = "Für immer, " * 3 if encoding != "utf-16-le" else "For ever"
    for name in ("a b.txt", "a.jsonl", "a.csv"):
        data = {
            "a b.txt": text,
            "a.jsonl": json.dumps({"text": text}, ensure_ascii=False),
            "a.csv": f'text\n"{text}"\n',
        }
        (tmp_path / name).write_bytes(data[name].encode(encoding))
        error = refused(TextFiles(paths=(str(tmp_path / name),)))
        if "iconv" not in error.hint:  # zeros between what else is ASCII are no JSON
            assert name == "a.jsonl" and encoding in ("utf-16-le", "utf-16-be") and "not JSON" in error.what
            continue
        command = error.hint[error.hint.index("iconv") :].partition(", and read")[0]
        subprocess.run(command, shell=True, check=True)
        assert [each.text for each in TextFiles(paths=(str(tmp_path / f"utf8-{name}"),)).documents()] == [text]


def test_null_texts_are_refused_or_dropped_and_counted(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a", None, "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": null}\n{"text": "c"}\n')
    (tmp_path / "c.csv").write_text("id,text\n1,\n2,d\n")
    error = refused(TextFiles(paths=(str(tmp_path),)))
    assert "is null" in error.what
    option = error.hint.partition("--set ")[2].replace("NAME", "texts")
    dropping = (
        RecipeOptions(shrink=True, overrides=(option,), sources=(f"texts={tmp_path}",))
        .apply(own_text.recipe)
        .corpora["texts"]
    )
    items = list(dropping.iterate_from())
    assert [item if isinstance(item, str) else item.text for item, _ in items] == [
        *("a", "null text", "b"),
        *("null text", "c"),
        *("null text", "d"),
    ]
    for index, (_, mark) in enumerate(items):
        assert list(dropping.iterate_from(mark)) == items[index + 1 :]
    with pytest.raises(RecipeError, match="null is 'keep'"):
        TextFiles(paths=("a",), null="keep")  # pyright: ignore[reportArgumentType]


def test_odd_names_of_files_are_read_or_refused_in_three_parts(tmp_path: Path) -> None:
    names = [
        "a\nb.txt",
        "a#b?c%20.txt",
        "s3::a.txt",
        "é" * 120 + ".txt",
        " .txt",
        "-.txt",
        "a.txt\x1b[2J",
        "~",
        "a=b:c",
        "[x].txt",
    ]
    for name in [name.encode() for name in names] + [b"a\xff\xfe.txt", b"\xed\xa0\x80.jsonl"]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        path = bytes(folder) + b"/" + name
        with open(path, "wb") as file:
            file.write(b'{"text": "a"}\n')
        for given in (str(folder), f"{folder}/*", bytes.decode(path, "utf-8", "surrogateescape")):
            (document,) = TextFiles(paths=(given,)).documents()
            assert document.text in ("a", '{"text": "a"}\n')
            assert document.text == '{"text": "a"}\n' or name.endswith(b".jsonl")
    for given in (
        "",
        "a\0b",
        "x" * 300,
        "x/" * 3_000,
        "~nobody-at-all/x",
        "\0*",
        "x" * 300 + "*",
        "/proc/self/mem/x",
        "[",
    ):
        with pytest.raises(LilliputError) as raised:
            files_of((given,), "--source texts")
        assert raised.value.where == "--source texts" and raised.value.hint
