"""Asks before the code that a run keeps is run, and names its files."""

import os
import sys
from pathlib import Path

from lilliput.base.terminal import Terminal


def meet(run: Path, *, trusted: bool) -> bool:
    """Run the code that a run's recipe needs, if an option or the answer in the terminal allows it.

    If it is not allowed nothing happens here: whatever needs the code raises.

    Args:
        run: the folder; nothing is asked if it needs no code or is not a run.
        trusted: whether an option of this command allows it.

    Returns:
        False if code is needed and may not run.

    Raises:
        LilliputError: the code is damaged or fails.
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
            _say(f"the answer cannot be saved ({error.strerror}: {error.filename}), and holds for this command only")
    Loaded(code)
    return True


def _is_watched() -> bool:
    """Return whether a person at a terminal can be asked; one of several ranks never asks."""
    return sys.stdin.isatty() and sys.stderr.isatty() and "RANK" not in os.environ


def _answered(run: Path, folder: Path, hashes: dict[str, str]) -> bool:
    _say(f"The recipe of {run} has parts of its own, defined in Python files that the run keeps in {folder}:")
    for name, sha256 in hashes.items():
        _say(f"  {sha256}  {name}")
    _say("Once run, they can do whatever you can. Read them first if they are not yours.")
    try:
        answer = Terminal(stderr=True).input(
            "Allow exactly these files to run, now and in future? [y/N] ", markup=False
        )
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _say(line: str) -> None:
    Terminal(stderr=True, soft_wrap=True).print(line)
