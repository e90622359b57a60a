"""Small good files of every kind, damaged at random: reading them either works or ends in an error of ours."""

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import tiny_questions

from lilliput.base.errors import LilliputError
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.evals.question_files import Folder
from lilliput.evals.suites import MTLM, OPEN_SLM

CASES = 30
"""Of each kind."""
ODD = [
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5_000,
        b"[" * 900,
        b"[" * 100_000,
        b'{"a":' * 900,
        b"null",
        b"true",
        b"{}",
    ),
    *(
        b"[]",
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xc3",
        b"\n",
        b"\r",
        b'"',
        b"\\",
    ),
    *(b',"text":1', b',"text":"twice"', b"\x1b[2J", "\u202e".encode(), b" " * 5_000, b"PAR1", b"\x1f\x8b", b"BZh9"),
]
TEXTS = [
    {"text": f"Text number {number}, été.", "id": f"row-{number}", "group": "ab"[number % 2]} for number in range(6)
]
CHATS = [
    {
        "id": number,
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"Number {number}."}],
    }
    for number in range(6)
]
PACKED = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
}


def table(rows: list[dict]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, row_group_size=4)
    return sink.getvalue().to_pybytes()


def read_texts(file: Path) -> None:
    for corpus in (TextFiles(paths=(str(file.parent),)), TextFiles(paths=(str(file),), group="group")):
        for _ in islice(corpus.documents(), 100):
            pass


def read_chats(file: Path) -> None:
    for _ in islice(ChatFiles(paths=(str(file),)).conversations(), 100):
        pass


def read_questions(file: Path) -> None:
    for use in (*MTLM.tasks, *MTLM.optional, *OPEN_SLM.tasks):
        if Folder(file.parent).missing(use) is None:
            Folder(file.parent).questions(use, file.parent / "work")
            Folder(file.parent).identity((use,))


def lines(rows: list[dict]) -> bytes:
    return tiny_questions.lines(rows).encode()


KINDS: dict[str, tuple[bytes, Callable[[Path], None]]] = {
    **{f"texts.jsonl{suffix}": (pack(lines(TEXTS)), read_texts) for suffix, pack in PACKED.items()},
    **{f"texts.txt{suffix}": (pack("Für immer.\nEnde.".encode()), read_texts) for suffix, pack in PACKED.items()},
    "texts.parquet": (table(TEXTS), read_texts),
    "chats.jsonl": (lines(CHATS), read_chats),
    "chats.jsonl.xz": (lzma.compress(lines(CHATS)), read_chats),
    "chats.parquet": (table(CHATS), read_chats),
    **{f"{name}.jsonl": (lines(tiny_questions.local_rows(name)[:4]), read_questions) for name in tiny_questions.PUBLIC},
    "hellaswag.validation.jsonl.gz": (
        gzip.compress(lines(tiny_questions.local_rows("hellaswag.validation")[:4])),
        read_questions,
    ),
}


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The same with a few bytes changed, gone, there twice, or in their place something odd."""
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        place = draw.randrange(len(data) + 1)
        after = min(len(data), place + draw.choice((0, 1, 1, 2, 8, 40)))
        new = draw.choice(
            (
                b"",
                bytes([draw.randrange(256)]),
                draw.choice(ODD),
                data[place:after] * 2,
                bytes(after - place),
                b"\xff" * 4,
            )
        )
        data = data[:place] + new + data[after:]
        if draw.random() < 0.1:
            data = data[: draw.randrange(len(data) + 1)]
    return data


def odd_values(data: bytes, draw: random.Random) -> bytes:
    """A line of JSON with the value of a key, or of one within it, replaced."""
    rows = [json.loads(line) for line in data.splitlines()]
    inner = row = draw.choice(rows)
    while isinstance(inner, dict | list) and inner:
        key = draw.choice(list(inner)) if isinstance(inner, dict) else draw.randrange(len(inner))
        if draw.random() < 0.6 or not isinstance(inner[key], dict | list):
            inner[key] = draw.choice(
                (
                    None,
                    True,
                    -1,
                    10**30,
                    1.5,
                    float("nan"),
                    "",
                    "\ud800",
                    "x" * 300,
                    [],
                    [[]],
                    {},
                    {"": []},
                    [None] * 40,
                    "9",
                )
            )
            break
        inner = inner[key]
    if draw.random() < 0.1:
        row.clear()
    return b"".join(json.dumps(one).encode() + b"\n" for one in rows)


def tried(name: str, seed: int, folder: Path) -> bool:
    """Read one damaged file; whether it was refused."""
    good, read = KINDS[name]
    draw = random.Random(f"{name}/{seed}")
    change = odd_values if name.endswith(".jsonl") and draw.random() < 0.5 else damaged
    (folder / name).write_bytes(change(good, draw))
    try:
        read(folder / name)
    except LilliputError as error:
        assert error.what and error.where and error.hint and len(str(error)) < 2_000
        str(error).encode()
        return True
    return False


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    KINDS[name][1](write(tmp_path / "good" / name, KINDS[name][0]))
    refused = sum(tried(name, seed, tmp_path) for seed in range(CASES))
    assert refused > 0


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
