"""Messages of a row, in the forms that chat data comes in.

| columns | form |
|---|---|
| `messages` | a list of {role, content}, as of OpenAI and TRL |
| `conversations` | a list of {from, value}, as of ShareGPT, from "human", "gpt" or "system" |
| `prompt`, `completion` | two texts, or two lists of messages; what an assistant says in the prompt is not learned |
| `instruction`, `input`, `output` | texts, as of Alpaca; the input, where there is one, follows the instruction |

Either list may be of either kind of messages, and another column may be named that holds one, as `chosen` of rows of
preferences. A `prompt` beside such a list is what it begins with, or what comes before it. Beside all of them `system`,
or `system_prompt`, may hold the text of a first system message. What is null or empty is as good as not there. Columns
that would change what is learned and cannot are refused; others only tell of the row.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from lilliput.base.errors import DataError
from lilliput.data.documents import check_length
from lilliput.data.messages import ASSISTANT, Message, is_nothing, messages_of
from lilliput.data.readers.rows import listed, shown

Row = Mapping[str, Any]
_SYSTEM = ("system", "system_prompt")
_NOT_LEARNED = ("tools", "functions", "image", "images", "audio", "audios", "video", "videos")


def row_messages(
    row: Row, column: str | None, where: str, columns: Collection[str] | None = None
) -> tuple[Message, ...]:
    """The messages of a row.

    Args:
        row: values by column.
        column: that holds the list, or the first one of a form; None: the row has one form.
        where: the row comes from.
        columns: names of all columns of the row, for errors; None: those of the values.

    Raises:
        DataError: it has no form or several, or holds what is no message or cannot be learned from.
    """
    names = row.keys() if columns is None else columns
    if column is None:
        column = _only_form(row, where, names)
    elif column not in row:
        raise DataError(
            f"there is no column {column!r:.80}", where=where, hint=f"name an existing one: {listed(names)}"
        )
    for name in _NOT_LEARNED:
        if name != column and not is_nothing(row.get(name)):
            raise _unlearned(name, row, where)
    form = _FORMS.get(column)
    found = form.read(row, where) if form and form.fits(row) else _list(row, column, where)
    messages = _after_system(row, found, where)
    check_length(where, *(message.content for message in messages))
    return messages


class _Form(NamedTuple):
    needs: tuple[str, ...]
    """Columns that are there."""
    read: Callable[[Row, str], tuple[Message, ...]]
    others: tuple[str, ...] = ()
    """Columns that may be."""

    def fits(self, row: Row) -> bool:
        return all(row.get(name) is not None for name in self.needs)


def _only_form(row: Row, where: str, names: Collection[str]) -> str:
    found = [first for first, form in _FORMS.items() if form.fits(row)]
    if len(found) > 1:
        raise DataError(
            f"the row holds messages in several forms: {', '.join('/'.join(_FORMS[first].needs) for first in found)}",
            where=where,
            hint=f'name the first column of one: messages="{found[0]}" of the corpus, or --source NAME:{found[0]}=PATH',
        )
    if not found:
        forms = "; ".join(", ".join(form.needs) for form in _FORMS.values())
        raise DataError(
            f"no column holds messages ({forms})",
            where=where,
            hint=f"name the column, as in --source NAME:COLUMN=PATH; existing columns: {listed(names)}",
        )
    return found[0]


def _completion(row: Row, where: str) -> tuple[Message, ...]:
    if row.get("label") is False:
        raise DataError('the column "label" marks this completion as bad', where=where, hint="leave such rows out")
    completion = row["completion"]
    after = [Message(ASSISTANT, completion)] if isinstance(completion, str) else messages_of(completion, where)
    return (*_prompt(row, where), *after)


def _alpaca(row: Row, where: str) -> tuple[Message, ...]:
    parts = [row["instruction"], *([] if is_nothing(row.get("input")) else [row["input"]]), row["output"]]
    strange = [part for part in parts if not isinstance(part, str)]
    if strange:
        raise DataError(
            f"{shown(strange[0])} is not text", where=where, hint="write instruction, input, output as texts"
        )
    if not is_nothing(row.get("history")):
        raise _unlearned("history", row, where)
    return Message("user", "\n\n".join(parts[:-1])), Message(ASSISTANT, parts[-1])


def _prompt(row: Row, where: str) -> tuple[Message, ...]:
    prompt = row["prompt"]
    before = (Message("user", prompt),) if isinstance(prompt, str) else messages_of(prompt, where)
    return tuple(replace(one, weight=0) if one.role == ASSISTANT else one for one in before)


def _list_in(column: str) -> Callable[[Row, str], tuple[Message, ...]]:
    return lambda row, where: _list(row, column, where)


def _list(row: Row, column: str, where: str) -> tuple[Message, ...]:
    """The messages of a column, and before them the prompt that they answer, where the row has one beside them."""
    given = row[column]
    if column == "prompt" or is_nothing(row.get("prompt")):
        return messages_of(given, where)
    before = _prompt(row, where)
    after = (Message(ASSISTANT, given),) if isinstance(given, str) else messages_of(given, where)
    said, asked = ([(one.role, one.content) for one in some if one.role != "system"] for some in (after, before))
    if said[: len(asked)] == asked:
        return after
    if after[0].role == ASSISTANT:
        return (*before, *after)
    raise DataError(
        f'column "prompt" holds {shown(row["prompt"])}, but the messages in {column!r:.80} begin differently',
        where=where,
        hint="start them with the prompt or with the answer to it, or leave that column out",
    )


def _after_system(row: Row, messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """The messages behind the system message that has a column of its own."""
    given = [row[name] for name in _SYSTEM if not is_nothing(row.get(name))]
    given += [messages[0].content] if given and messages[0].role == "system" else []
    if not given:
        return messages
    if not isinstance(given[0], str) or any(text != given[0] for text in given):
        raise DataError(
            f"the row has {shown(given)} for a system message" if len(given) > 1 else f"{shown(given[0])} is not text",
            where=where,
            hint="write one text, or the message alone",
        )
    return messages if messages[0].role == "system" else (Message("system", given[0]), *messages)


def _unlearned(column: str, row: Row, where: str) -> DataError:
    return DataError(
        f"column {column!r} holds {shown(row[column])}, which training does not use",
        where=where,
        hint="leave such rows out, or the column where the messages do not depend on it",
    )


_FORMS = {
    "messages": _Form(("messages",), _list_in("messages")),
    "conversations": _Form(("conversations",), _list_in("conversations")),
    "prompt": _Form(("prompt", "completion"), _completion, ("label",)),
    "instruction": _Form(("instruction", "output"), _alpaca, ("input", "history")),
}
"""By the column that names them."""
COLUMNS = tuple(name for form in _FORMS.values() for name in (*form.needs, *form.others)) + _SYSTEM + _NOT_LEARNED
"""Columns that a row's messages are in or depend on."""
