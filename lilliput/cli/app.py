"""The application of all commands. Errors become three lines on stderr and exit code 1."""

import difflib
import os
import sys
from typing import Any, NoReturn

import typer

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.terminal import Terminal
from lilliput.cli import (
    bench,
    check,
    contamination,
    curate,
    data,
    evaluate,
    hosts,
    judge,
    lines,
    models,
    publish,
    recipes,
    replies,
    report,
    run,
    runs,
    serve,
    start,
    sweep,
)

app = typer.Typer(
    help="The small-language-model foundry: raw text to a published small language model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    start,
    run,
    data,
    publish,
    replies,
    curate,
    models,
    serve,
    evaluate,
    contamination,
    judge,
    lines,
    recipes,
    hosts,
    check,
    sweep,
    report,
    runs,
    bench,
)
for commands in (module.app for module in COMMANDS):
    app.registered_commands += commands.registered_commands
    app.registered_groups += commands.registered_groups

UsageError: Any = typer.BadParameter.__base__
"""typer's usage error, wherever its version keeps it."""


def main() -> None:
    """Entry point of the command `lilliput`."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe is expected
    except UsageError as error:
        if not error.format_message():  # a group without a command: its help is on the screen
            sys.exit(0)
        complain(_usage(error))
    except typer.Abort:
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe; Python must not complain about it again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        complain(
            RunError(
                f"the operating system reports: {error.strerror or error}",
                where=str(error.filename or "a file of this command"),
                hint="check disk space and permissions there; earlier files are intact, and the same command resumes",
            )
        )
    except LilliputError as error:
        complain(error)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def complain(error: LilliputError) -> NoReturn:
    """Print an error to stderr and exit with code 1."""
    Terminal(stderr=True, soft_wrap=True).print(f"{type(error).__name__}: {error}", style="red")
    sys.exit(1)


def _usage(error: Any) -> LilliputError:
    """Turn a usage error of typer into one of ours, with the nearest names."""
    context = error.ctx
    known: list[str] = list(getattr(error, "possibilities", None) or [])
    if context is not None and not known:
        command = context.command
        if hasattr(command, "list_commands"):
            known = command.list_commands(context)
        else:
            known = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
    said = error.format_message().partition(" Did you mean")[0].rstrip(".")
    near = [match for word in said.replace("'", " ").split() for match in difflib.get_close_matches(word, known, n=3)]
    path = context.command_path if context is not None else "lilliput"
    names = f"nearest names: {', '.join(dict.fromkeys(near))}; " if near else ""
    return LilliputError(
        said[:1].lower() + said[1:], where=f"the command line, {path}", hint=f"{names}see {path} --help"
    )
