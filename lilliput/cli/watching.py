"""Watching runs, and comparing them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lilliput.cli.options import JsonOption, expanded
from lilliput.cli.show import console

app = typer.Typer()


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, also of one that is training.")],
) -> None:
    """Write report.html: a run's curves and figures on one page. Training writes it too, after each measurement."""
    from lilliput.report.page import write_report

    console.print(f"the report is {write_report(run)}", soft_wrap=True)


@app.command("compare")
def compare_command(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or one of its phases: runs/a:pretrain.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Another, or another phase.")],
    heldout: Annotated[str | None, typer.Option(metavar="CORPUS", help="The held-out text to compare on.")] = None,
    at: Annotated[float | None, typer.Option(metavar="BITS", help="Bits per byte to look at.")] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the curves into an HTML file.", callback=expanded)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what two runs need, in tokens and in time, to reach equal held-out bits per byte."""
    from lilliput.base.ownership import check_output
    from lilliput.compare.comparison import compare
    from lilliput.compare.page import write_page
    from lilliput.report.page import GENERATOR

    if page is not None:
        check_output(page, GENERATOR, "--page")
    found = compare(first, second, corpus=heldout, at=at)
    if page is not None:
        write_page(found, page)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console.print(_table(found))
    for line in (found["says"], "", *found["notes"], *([f"the curves are in {page}"] if page else [])):
        console.print(line)


def _table(found: dict[str, Any]) -> Table:
    from lilliput.compare.page import cells

    table = Table(title=f"held-out {found['corpus']}, 1: {found['runs'][0]['name']}, 2: {found['runs'][1]['name']}")
    table.box, table.pad_edge = SIMPLE_HEAD, False
    for heading in ("bits/byte", "tokens 1", "tokens 2", "2 over 1", "time 1", "time 2", "2 over 1"):
        table.add_column(heading, justify="right", no_wrap=True)
    for level in found["levels"]:
        table.add_row(*cells(level))
    return table
