"""A table for every place where one is shown: a terminal, a Markdown file, and pages (`table.html.jinja`)."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table as TerminalTable

from lilliput.publish.card.markdown import prose


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column."""

    name: str
    cells: Sequence[str]
    """One a row; a line break in a cell is kept but in Markdown."""
    is_text: bool = False
    """Text begins on the left, numbers end on the right."""
    wraps: bool = False
    """True if a terminal may break a cell that is too long."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length."""

    columns: Sequence[Column]
    title: str = ""
    """A terminal shows it."""
    best: int | None = None
    """The row that a terminal shows in bold."""

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))

    def terminal(self) -> TerminalTable:
        """The table as rich prints it."""
        made = TerminalTable(
            title=self.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
        )
        for column in self.columns:
            made.add_column(
                column.name,
                justify="left" if column.is_text else "right",
                no_wrap=not column.wraps,
                overflow="fold" if column.wraps else "ellipsis",
            )
        for place, row in enumerate(self.rows):
            made.add_row(*row, style="bold" if place == self.best else None)
        return made

    def markdown(self) -> list[str]:
        """The lines of a Markdown table; whatever is in a cell, it stays there."""
        names = [prose(column.name) for column in self.columns]
        rule = ["---" if column.is_text else "--:" for column in self.columns]
        rows = [names, rule, *([prose(cell) for cell in row] for row in self.rows)]
        return [f"| {' | '.join(row)} |" for row in rows]
