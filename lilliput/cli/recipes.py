"""Commands about recipes before they run: list, show, copy and plan."""

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.syntax import Syntax
from rich.table import Table

from lilliput.base.errors import LilliputError
from lilliput.base.hub import reading_only
from lilliput.base.run_code import UntrustedCodeError
from lilliput.cli.options import (
    JsonOption,
    MachineOption,
    MoreOption,
    RecipeArgument,
    SetOption,
    ShrinkOption,
    SourceOption,
    TargetArgument,
    TrustOption,
)
from lilliput.cli.resolve import resolve
from lilliput.cli.show import console

app = typer.Typer()
group = typer.Typer(help="The recipes that come with Lilliput: list, show, copy.", no_args_is_help=True)
app.add_typer(group, name="recipe")


@group.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes, what each makes, and its size."""
    from lilliput.base.implemented import unimplemented_parts
    from lilliput.plan import plan
    from lilliput.recipe import load_recipe, names

    rows = []
    for name in names("lilliput.recipes"):
        recipe = load_recipe(name)
        sizes = {entry["name"]: entry["parameters"]["total"] for entry in plan(recipe)["releases"]}
        rows.append(
            {"name": name, "about": recipe.about, "releases": sizes, "not_implemented": unimplemented_parts(recipe)}
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("recipe", "what it is", "parameters", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        about = (
            f"{row['about']} Cannot run yet: parts of it are not implemented."
            if row["not_implemented"]
            else row["about"]
        )
        table.add_row(row["name"], about, "\n".join(f"{size:,}" for size in row["releases"].values()))
    console.print(table)


@group.command("show")
def show_recipe(recipe: RecipeArgument, as_json: JsonOption = False) -> None:
    """Print a recipe: its Python file, or every setting as JSON."""
    from lilliput.base.spec import to_plain
    from lilliput.base.terminal import visible
    from lilliput.recipe import load_recipe, source_of

    if as_json:
        print(json.dumps(to_plain(load_recipe(recipe)), indent=2))
        return
    text = visible(source_of(recipe).read_text(encoding="utf-8"))
    if console.is_terminal:
        console.print(Syntax(text, "python", background_color="default"))
    else:
        print(text, end="")


@group.command("copy")
def copy_recipe(
    recipe: RecipeArgument,
    to: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: my_<recipe>.py in this folder.")] = None,
) -> None:
    """Copy a recipe's file, to change it and run the copy. The recipe takes the new file's name."""
    from lilliput.base.files import write_text
    from lilliput.base.ownership import check_name
    from lilliput.recipe import load_recipe, source_of

    source = source_of(recipe)
    file = to or Path(f"my_{source.name}")
    if file.is_dir():
        file = file / f"my_{source.name}"
    if file.exists():
        raise LilliputError(
            f"{file} already exists", where="recipe copy", hint="give another file name after the recipe"
        )
    check_name("recipe", file.stem, f"recipe copy ... {file}")
    text, old = source.read_text(encoding="utf-8"), load_recipe(recipe).name
    text = text.replace(f'name="{old}"', f'name="{file.stem}"')
    text = re.sub(rf"(lilliput \w+) {re.escape(old)}(?![\w-])", rf"\1 {file}", text)
    text = text.replace('"""', f'"""{file.stem}, a copy of {old}.\n\n', 1)
    write_text(file, text)
    name = load_recipe(str(file)).name
    message = f"copied: the recipe {name}, whose run will be runs/{name}; change it, then: lilliput plan {file}"
    console.print(message, soft_wrap=True)


@app.command()
@reading_only()
def plan(
    recipe: TargetArgument,
    overrides: SetOption = [],  # noqa: B006, typer reads it
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    more_tokens: MoreOption = [],  # noqa: B006
    machine: MachineOption = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Run a few steps of each phase here, to measure time and memory.")
    ] = False,
    price_per_hour: Annotated[float | None, typer.Option(help="Price of the machine per hour.")] = None,
    watts: Annotated[float | None, typer.Option(help="Power of the machine in watts.")] = None,
    price_per_kwh: Annotated[float | None, typer.Option(help="Price of electricity per kWh.")] = None,
    currency: Annotated[str | None, typer.Option(help="Currency to show beside prices.")] = None,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a recipe would do and need, without doing it."""
    from lilliput.overrides import refuse_missing_files
    from lilliput.plan import Tariff, foreseen, machine_rating, show
    from lilliput.plan import plan as make
    from lilliput.plan import probe as measure
    from lilliput.recipe import load_machine

    tariff = Tariff(price_per_hour=price_per_hour, watts=watts, price_per_kwh=price_per_kwh, currency=currency)
    changes: dict[str, Any] = {"overrides": overrides, "sources": sources, "shrunk": shrink, "more_tokens": more_tokens}
    try:
        target = resolve(recipe, trust_code=trust_code, **changes)
    except UntrustedCodeError:
        if not as_json:
            _show_outline(Path(recipe))
        raise
    refuse_missing_files(target.recipe, target.folder)
    where = load_machine(machine or "here")
    planned = target.recipe.filled(foreseen(target.recipe, target.folder))
    rating, costs = machine_rating(machine or "here"), None
    if probe:
        where = where.resolved()
        with console.status("probing") if not as_json else nullcontext() as status:
            costs = measure(planned, where, status.update if status else lambda line: None)
    planned_run = make(planned, where, costs=costs, tariff=tariff, rating=rating, folder=target.folder)
    if as_json:
        print(json.dumps(planned_run, indent=2))
    else:
        show(console, planned_run)


def _show_outline(run: Path) -> None:
    """Print what a run's recipe says without running its own code."""
    from lilliput.report.recipe_outline import read_outline

    outline = read_outline(run)
    console.print(f"{outline.name}: {outline.about}", soft_wrap=True)
    for index, entry in enumerate(outline.timeline):
        console.print(f"{index:02d} {entry.describe()}", soft_wrap=True)
