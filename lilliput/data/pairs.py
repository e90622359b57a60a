"""Pairs of a better and a worse answer to the same prompt, and the forms of a row that holds one.

| columns | form |
|---|---|
| `prompt`, `chosen`, `rejected` | texts, or lists of messages, with or without the prompt before each answer |
| `chosen`, `rejected` | lists of messages that begin alike, as of UltraFeedback |

A `system` text may stand beside them, as for conversations (`message_formats.py`).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Protocol

from lilliput.base.errors import DataError
from lilliput.data.message_formats import COLUMNS, row_messages
from lilliput.data.messages import ASSISTANT, Message, is_nothing

CHOSEN, REJECTED = "chosen", "rejected"
PAIR_COLUMNS = (CHOSEN, REJECTED, *(name for name in COLUMNS if name not in ("messages", "completion")))
"""Columns that a pair is in or depends on."""
_WITH_MARKERS = ("\n\nHuman:", "\n\nAssistant:")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers after the same prompt."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    """Messages after the prompt, the last one of an assistant."""
    rejected: tuple[Message, ...]
    id: str

    @property
    def group(self) -> str:
        """The unit of the held-out split: pairs of one prompt lie on one side, whatever their rows are called."""
        return "\0".join(f"{one.role}\0{one.content}" for one in self.prompt)


class PairCorpus(Protocol):
    """Anything that yields pairs; a frozen keyword-only spec, so that a recipe can name it."""

    def pairs(self) -> Iterator[Pair]:
        """Every pair, in an order that never changes."""
        ...

    def identity(self) -> Any:
        """Return what the pairs depend on besides the spec, as a JSON value."""
        ...


def row_pair(row: Mapping[str, Any], name: str, where: str, columns: Collection[str] | None = None) -> Pair:
    """The pair of a row.

    What both sides begin with is the prompt, and nothing of it is learned, answers in it neither.

    Args:
        row: values by column.
        name: of the row.
        where: it comes from.
        columns: names of all columns of the row, for errors; None: those of the values.

    Raises:
        DataError: it holds no pair, or messages that cannot be learned from.
    """
    if marked := [row[side] for side in (CHOSEN, REJECTED) if _has_markers(row.get(side))]:
        raise DataError(
            f"the dialogue {marked[0][:60]!r} is one text with names of speakers in it",
            where=where,
            hint="write it as a list of {role, content}, or as prompt, chosen and rejected",
        )
    chosen, rejected = (row_messages(row, side, where, columns) for side in (CHOSEN, REJECTED))
    same = takewhile(lambda both: _said(both[0]) == _said(both[1]), zip(chosen, rejected, strict=False))
    prompt = tuple(replace(one, weight=0) for one, _ in same)
    while prompt and prompt[-1].role == ASSISTANT and len(prompt) == min(len(chosen), len(rejected)):
        prompt = prompt[:-1]  # the answers are equal: there is no preference, which is counted and not refused
    pair = Pair(prompt, chosen[len(prompt) :], rejected[len(prompt) :], name)
    for side, answer in ((CHOSEN, pair.chosen), (REJECTED, pair.rejected)):
        if not answer or answer[-1].role != ASSISTANT:
            raise DataError(
                f"{side!r} does not end with an answer of an assistant",
                where=where,
                hint="end each side with the answer that is preferred, or is not",
            )
    if not any(one.role == "user" for one in prompt):
        raise DataError(
            "the two sides begin differently, so that they have no prompt in common",
            where=where,
            hint=f'give the prompt as a column "prompt", or as the first messages of both {CHOSEN!r} and {REJECTED!r}',
        )
    return pair


def is_tie(pair: Pair) -> bool:
    """Return whether both answers are the same text."""
    return [*map(_said, pair.chosen)] == [*map(_said, pair.rejected)]


def _said(message: Message) -> tuple[str, str]:
    return message.role, message.content


def _has_markers(value: Any) -> bool:
    return isinstance(value, str) and not is_nothing(value) and all(marker in value for marker in _WITH_MARKERS)
