"""Lines of shards: the JSON that Python's encoder writes, and back."""

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from lilliput.data.corpora.files import TextFiles
from lilliput.data.curate.shard_files import SUFFIX, document_of, line_of, read_lines, write_lines
from lilliput.data.documents import Document

CHARACTERS = 'a"\\\n\t\r/é\x00\x1f\x7f\x85\u2028\ud800' + "\U0001f600"


def expected(document: Document) -> bytes:
    row = {**document.metadata, "id": document.id, "text": document.text}
    row |= {} if document.group == document.id else {"group": document.group}
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row) + "\n").encode()


@pytest.mark.parametrize("most", range(1, len(CHARACTERS) + 1))
def test_a_line_is_what_the_encoder_of_python_writes(most: int) -> None:
    draw = random.Random(most)
    for number in range(100):
        text, name = ("".join(draw.choices(CHARACTERS[:most], k=draw.randrange(12))) for _ in range(2))
        metadata = {} if number % 3 else {"n": number, name: [name, None]}
        document = Document(text, name, name if number % 2 else f"{name} of others", metadata)
        assert line_of(document) == expected(document)
        back = document_of(line_of(document))
        assert (back, back.metadata) == (document, metadata)


@pytest.mark.parametrize("is_last", [True, False])
def test_lines_come_back(tmp_path: Path, is_last: bool) -> None:
    made = [line_of(Document(f"{number} some text " * 500, str(number), str(number))) for number in range(400)]
    path = tmp_path / f"00000{SUFFIX}"
    assert list(write_lines(path, made, is_last=is_last)) == made
    assert list(read_lines(path)) == made
    assert [document.id for document in TextFiles(paths=(str(path),)).documents()] == [str(one) for one in range(400)]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
