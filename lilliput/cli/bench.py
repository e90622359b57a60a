"""The benchmarks that come with Lilliput, one script a question: list them, run one."""

import ast
import difflib
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lilliput.base.errors import LilliputError
from lilliput.cli.show import console

PACKAGE = Path(__file__).parents[1]
INSIDE, BESIDE = PACKAGE / "benchmarks", PACKAGE.parent / "benchmarks"
"""Folders of the scripts in a wheel and in a checkout."""

app = typer.Typer()


def scripts() -> dict[str, Path]:
    """Return every benchmark's script by its name."""
    folder = INSIDE if INSIDE.is_dir() else BESIDE
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def question(script: Path) -> str:
    """Return the question a script answers: the first line of its docstring, read without running it."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _names(incomplete: str) -> list[str]:
    return [name for name in scripts() if name.startswith(incomplete)]


# Options end at NAME: what comes after it is the script's, --help too.
@app.command(context_settings={"allow_interspersed_args": False})
def bench(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The benchmark to run; without it, all are listed.", autocompletion=_names),
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Arguments of the script; --help lists them.")
    ] = None,
) -> None:
    """List the benchmarks and their questions, or run one: `lilliput bench loss --device cpu`."""
    known = scripts()
    if name is None:
        width = max(map(len, known), default=0)
        for each, script in known.items():
            console.print(f"{each:{width}}  {question(script)}", soft_wrap=True)
        return
    if name not in known:
        near = difflib.get_close_matches(name.replace("-", "_"), known, n=3)
        hint = f"nearest names: {', '.join(near)}" if near else "`lilliput bench` lists them"
        raise LilliputError(f"there is no benchmark {name!r}", where="lilliput bench", hint=hint)
    _become(known[name], arguments or [])


def _become(script: Path, arguments: list[str]) -> NoReturn:
    """Let Python run a script in the place of this process, so that signals and the exit code are the script's own."""
    from lilliput.base.environment import GIVEN

    environment = dict(GIVEN)
    if script.parent == BESIDE:
        # The package that is measured is this one, also where `python -m lilliput` found it in the current folder.
        path = [str(PACKAGE.parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, str(script), *arguments], environment)
