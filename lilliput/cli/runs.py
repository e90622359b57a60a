"""Commands about existing runs, their files, and this machine: runs, clean, doctor."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lilliput.base.errors import LilliputError
from lilliput.cli.options import JsonOption
from lilliput.cli.show import console

RUNS = Path("runs")
app = typer.Typer()


@app.command()
def runs(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that holds run folders.")] = RUNS,
    as_json: JsonOption = False,
) -> None:
    """List runs: their state, their releases and their disk space."""
    from lilliput.run.listing import overviews

    if not root.is_dir() and root != RUNS:
        raise LilliputError(
            f"there is no folder {root}", where="lilliput runs", hint="give the folder that holds your runs"
        )
    found, unreadable = overviews(root)
    if unreadable and unreadable[0][0] == root:  # the one that was asked for
        raise unreadable[0][1]
    if as_json:
        rows = [
            {
                "folder": str(one.folder),
                "recipe": one.recipe,
                "state": one.state,
                "releases": list(one.releases),
                "outdated": list(one.outdated),
                "bytes": one.size,
                "changed": one.changed.isoformat(timespec="seconds"),
            }
            for one in found
        ]
        rows += [{"folder": str(folder), "error": error.what} for folder, error in unreadable]
        print(json.dumps(rows, indent=2))
        return
    if not found and not unreadable:
        names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        what = f"holds {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else "is empty"
        console.print(
            f"no run in {root}, which {what if root.is_dir() else 'is not there'}; `lilliput run quickstart` makes one"
        )
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("run", "recipe", "state", "releases", "MB", "changed"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("MB", "changed"))
    if root != RUNS:
        table.title, table.title_justify = f"below {root}", "left"
    for one in found:
        size, changed = f"{one.size / 1e6:,.1f}", f"{one.changed:%Y-%m-%d %H:%M}"
        releases = [f"{name} (outdated)" if name in one.outdated else name for name in one.releases]
        inside = one.folder if root in (RUNS, one.folder) else one.folder.relative_to(root)
        table.add_row(str(inside), one.recipe, one.state, "\n".join(releases), size, changed)
    if found:
        console.print(table)
    for one in found:
        for why in one.outdated.values():
            console.print(why, highlight=False, markup=False, soft_wrap=True)
    for folder, error in unreadable:
        console.print(f"{folder} cannot be shown: {error}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def clean(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    shards: Annotated[bool, typer.Option("--shards", help="Also the token files; they can be written again.")] = False,
    states: Annotated[
        bool,
        typer.Option("--states", help="Also states before decays and kept checkpoints; --more-tokens needs them."),
    ] = False,
    since: Annotated[
        str | None, typer.Option("--from", metavar="PART", help="Remove this part and all parts made after it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove the files; without it, only list them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Free disk space that a run no longer needs. Lists what would be removed; --yes removes it."""
    from lilliput.run import listing as folders

    what = folders.spare(run) if since is None else folders.since(run, since)
    parts = tuple(f"{one.name}/" for one in what)
    what += [one for one in folders.states(run) if states and not one.name.startswith(parts)]
    what += folders.shards(run) if shards else []
    freed = folders.remove(run, what) if yes else 0
    if as_json:
        rows = [{"name": one.name, "why": one.why, "bytes": one.size} for one in what]
        print(json.dumps({"run": str(run), "removed": yes, "parts": rows}, indent=2))
        return
    for one in what:
        console.print(f"{one.size / 1e6:10,.1f} MB  {one.name}: {one.why}")
    total = sum(one.size for one in what)
    end = f"{freed / 1e6:,.1f} MB freed" if yes else f"{total / 1e6:,.1f} MB in all; --yes removes them"
    console.print(end if what else "nothing to remove")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine has, what it lacks, and what to do about it."""
    from dataclasses import asdict

    from lilliput.doctor import examine, show

    findings = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        show(console, findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
