"""The `check` command: tests the parts of a recipe."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from lilliput.base.hub import reading_only
from lilliput.base.terminal import visible
from lilliput.cli.options import JsonOption, SetOption, TargetArgument, TrustOption
from lilliput.cli.resolve import resolve
from lilliput.cli.show import console

if TYPE_CHECKING:
    from lilliput.check import Result

app = typer.Typer()
COLORS = {"ok": "green", "failed": "bold red", "skipped": "dim"}


@app.command()
@reading_only()
def check(
    recipe: TargetArgument,
    overrides: SetOption = [],  # noqa: B006, typer reads it
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Test the mixers, optimizers and objectives of a recipe on a small model and random rows, in seconds."""
    from lilliput.check import check as run

    target = resolve(recipe, overrides=overrides, trust_code=trust_code)
    results: list[Result] = []
    for result in run(target.recipe):
        results.append(result)
        if not as_json:
            _show(result)
    counts = {state: sum(result.state == state for result in results) for state in COLORS}
    if as_json:
        print(
            json.dumps({"recipe": target.recipe.name, **counts, "checks": [asdict(one) for one in results]}, indent=2)
        )
    else:
        console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    if counts["failed"]:
        raise typer.Exit(1)


def _show(result: "Result") -> None:
    line = Text(f"{result.state:8}", style=COLORS[result.state])
    says = f"  {result.says}" if result.says and result.state != "failed" else ""
    line.append(visible(f"{result.kind} {result.part}: {result.check}{says}"), style="default")
    console.print(line, soft_wrap=True)
    if result.state == "failed":
        for text in (result.says, f"where: {result.where}", f"hint: {result.hint}"):
            console.print(f"          {text}", soft_wrap=True)
