"""Tables that cut no word, however narrow the terminal: columns wrap between words, or each row becomes a list."""

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


def fitted(table: Table, console: Console) -> RenderableType:
    """A table as it fits into a console.

    Its columns get the width of their longest words at least, those that are not to wrap that of their longest cells
    if there is room, and what is left goes to those that want more. Where even the words do not fit side by side, every
    row is a list of its cells by the names of their columns.
    """
    options = console.options.update(width=10_000)  # what it would like to have
    columns = [[column.header, *column.cells] for column in table.columns]
    sizes = [[Measurement.get(console, options, _text(cell, console)) for cell in cells] for cells in columns]
    least, wanted = ([max(getattr(size, end) for size in of) for of in sizes] for end in ("minimum", "maximum"))
    beside = Measurement.get(console, options, table).maximum - sum(wanted)
    room = console.width - beside
    if sum(wanted) <= room:
        return table
    whole = [of[column.no_wrap] for column, *of in zip(table.columns, least, wanted, strict=True)]
    if sum(whole) <= room:
        least = whole
    if sum(least) > room:
        return _listed(table, console)
    for column, width in zip(table.columns, _shared(least, wanted, room), strict=True):
        column.width, column.no_wrap, column.overflow = width, False, "fold"
    return table


def _shared(least: list[int], wanted: list[int], room: int) -> list[int]:
    """Widths that fill the room: the narrowest wishes are met first."""
    widths, left = list(least), room - sum(least)
    waiting = sorted(range(len(widths)), key=lambda column: wanted[column] - least[column])
    for number, column in enumerate(waiting):
        more = min(wanted[column] - least[column], left // (len(waiting) - number))
        widths[column] += more
        left -= more
    return widths


def _listed(table: Table, console: Console) -> Group:
    """Each row as its first cell, and below it a line for every other cell that is not empty."""
    names = [_text(column.header, console).plain for column in table.columns]
    size = max(map(len, names[1:]), default=0)
    lines = [Text(_text(table.title, console).plain.strip(), style="bold")] if table.title else []
    for row in zip(*(column.cells for column in table.columns), strict=True):
        first, *rest = (_text(cell, console) for cell in row)
        lines.append(first)
        lines += [
            Text.assemble(f"  {name:<{size}}  ", Text(" ").join(cell.split("\n")))
            for name, cell in zip(names[1:], rest, strict=True)
            if cell.plain.strip()
        ]
    return Group(*lines)


def _text(cell: RenderableType, console: Console) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell))
