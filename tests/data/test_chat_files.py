"""Local files of conversations, and what is refused of them."""

import json
import lzma
from pathlib import Path

import pytest

from lilliput.base.errors import DataError
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.messages import Message


def test_chat_files(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    rows = [{"messages": turns, "id": "x"}, {"messages": turns[:1]}]
    path = tmp_path / "c.jsonl.xz"
    path.write_bytes(lzma.compress("\n".join(map(json.dumps, rows)).encode()))
    one, two = ChatFiles(paths=(str(path),)).conversations()
    assert one.messages == (Message("user", "Hi"), Message("assistant", "Hello.")) and one.id == one.group == "x"
    assert two.id == "c.jsonl.xz:2" and len(two.messages) == 1


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("c.jsonl", {"turns": []}, r"(?s)no column holds messages.*existing columns: turns"),
        ("c.jsonl", {"messages": []}, "not a list of messages"),
        ("c.jsonl", {"messages": "Hi"}, "not a list of messages"),
        ("c.jsonl", {"messages": [{"role": "user"}]}, "without role or content"),
        ("c.jsonl", {"messages": [{"role": "", "content": "x"}]}, "without role or content"),
        ("c.jsonl", {"messages": ["Hi"]}, "without role or content"),
        ("c.txt", {"messages": []}, r"a \.txt file holds no conversations"),
    ],
)
def test_bad_conversations_are_errors(tmp_path: Path, name: str, row: dict, message: str) -> None:
    (tmp_path / name).write_text(json.dumps(row))
    with pytest.raises(DataError, match=message):
        list(ChatFiles(paths=(str(tmp_path / name),)).conversations())
