"""From raw text to a published model, in one command or step by step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from lilliput.cli.options import (
    ChangeOption,
    ItemsOption,
    MachineOption,
    OutOption,
    SetOption,
    ShrinkOption,
    SinkOption,
    SourceOption,
    TargetArgument,
)
from lilliput.cli.show import console, show_release
from lilliput.cli.target import target

app = typer.Typer()


@app.command("run")
def run_command(
    recipe: TargetArgument,
    out: OutOption = None,
    machine: MachineOption = None,
    allow_change: ChangeOption = False,
    overrides: SetOption = [],  # noqa: B006, typer reads it
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    eval_data: ItemsOption = None,
    sinks: SinkOption = [],  # noqa: B006
) -> None:
    """Do everything a recipe says: tokenizer, data, training, releases. Run again to go on after an interruption."""
    from lilliput.evals.items import items_of
    from lilliput.timeline import run

    aim = target(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink, machine=machine)
    with interruptible():
        releases = run(
            aim.recipe,
            aim.folder,
            _machine(machine),
            console,
            items_of(eval_data),
            aim.command,
            sinks=sinks,
            allow_change=allow_change,
        )
    for release in releases:
        show_release(release, aim.folder)


@app.command()
def tokenizer(
    recipe: TargetArgument,
    out: OutOption = None,
    overrides: SetOption = [],  # noqa: B006
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
) -> None:
    """Learn the tokenizer of a recipe, and nothing more."""
    from lilliput import timeline

    aim = target(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink)
    with interruptible():
        timeline.tokenizer(aim.recipe, aim.folder, console, aim.command)
    _say(f"the tokenizer is in {aim.folder / 'tokenizer'}")


@app.command()
def data(
    recipe: TargetArgument,
    out: OutOption = None,
    overrides: SetOption = [],  # noqa: B006
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every token file again, also those that look unchanged.")
    ] = False,
) -> None:
    """Write the token files of a recipe's corpora, after its tokenizer. Run again to go on after an interruption."""
    from lilliput import timeline

    aim = target(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink)
    with interruptible():
        (timeline.verify if verify else timeline.data)(aim.recipe, aim.folder, console, aim.command)
    _say(f"the token files are in {aim.folder / 'shards'}{', and as they were written' if verify else ''}")


@app.command()
def train(
    recipe: TargetArgument,
    out: OutOption = None,
    machine: MachineOption = None,
    allow_change: ChangeOption = False,
    overrides: SetOption = [],  # noqa: B006
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    sinks: SinkOption = [],  # noqa: B006
) -> None:
    """Train every phase of a recipe, after its token files, and publish nothing."""
    from lilliput import timeline

    aim = target(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink, machine=machine)
    with interruptible():
        timeline.train(
            aim.recipe, aim.folder, _machine(machine), console, aim.command, sinks=sinks, allow_change=allow_change
        )
    _say(f"trained; lilliput publish {aim.folder} makes the releases")


@app.command()
def publish(
    recipe: TargetArgument,
    out: OutOption = None,
    overrides: SetOption = [],  # noqa: B006
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    eval_data: ItemsOption = None,
) -> None:
    """Export, check, evaluate and describe the releases of a trained run. Never trains."""
    from lilliput import timeline
    from lilliput.evals.items import items_of

    aim = target(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink)
    with interruptible():
        releases = timeline.publish(aim.recipe, aim.folder, console, items_of(eval_data), aim.command)
    for release in releases:
        show_release(release, aim.folder)


def _machine(name: str | None) -> Any:
    from lilliput.recipe import load_machine

    return load_machine(name) if name else None


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C, or a SIGTERM, ends a command that can go on later with one line and exit code 130, or 143."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _say("\ninterrupted; the same command goes on from what is done")
        raise typer.Exit(143 if isinstance(interrupt, _Terminated) else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(KeyboardInterrupt):
    """A SIGTERM: what a machine that shuts down or a queue whose time is up sends instead of Ctrl-C."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
