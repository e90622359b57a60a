"""Variants of a recipe, trained side by side and compared."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lilliput.base.own_code import using
from lilliput.base.terminal import Terminal
from lilliput.cli.options import (
    JsonOption,
    MachineOption,
    SetOption,
    ShrinkOption,
    SourceOption,
    TargetArgument,
    TrustOption,
    expanded,
)
from lilliput.cli.resolve import resolve
from lilliput.cli.run import interruptible
from lilliput.cli.show import console

app = typer.Typer()


@app.command("sweep")
def sweep_command(
    recipe: TargetArgument,
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="PATH=A,B,C",
            help="Vary one field; given several times, all combinations. Write a part by name: HGRN2(heads=4).",
        ),
    ] = [],  # noqa: B006, typer reads it
    seeds: Annotated[
        int,
        typer.Option(metavar="N", help="Train each setting with this many seeds; without --over, vary the seed alone."),
    ] = 1,
    metric: Annotated[
        str | None,
        typer.Option(metavar="PHASE.CORPUS", help="Compare this; by default bits per byte after the last text phase."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="runs/<recipe>-sweep by default; an existing sweep is resumed.", callback=expanded
        ),
    ] = None,
    machine: MachineOption = None,
    overrides: SetOption = [],  # noqa: B006
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train variants of a recipe and compare their held-out bits per byte. Run again to resume after a stop."""
    from lilliput.recipe import load_machine
    from lilliput.sweep.axes import read_over
    from lilliput.sweep.table import footnotes, table
    from lilliput.sweep.variants import sweep

    target = resolve(
        recipe, overrides=overrides, sources=sources, shrunk=shrink, machine=machine, trust_code=trust_code
    )
    folder = out or Path("runs") / f"{target.folder.name}-sweep"
    screen = Terminal(stderr=True) if as_json else console
    with interruptible(), using(target.command and target.command.code):
        found = sweep(
            target.recipe,
            [read_over(text) for text in over],
            seeds,
            folder,
            load_machine(machine) if machine else None,
            screen,
            metric=metric,
            fixed=overrides,
            command=target.command,
        )
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console.print(table(found))
    for line in (*footnotes(found), f"table.md, results.json and plot.png are in {folder}"):
        console.print(line, soft_wrap=True)
