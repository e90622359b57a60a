"""The question before code that a run brings along runs: its files are named, and nothing runs unasked."""

import os
import sys
from pathlib import Path

from lilliput.base.terminal import Terminal


def meet(run: Path, *, trusted: bool) -> bool:
    """Run the code of a run that its recipe needs, if that is allowed by option, or now, in a terminal.

    Where it is not allowed nothing happens: whatever needs the code says so.

    Args:
        run: the folder; of one that needs no code, or that is no run, nothing is asked.
        trusted: whether the option allows it, for this command.

    Returns:
        False where code is needed and may not run.

    Raises:
        LilliputError: the code is damaged, or fails.
    """
    from lilliput.base.own_code import Loaded
    from lilliput.base.run_code import waiting
    from lilliput.base.trust import is_remembered, remember
    from lilliput.recipe import foreign_types

    if not (run / "recipe.json").is_file():
        return True
    code = waiting(run, foreign_types(run))
    if code is None:
        return True
    if not trusted and not is_remembered(code.digest):
        if not _is_watched() or not _answered(run, code.folder, code.hashes):
            return False
        try:
            remember(code)
        except OSError as error:
            _say(f"that cannot be remembered ({error.strerror}: {error.filename}), and holds for this command")
    Loaded(code)
    return True


def _is_watched() -> bool:
    """Whether somebody sits at a terminal; one of several workers never asks."""
    return sys.stdin.isatty() and sys.stderr.isatty() and "RANK" not in os.environ


def _answered(run: Path, folder: Path, hashes: dict[str, str]) -> bool:
    _say(f"The recipe of {run} has parts of its own, defined in Python files that the run keeps in {folder}:")
    for name, sha256 in hashes.items():
        _say(f"  {sha256}  {name}")
    _say("Run, they can do whatever you can. Read them first, if they are not yours.")
    try:
        answer = Terminal(stderr=True).input("Let exactly these bytes run, now and from now on? [y/N] ", markup=False)
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _say(line: str) -> None:
    Terminal(stderr=True, soft_wrap=True).print(line)
