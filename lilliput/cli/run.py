"""From raw text to a published model, in one command or step by step."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from lilliput.base.background import has_unfinished_calls
from lilliput.cli.options import (
    ChangeOption,
    EndpointOption,
    ItemsOption,
    LoggerOption,
    MachineOption,
    MoreOption,
    OutOption,
    SetOption,
    ShrinkOption,
    SourceOption,
    TargetArgument,
    TrustOption,
    UntilOption,
)
from lilliput.cli.resolve import resolve
from lilliput.cli.show import console, show_release

if TYPE_CHECKING:
    from lilliput.run.target import Target

app = typer.Typer()
SAME = "the same command"
"""Resumes an interrupted command."""
NO_RELEASE = "its recipe makes no release of it"


@app.command("run")
def run_command(
    recipe: TargetArgument,
    out: OutOption = None,
    machine: MachineOption = None,
    allow_change: ChangeOption = False,
    overrides: SetOption = [],  # noqa: B006, typer reads it
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    trust_code: TrustOption = False,
    more_tokens: MoreOption = [],  # noqa: B006
    eval_data: ItemsOption = None,
    loggers: LoggerOption = [],  # noqa: B006
    endpoint: EndpointOption = None,
) -> None:
    """Do everything a recipe says: tokenizer, data, training, releases. Run again to resume after a stop."""
    from lilliput.evals.question_files import question_source
    from lilliput.run.asking import Asking
    from lilliput.run.pipeline import run

    target = resolve(
        recipe,
        out=out,
        overrides=overrides,
        sources=sources,
        shrunk=shrink,
        machine=machine,
        more_tokens=more_tokens,
        trust_code=trust_code,
    )
    _announce(target)
    with interruptible(_resuming_command(target)):
        releases = run(
            target.recipe,
            target.folder,
            _machine(machine),
            console,
            question_source(eval_data),
            target.command,
            loggers=loggers,
            allow_change=allow_change,
            asking=Asking(endpoint=endpoint),
        )
    for release in releases:
        show_release(release, target.folder)
    if not releases:
        say(f"trained; {'the first machine makes the releases' if target.recipe.releases else NO_RELEASE}")


@app.command()
def train(
    recipe: TargetArgument,
    out: OutOption = None,
    machine: MachineOption = None,
    allow_change: ChangeOption = False,
    overrides: SetOption = [],  # noqa: B006
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    trust_code: TrustOption = False,
    more_tokens: MoreOption = [],  # noqa: B006
    loggers: LoggerOption = [],  # noqa: B006
    until: UntilOption = None,
    endpoint: EndpointOption = None,
) -> None:
    """Train every phase of a recipe, after tokenizing, and publish nothing."""
    from lilliput.run import pipeline
    from lilliput.run.asking import Asking

    target = resolve(
        recipe,
        out=out,
        overrides=overrides,
        sources=sources,
        shrunk=shrink,
        machine=machine,
        more_tokens=more_tokens,
        trust_code=trust_code,
    )
    _announce(target)
    with interruptible(_resuming_command(target)):
        pipeline.train(
            target.recipe,
            target.folder,
            _machine(machine),
            console,
            target.command,
            until=until,
            loggers=loggers,
            allow_change=allow_change,
            asking=Asking(endpoint=endpoint),
        )
    if until:
        return say(f"trained as far as {until}; lilliput train {target.folder} trains the rest")
    then = f"lilliput publish {target.folder} makes the releases" if target.recipe.releases else NO_RELEASE
    say(f"trained; {then}")


def _announce(target: "Target") -> None:
    for line in target.notes:
        say(line)


def _resuming_command(target: "Target") -> Callable[[], str]:
    """Name the command that resumes an interrupted one: a run that was lengthened is not lengthened again."""

    def command() -> str:
        from lilliput.recipe import read_recipe

        is_longer = bool(target.notes) and read_recipe(target.folder) == target.recipe
        return f"lilliput train {target.folder}" if is_longer else SAME

    return command


def _machine(name: str | None) -> Any:
    from lilliput.recipe import load_machine

    return load_machine(name) if name else None


@contextmanager
def interruptible(again: Callable[[], str] = lambda: SAME) -> Iterator[None]:
    """End a command that can be resumed with one line and exit code 130 on Ctrl-C, or 143 on SIGTERM.

    The line names `again` as the command that resumes it.
    """
    asked = _Asked()
    try:
        yield
    except KeyboardInterrupt:
        say(f"\ninterrupted; {again()} resumes it")
        if has_unfinished_calls():  # in the middle of native code, which Python cannot end with
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(asked.code)
        raise typer.Exit(asked.code) from None
    except BaseException:
        asked.withdraw()
        raise
    asked.withdraw()


class _Asked:
    """Signals that ask the command to end. The first interrupts it; more of them within `SOON` are ignored, so that
    the command can leave its files in order. A later one ends the process at once.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    SOON = 5.0
    """Seconds."""

    def __init__(self) -> None:
        self.code, self._when = 128 + signal.SIGINT, 0.0
        meant = {number: signal.getsignal(number) for number in self.SIGNALS}
        self._former = {number: one for number, one in meant.items() if one not in (None, signal.SIG_IGN)}
        for number in self._former:
            signal.signal(number, self._ask)

    def withdraw(self) -> None:
        """Restore the former signal handlers."""
        for number, former in self._former.items():
            signal.signal(number, former)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self._when:
            self.code, self._when = 128 + number, monotonic()
            raise KeyboardInterrupt
        if monotonic() - self._when >= self.SOON:
            os._exit(self.code)


def say(line: str) -> None:
    """Print one line, however long it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
