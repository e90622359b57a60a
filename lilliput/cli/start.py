"""The `start` command: asks what a model is for and how long training may take, and writes a recipe for that."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lilliput.base.errors import LilliputError
from lilliput.base.terminal import Terminal
from lilliput.cli.options import JsonOption, expanded
from lilliput.cli.show import console

if TYPE_CHECKING:
    from lilliput.start import Purpose

T = TypeVar("T")

FOLDER = Path("my-model")
app = typer.Typer()


def _purposes(incomplete: str) -> list[str]:
    from lilliput.start import PURPOSES

    return [name for name in PURPOSES if name.startswith(incomplete)]


@app.command()
def start(
    purpose: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="try, base, assistant, leaderboard or ablation.", autocompletion=_purposes),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="How long training may take on this machine.")] = None,
    texts: Annotated[
        list[str], typer.Option(metavar="PATH", help="A folder or file of your texts, for base and assistant.")
    ] = [],  # noqa: B006, typer reads it
    chats: Annotated[
        list[str], typer.Option(metavar="PATH", help="A folder or file of your conversations, for assistant.")
    ] = [],  # noqa: B006
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps, or auto for the best available.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help=f"A new folder, {FOLDER} by default.", callback=expanded),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Begin here: write a recipe that trains for as long as you have, and say what to type next.

    Asks for whatever the options leave open. Without a terminal, options must give everything.
    """
    from lilliput.plan import show
    from lilliput.start import PURPOSES, Answers, make, readable, refuse_taken, write

    given = {"texts": texts, "chats": chats}
    asks = _is_watched()
    if not asks:
        _refuse_missing(purpose, minutes, given)
    chosen = _purpose(purpose) if purpose else _choose("What is it for?", PURPOSES)
    _refuse_without_effect(chosen, given)
    sources = {
        name: readable(chosen, name, given[name])
        if given[name]
        else _answer(f"Your {name}, a folder or a file", None, lambda text, name=name: readable(chosen, name, [text]))
        for name in chosen.sources
    }
    if minutes is None:
        minutes = _answer("How many minutes may training take?", str(chosen.minutes), _number)
    device = device or (_device() if asks else "auto")
    folder = out or (_answer("A new folder for the recipe", str(FOLDER), _new_folder) if asks else FOLDER)
    refuse_taken(folder)
    answers = Answers(purpose=chosen, minutes=minutes, folder=folder, device=device, sources=sources)
    with console.status("measuring this machine") if not as_json else nullcontext() as status:
        project = make(answers, status.update if status else lambda line: None)
    if not as_json:
        show(console, project.plan)
    write(project)
    files = [str(folder / name) for name in project.files]
    if as_json:
        print(
            json.dumps(
                {"files": files, "next": project.command, "notes": project.notes, "plan": project.plan}, indent=2
            )
        )
        return
    console.print()
    for note in project.notes:
        console.print(f"{note}.", soft_wrap=True)
    console.print(f"\nwritten: {' and '.join(files)}, for you to read and change; next:", soft_wrap=True)
    console.print(f"  {project.command}", style="bold", soft_wrap=True, end="\n")  # uncut, for it will be copied


def _is_watched() -> bool:
    """Return whether a person at a terminal can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _refuse_missing(purpose: str | None, minutes: float | None, given: dict[str, list[str]]) -> None:
    """Refuse missing answers without a terminal: nothing can be asked there, and nothing is guessed."""
    missing = [name for name, value in (("--purpose", purpose), ("--minutes", minutes)) if value is None]
    needed = _purpose(purpose).sources if purpose else ()
    if missing := [*missing, *(f"--{name}" for name in needed if not given[name])]:
        raise LilliputError(
            f"{' and '.join(missing)} missing, and no terminal to ask in",
            where="lilliput start",
            hint="e.g. lilliput start --purpose base --texts FOLDER --minutes 10; see lilliput start --help",
        )


def _refuse_without_effect(purpose: "Purpose", given: dict[str, list[str]]) -> None:
    for name, paths in given.items():
        if paths and name not in purpose.sources:
            raise LilliputError(
                f"--{name} has no effect with --purpose {purpose.name}",
                where=f"--{name} {' '.join(paths)}",
                hint="leave it out, or choose --purpose base (texts) or assistant (texts and chats)",
            )


def _purpose(name: str) -> "Purpose":
    from lilliput.recipe import unknown
    from lilliput.start import PURPOSES

    if name not in PURPOSES:
        raise unknown("purpose", name, list(PURPOSES), f"--purpose {name}")
    return PURPOSES[name]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise LilliputError(f"{text!r} is not a number", where="the answer", hint="type e.g. 10") from None


def _new_folder(text: str) -> Path:
    from lilliput.start import refuse_taken

    folder = Path(text).expanduser()
    refuse_taken(folder)
    return folder


def _device() -> str:
    """Return the only device, or the one that is chosen among several."""
    from lilliput.doctor import described, devices

    there = devices()
    if len(there) == 1:
        Terminal(stderr=True, soft_wrap=True).print(
            f"Training will be on this machine's {there[0]}: {described(there[0])}."
        )
        return there[0]
    titles = {name: f"{name}: {described(name)}" for name in there}
    return _choose("Where?", {title: name for name, title in titles.items()})


def _choose(question: str, choices: "dict[str, T]") -> T:
    """Ask for one of several values by its number; the first one by default."""
    said = Terminal(stderr=True, soft_wrap=True)
    said.print(question)
    for number, (name, value) in enumerate(choices.items(), start=1):
        said.print(f"  {number}  {getattr(value, 'title', name)}")

    def chosen(text: str) -> T:
        if not text.isdecimal() or not 1 <= int(text) <= len(choices):
            raise LilliputError(
                f"{text!r} is not one of the choices", where="the answer", hint=f"type 1 to {len(choices)}"
            )
        return list(choices.values())[int(text) - 1]

    return _answer("Number", "1", chosen)


def _answer(question: str, default: str | None, read: Callable[[str], T]) -> T:
    """Ask until the answer can be read."""
    while True:
        text = typer.prompt(question, default=default, err=True)
        try:
            return read(text.strip())
        except LilliputError as error:
            Terminal(stderr=True, soft_wrap=True).print(f"{error.what}; {error.hint}", style="red")
