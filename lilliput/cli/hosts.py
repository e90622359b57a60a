"""The `hosts` command: the lines to type on machines that train one model without a shared disk."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from lilliput.base.errors import LilliputError
from lilliput.cli.options import (
    JsonOption,
    OutOption,
    SetOption,
    ShrinkOption,
    SourceOption,
    TargetArgument,
    TrustOption,
)
from lilliput.cli.resolve import resolve
from lilliput.cli.show import console

app = typer.Typer()


@app.command()
def hosts(
    recipe: TargetArgument,
    names: Annotated[
        str,
        typer.Option("--hosts", metavar="A,B", help="The hosts by their names in the network; the first publishes."),
    ],
    machine: Annotated[str, typer.Option(metavar="NAME|FILE", help="A machine with BlockParallel or OuterSteps.")],
    out: OutOption = None,
    overrides: SetOption = [],  # noqa: B006, typer reads it
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    trust_code: TrustOption = False,
    port: Annotated[int, typer.Option(help="A free port of the first host.")] = 29_500,
    as_json: JsonOption = False,
) -> None:
    """Print what to type on each of several hosts that train a recipe without a shared disk. Does nothing itself."""
    from lilliput.recipe import load_machine
    from lilliput.train.block_parallel import BlockParallel
    from lilliput.train.outer_steps import OuterSteps

    listed = [name.strip() for name in names.split(",") if name.strip()]
    exchange = load_machine(machine).exchange
    if not isinstance(exchange, BlockParallel | OuterSteps) or exchange.machines not in ("auto", len(listed)):
        raise LilliputError(
            f"the machine {machine!r} does not train on {len(listed)} hosts without a shared disk",
            where="--machine with --hosts",
            hint="give one with exchange=BlockParallel() or OuterSteps() for as many, such as two-hosts for two",
        )
    target = resolve(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink, trust_code=trust_code)
    chosen = [recipe, *(["--shrink"] if shrink else []), *(["--trust-code"] if trust_code else [])]
    chosen += [
        word
        for option, values in (("--set", overrides), ("--source", sources))
        for one in values
        for word in (option, one)
    ]
    chosen += ["--out", str(target.folder)]
    files = [str(target.folder), *(one for one in (recipe, machine) if one.endswith(".py"))]
    copied = [shlex.join(["rsync", "-aR", *files, f"{other}:{Path.cwd()}/"]) for other in listed[1:]]
    made = {listed[0]: [shlex.join(["lilliput", "data", *chosen]), *copied]}
    started = {name: _torchrun(rank, listed, port, [*chosen, "--machine", machine]) for rank, name in enumerate(listed)}
    if as_json:
        print(json.dumps({"folder": str(Path.cwd()), "data": made, "run": started}, indent=2))
        return
    _say(f"in {Path.cwd()} of {listed[0]}, once, before anything trains:", *made[listed[0]])
    for name, line in started.items():
        _say(f"in {Path.cwd()} of {name}, again after a stop:", line)


def _torchrun(rank: int, listed: list[str], port: int, arguments: list[str]) -> str:
    where = ["--nnodes", str(len(listed)), "--node-rank", str(rank), "--nproc-per-node", "1"]
    where += ["--master-addr", listed[0], "--master-port", str(port), "--max-restarts", "10"]
    return shlex.join(["torchrun", *where, "-m", "lilliput", "run", *arguments])


def _say(title: str, *lines: str) -> None:
    for line in (title, *(f"  {each}" for each in lines)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
