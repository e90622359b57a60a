"""The forms that the values of a question have: what the harness would stumble over is refused by file and record."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MOST = 26
"""Choices of a question: as many as there are letters."""
_HALF_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Form:
    """Required form of a value."""

    says: str
    fits: Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Return whether it is text, all of it: half a surrogate pair is none."""
    return isinstance(value, str) and not _HALF_PAIR.search(value)


def is_number(value: Any, below: int) -> bool:
    """Return whether it is a whole number from 0 to below a limit; True and False are 1 and 0."""
    return isinstance(value, int) and 0 <= value < below


def _is_place(value: Any) -> bool:
    return is_number(value, MOST) or (isinstance(value, str) and value in map(str, range(MOST)))


def _is_words(value: Any) -> bool:
    return is_text(value) and value.strip() != ""


def _are_choices(value: Any) -> bool:
    return isinstance(value, list) and 1 < len(value) <= MOST and all(map(_is_words, value))


def _are_paired(value: Any, choices: str, labels: str, is_label: Callable[[Any], bool]) -> bool:
    if not isinstance(value, dict) or not _are_choices(value.get(choices)) or not isinstance(value.get(labels), list):
        return False
    return len(value[choices]) == len(value[labels]) and all(map(is_label, value[labels]))


def _are_lettered(value: Any) -> bool:
    return _are_paired(value, "text", "label", is_text)


def _are_marked(value: Any) -> bool:
    return _are_paired(value, "choices", "labels", lambda label: is_number(label, 2)) and 1 in value["labels"]


TEXT = Form(says="text", fits=is_text)
WORDS = Form(says="text that is not blank", fits=_is_words)
GAP = Form(says="text with a gap, _", fits=lambda value: is_text(value) and "_" in value)
CHOICES = Form(says=f"a list of 2 to {MOST} texts", fits=_are_choices)
LETTERED = Form(says=f'{{"text": [...], "label": [...]}} of 2 to {MOST} texts', fits=_are_lettered)
MARKED = Form(says=f'{{"choices": [...], "labels": [...]}} of 2 to {MOST} texts and as many 0 or 1', fits=_are_marked)
YES_NO = Form(says="0 or 1", fits=lambda value: is_number(value, 2))
NUMBER = Form(says="a whole number from 0 on", fits=lambda value: is_number(value, 1 << 31))
PLACE = Form(says="the place of a choice, a number from 0 on", fits=_is_place)
PLACES = Form(
    says="a list of places of choices, numbers from 0 on",
    fits=lambda value: isinstance(value, list) and value != [] and all(is_number(place, MOST) for place in value),
)


def one_of(*values: str) -> Form:
    """One of these texts."""
    return Form(says=f"one of {', '.join(values)}", fits=lambda value: isinstance(value, str) and value in values)
