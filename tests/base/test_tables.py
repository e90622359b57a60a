"""Tables in any terminal: no word is cut, and where words have no room side by side, rows become lists."""

from io import StringIO

import pytest
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lilliput.base.terminal import Terminal

WORDS = [
    "what",
    "Parliament",
    "rehearsal of the whole timeline",
    "109,529,856",
    "runs/own-chat-shrunk",
    "2026-11-29 09:12",
]


def printed(width: int) -> str:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="some runs")
    for name in ("name", "institution", "about", "parameters", "folder", "changed"):
        table.add_column(name)
    table.add_row(*WORDS)
    table.add_row(*reversed(WORDS))
    console = Terminal(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 24])
def test_no_word_is_cut_and_no_line_is_longer_than_the_terminal(width: int) -> None:
    shown = printed(width)
    assert max(map(len, shown.splitlines())) <= width
    for word in " ".join(WORDS).split():
        assert shown.count(word) >= 2, word


def test_columns_wrap_where_words_fit_and_rows_become_lists_where_they_do_not() -> None:
    assert "what" in next(line for line in printed(200).splitlines() if "rehearsal of the whole timeline" in line)
    assert "109,529,856" in next(line for line in printed(110).splitlines() if "Parliament" in line)
    narrow = printed(40).splitlines()
    assert narrow[0] == "some runs" and narrow[1] == "what" and narrow[2].split() == ["institution", "Parliament"]


def test_what_would_act_in_a_terminal_is_shown_in_a_list_too() -> None:
    table = Table("a" * 30, "b" * 30)
    table.add_row("\x1b[2J" * 4, "[red]" * 9)
    console = Terminal(file=StringIO(), width=40)
    console.print(table)
    assert "\x1b" not in console.file.getvalue() and "[red]" in console.file.getvalue()


def test_cells_that_are_not_to_wrap_stay_whole_where_others_can() -> None:
    table = Table("run", "changed", "about", box=SIMPLE_HEAD)
    table.columns[1].no_wrap = True
    table.add_row("runs/a", "2026-11-29 12:04", "a sentence that may go on in another line")
    console = Terminal(file=StringIO(), width=50)
    console.print(table)
    assert "2026-11-29 12:04" in console.file.getvalue()
