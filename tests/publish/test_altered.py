"""Whichever figure of a card is changed, the comparison with a fresh one names it."""

import pytest
from card_records import record_of

from lilliput.publish.card.altered import FIGURE, compare
from lilliput.publish.card.card import card

FRESH = card(record_of(chat=True))


def test_a_card_as_it_was_made_has_nothing_to_say():
    found = compare(FRESH, FRESH)
    assert found.figures == len(FIGURE.findall(FRESH)) > 200
    assert not found.altered and not found.added


def test_every_figure_that_is_changed_is_named():
    places = list(FIGURE.finditer(FRESH))
    for place in places[::7]:
        digit = str((int(place[0][0]) + 1) % 10)
        changed = FRESH[: place.start()] + digit + FRESH[place.start() + 1 :]
        found = compare(changed, FRESH)
        assert len(found.altered) == 1, place
        assert f"{digit}{place[0][1:]}"[:80] in found.altered[0] or "..." in found.altered[0]


@pytest.mark.parametrize("line", [line for line in FRESH.splitlines() if line.startswith("| ") and "%" in line])
def test_a_row_that_is_gone_or_added_is_named(line):
    found = compare(FRESH.replace(line + "\n", ""), FRESH)
    assert found.altered and found.altered[0].startswith("gone: ")
    invented = "| MMLU | acc ↑ | 61.0% | 0.4% | 25.0% | 14,042 | |"
    assert "MMLU" in compare(FRESH.replace(line, f"{line}\n{invented}"), FRESH).altered[0]


def test_words_of_ones_own_are_no_change_and_their_figures_are_listed():
    edited = FRESH.replace("## Facts", "Thanks to everybody.\nTrained in 3 days.\n\n## Facts")
    edited = edited.replace("It works with transformers", "It runs with transformers")
    found = compare(edited, FRESH)
    assert not found.altered and len(found.added) == 1 and "Trained in 3 days." in found.added[0]
