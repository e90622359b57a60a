"""What is said where a run folder was expected and none is: is the folder missing, a sweep, or something else?"""

import difflib
from pathlib import Path

from lilliput.base.errors import RunError


def no_run(folder: Path) -> RunError:
    """Return the error for a folder without a `recipe.json`."""
    if not folder.exists():
        near = near_folders(folder)
        hint = f"nearest names: {', '.join(near)}" if near else "`lilliput runs` lists the runs below ./runs"
        return RunError("there is no such folder", where=str(folder), hint=hint)
    if (folder / "sweep.json").is_file():
        variants = sorted(str(one) for one in folder.iterdir() if (one / "recipe.json").is_file())
        listed = " ".join(f"'{one}'" for one in variants[:2]) or "none is trained yet"
        return RunError("the folder is a sweep, no run", where=str(folder), hint=f"give variants of it: {listed}")
    return RunError(
        "the folder is no run, it has no recipe.json",
        where=str(folder),
        hint="give a folder that `lilliput run` or `lilliput train` made; `lilliput runs` lists them",
    )


def near_folders(folder: Path) -> list[str]:
    """Return folders beside one that is not there, of nearly its name."""
    beside = {one.name: str(one) for one in folder.parent.iterdir() if one.is_dir()} if folder.parent.is_dir() else {}
    return [beside[name] for name in difflib.get_close_matches(folder.name, beside, n=3)]
