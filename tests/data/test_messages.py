"""Rows of chat data in all their forms: each field is obeyed, or refused by name."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lilliput.base.errors import DataError
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.hub import HubChats
from lilliput.data.message_formats import COLUMNS, row_messages
from lilliput.data.messages import TELLING, Message, messages_of
from lilliput.overrides import replace_sources
from lilliput.recipes import own_text
from lilliput.recipes.odinnext_138m import no_robots

ASK, ANSWER = Message("user", "Hi"), Message("assistant", "Hello.")
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
SYSTEM, KIND = Message("system", "Be kind."), {"role": "system", "content": "Be kind."}
PART = {"type": "text", "text": "Hello."}
NOTHINGS: tuple[Any, ...] = (None, "", [], {}, "[]", "null")


def read(row: dict[str, Any], column: str | None = None) -> tuple[Message, ...]:
    return row_messages(row, column, "a row")


def answer(**fields: Any) -> dict[str, Any]:
    return {"messages": [TURNS[0], TURNS[1] | fields]}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": TURNS}, (ASK, ANSWER)),
        ({"messages": TURNS, "prompt": "Hi", "prompt_id": "7", "source": "x", "score": 0.5}, (ASK, ANSWER)),
        ({"messages": TURNS, "conversations": None}, (ASK, ANSWER)),
        ({"conversations": SHARED}, (ASK, ANSWER)),
        ({"conversations": TURNS}, (ASK, ANSWER)),
        ({"messages": SHARED}, (ASK, ANSWER)),
        ({"conversations": [{"from": "system", "value": "Be kind."}, *SHARED]}, (SYSTEM, ASK, ANSWER)),
        ({"prompt": "Hi", "completion": "Hello."}, (ASK, ANSWER)),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, (ASK, ANSWER)),
        (
            {"prompt": [*TURNS, TURNS[0]], "completion": "Hello."},
            (ASK, Message("assistant", "Hello.", 0), ASK, ANSWER),
        ),
        ({"instruction": "Hi", "output": "Hello.", "text": "### Hi"}, (ASK, ANSWER)),
        ({"instruction": "Hi", "input": "", "output": "Hello."}, (ASK, ANSWER)),
        (
            {"instruction": "Add.", "input": "1, 2", "output": "3"},
            (Message("user", "Add.\n\n1, 2"), Message("assistant", "3")),
        ),
        ({"messages": TURNS, "system": "Be kind."}, (SYSTEM, ASK, ANSWER)),
        ({"instruction": "Hi", "output": "Hello.", "system_prompt": "Be kind."}, (SYSTEM, ASK, ANSWER)),
        (
            {"messages": [{"role": "system", "content": "Be kind."}, *TURNS], "system": "Be kind."},
            (SYSTEM, ASK, ANSWER),
        ),
        *(({"messages": TURNS, "tools": nothing, "system": nothing}, (ASK, ANSWER)) for nothing in NOTHINGS),
        *((answer(tool_calls=nothing, thinking=nothing), (ASK, ANSWER)) for nothing in NOTHINGS),
        (answer(id=3, timestamp="today", model="x", language="en"), (ASK, ANSWER)),
        (
            answer(content=[{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo.", "image": None}]),
            (ASK, ANSWER),
        ),
        (answer(weight=0), (ASK, Message("assistant", "Hello.", 0))),
        (answer(weight=0.0, train=False), (ASK, Message("assistant", "Hello.", 0))),
        (answer(weight=1), (ASK, ANSWER)),
        (answer(train=True), (ASK, ANSWER)),
        ({"conversations": [SHARED[0], SHARED[1] | {"train": False}]}, (ASK, Message("assistant", "Hello.", 0))),
        ({"conversations": [SHARED[0] | {"weight": 1}, SHARED[1]]}, (ASK, ANSWER)),
        ({"messages": [{"role": "tool", "content": "12"}]}, (Message("tool", "12"),)),
    ],
)
def test_rows_of_every_form(row: dict[str, Any], messages: tuple[Message, ...]) -> None:
    assert read(row) == messages


@pytest.mark.parametrize(
    ("row", "says"),
    [
        *(
            (answer(**{name: "x"}), f"message 2 has '{name}': 'x'")
            for name in ("name", "tool_call_id", "reasoning_content")
        ),
        *((answer(**{name: "x"}), f"message 2 has '{name}'") for name in ("thinking", "anything else")),
        (answer(tool_calls=[{"id": "1"}], content=""), "'tool_calls'"),
        (answer(tool_calls=[{"id": "1"}], content=None), "'tool_calls'"),
        (answer(function_call={"name": "f"}), "'function_call'"),
        ({"conversations": [SHARED[0], SHARED[1] | {"role": "assistant"}]}, "'role'"),
        (answer(weight=0.5), "'weight': 0.5"),
        (answer(weight="0"), "'weight': '0'"),
        (answer(weight=2), "'weight': 2"),
        (answer(weight=float("nan")), "'weight': nan"),
        (answer(weight=1, train=False), "'train': False"),
        ({"messages": [TURNS[0] | {"train": True}, TURNS[1]]}, "message 1 is marked for training but is from 'user'"),
        (answer(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "which is not text"),
        (answer(content=[{"type": "text", "text": "a", "cache_control": "x"}]), "which is not text"),
        (answer(content=["a"]), "which is not text"),
        (answer(content=[]), "without role or content"),
        (answer(content=None), "without role or content"),
        (answer(role="Assistant"), "\"role\" of message 2 is 'Assistant'"),
        (answer(role="gpt"), "\"role\" of message 2 is 'gpt'"),
        ({"conversations": [{"from": "bing", "value": "x"}]}, "\"from\" of message 1 is 'bing'"),
        ({"conversations": [{"from": "function_response", "value": "x"}]}, "'function_response'"),
        ({"messages": TURNS, "tools": [{"type": "function"}]}, "column 'tools'"),
        ({"messages": TURNS, "functions": '[{"name": "f"}]'}, "column 'functions'"),
        ({"conversations": SHARED, "image": "a.png"}, "column 'image'"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "column 'history'"),
        ({"instruction": "a", "output": 7}, "7 is not text"),
        ({"prompt": "a", "completion": "b", "label": False}, "completion as bad"),
        ({"messages": [{"role": "system", "content": "Be rude."}], "system": "Be kind."}, "for a system message"),
        ({"messages": TURNS, "system": "Be kind.", "system_prompt": "Be rude."}, "for a system message"),
        ({"messages": TURNS, "system": 7}, "7 is not text"),
        ({"messages": TURNS, "conversations": SHARED}, "several forms: messages, conversations"),
        ({"messages": TURNS, "instruction": "a", "output": "b"}, "several forms: messages, instruction/output"),
        ({"prompt": TURNS, "chosen": TURNS, "rejected": TURNS}, "no column holds messages"),
        ({"messages": {"role": ["user"], "content": ["a"]}}, "not a list of messages"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as raised:
        read(row)
    assert says in raised.value.what and raised.value.where == "a row" and raised.value.hint


def test_a_column_that_is_named_decides_between_forms(tmp_path: Path) -> None:
    row = {"messages": TURNS[:1], "conversations": SHARED, "instruction": "a", "output": "b", "chosen": TURNS}
    assert read(row, "messages") == (ASK,) and read(row, "conversations") == read(row, "chosen") == (ASK, ANSWER)
    assert read(row, "instruction") == (Message("user", "a"), Message("assistant", "b"))
    assert read({"prompt": TURNS}, "prompt") == (ASK, ANSWER), "without a completion it is a list like any other"
    with pytest.raises(DataError, match=r"(?s)no column 'turns'.*messages, conversations"):
        read(row, "turns")
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    corpora = {**own_text.recipe.corpora, "chats": no_robots}
    recipe = replace_sources(replace(own_text.recipe, corpora=corpora), {"chats": (str(tmp_path),)})
    with pytest.raises(DataError, match="several forms") as raised:
        list(recipe.corpora["chats"].conversations())
    option = raised.value.hint.partition("--source ")[2].replace("NAME", "chats").partition("=")[0]
    named = replace_sources(recipe, {option: (str(tmp_path),)}).corpora["chats"]
    assert [each.messages for each in named.conversations()] == [(ASK,)], "the hint works"


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": TURNS[:1], "chosen": TURNS[1:]}, (ASK, ANSWER)),
        ({"prompt": TURNS[:1], "chosen": TURNS}, (ASK, ANSWER)),
        ({"prompt": "Hi", "chosen": "Hello."}, (ASK, ANSWER)),
        ({"prompt": "Hi", "chosen": TURNS}, (ASK, ANSWER)),
        ({"prompt": [KIND, TURNS[0]], "chosen": TURNS[1:]}, (SYSTEM, ASK, ANSWER)),
        (
            {"prompt": [*TURNS, TURNS[0]], "chosen": TURNS[1:]},
            (ASK, Message("assistant", "Hello.", 0), ASK, ANSWER),
        ),
        ({"prompt": None, "chosen": TURNS}, (ASK, ANSWER)),
    ],
)
def test_the_prompt_of_a_row_of_preferences_comes_before_its_answer(
    row: dict[str, Any], messages: tuple[Message, ...]
) -> None:
    assert read(row | {"rejected": TURNS[:1]}, "chosen") == messages


@pytest.mark.parametrize(
    ("row", "column", "says"),
    [
        ({"prompt": "Bye", "chosen": TURNS}, "chosen", "'Bye', but the messages in 'chosen' begin differently"),
        ({"prompt": "Bye", "messages": TURNS}, None, "'Bye', but the messages in 'messages' begin differently"),
        ({"prompt": "Bye"}, "prompt", "not a list of messages"),
    ],
)
def test_a_prompt_of_something_else_is_refused(row: dict[str, Any], column: str | None, says: str) -> None:
    with pytest.raises(DataError) as raised:
        read(row, column)
    assert says in raised.value.what and raised.value.hint


def test_parquet_and_hub_have_nulls_where_a_field_is_not(tmp_path: Path) -> None:
    turns = [TURNS[0], TURNS[1] | {"weight": 0, "tool_calls": [], "id": "x"}]
    rows = [
        {"id": "a", "conversations": turns, "system": None},
        {"id": "b", "conversations": TURNS, "system": "Be kind."},
    ]
    (tmp_path / "set").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "set" / "train.parquet")
    expected = [(ASK, Message("assistant", "Hello.", 0)), (SYSTEM, ASK, ANSWER)]
    for corpus in (ChatFiles(paths=(str(tmp_path),)), HubChats(dataset=str(tmp_path / "set"), license="mit")):
        assert [each.messages for each in corpus.conversations()] == expected
        assert [each.id for each in corpus.conversations()] == ["a", "b"]
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"], "chat": ["b"]}), tmp_path / "set" / "train.parquet")
    for corpus in (ChatFiles(paths=(str(tmp_path),)), HubChats(dataset=str(tmp_path / "set"), license="mit")):
        with pytest.raises(DataError, match=r"(?s)no column holds messages.*existing columns: id, chat"):
            list(corpus.conversations())


def test_no_value_of_a_row_vanishes() -> None:
    """Whatever stands in a message or beside it, but for what only tells of it, changes the messages or is refused."""
    draw = random.Random(0)
    values: list[Any] = ["x", 0, 1, 0.5, True, False, [1], {"a": None}, [{"type": "text", "text": "y"}]]
    names = ["role", "content", "from", "value", "weight", "train", "name", "tool_calls", "reasoning", "type", "text"]
    for _ in range(3_000):
        turn, name, value = dict(draw.choice(TURNS + SHARED)), draw.choice(names), draw.choice(values)
        plain = messages_of([turn], "a row")
        try:
            found = messages_of([turn | {name: value}], "a row")
        except DataError:
            continue
        default = (name == "weight" and value in (0, 1)) or (name == "train" and value in (0, 1))
        assert found != plain or default or turn.get(name) == value
        assert not default or found[0].weight == int(value)
    assert not TELLING & set(names)
    parts = {"prompt", "completion", "instruction", "output", "input", "history", "label"}  # of other forms
    for name in set(COLUMNS) - parts:
        with pytest.raises(DataError):
            read({"messages": [KIND, *TURNS], "conversations": SHARED} | {name: "x"})
