"""Watching runs, and comparing them."""

from pathlib import Path
from typing import Annotated

import typer

from lilliput.cli.show import console

app = typer.Typer()


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, also of one that is training.")],
) -> None:
    """Write report.html: a run's curves and figures on one page. Training writes it too, after each measurement."""
    from lilliput.report.page import write_report

    console.print(f"the report is {write_report(run)}", highlight=False, markup=False, soft_wrap=True)
