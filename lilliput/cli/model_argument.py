"""What MODEL|RUN|RECIPE stands for in the commands that ask a model: a folder of one, or what a run has trained."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.run_folder import near_folders

if TYPE_CHECKING:
    from lilliput.api import Model
    from lilliput.run.trained import Trained


def find_model(name: str, out: Path | None, *, trust_code: bool = False) -> "Path | Trained":
    """The folder of a model; of a run the last release, and what it has trained where there is none.

    Args:
        name: a folder; or a recipe as it was trained, by name or Python file, whose types are known then.
        out: the run folder of a recipe; `runs/<recipe>` unless told.
        trust_code: whether the Python files that a run keeps of its recipe may run.

    Raises:
        LilliputError: `--out` came with a folder.
        RunError: nothing is trained yet, or what is there is damaged.
        RecipeError: the run's recipe has types of somebody's own, whose code may not run, and no recipe file was named.
    """
    from lilliput.api import last_release
    from lilliput.base.own_code import using
    from lilliput.base.terminal import Terminal
    from lilliput.cli.trust import meet
    from lilliput.publish.lineage import outdated
    from lilliput.recipe import names, recipe_and_code
    from lilliput.run.trained import read_trained

    folder, code = Path(name), None
    if not folder.is_dir() and (out is not None or name.endswith(".py") or name in names("lilliput.recipes")):
        recipe, code = recipe_and_code(name)
        folder = out or Path("runs") / recipe.name
        if not (folder / "recipe.json").is_file():
            raise RunError(
                f"there is no run of {recipe.name} there",
                where=str(folder),
                hint=f"name its folder with --out, or train it first: lilliput train {name} --out {folder}",
            )
    elif out is not None:
        raise LilliputError(
            f"{name} is a folder already",
            where="--out",
            hint=f"leave --out out, or name the recipe of the run: RECIPE --out {out}",
        )
    elif not folder.exists() and (error := _missing(folder)):
        raise error
    release = last_release(folder)
    if release is None and (folder / "recipe.json").is_file():
        with using(code):
            meet(folder, trusted=trust_code)
            return read_trained(folder)
    if release is not None and (why := outdated(folder, release.name)):
        Terminal(stderr=True).print(why, style="dim", soft_wrap=True)
    return release or folder


def _missing(folder: Path) -> RunError | None:
    """The error for a folder that is not there; one below runs/ may be that of a recipe which was not run yet.

    None where no name is near: other arguments are looked at before such a folder is refused.
    """
    from lilliput.recipe import names

    recipes = names("lilliput.recipes")
    if folder.parent == Path("runs") and folder.name in recipes:
        return RunError("there is no such folder", where=str(folder), hint=f"`lilliput run {folder.name}` makes it")
    near = near_folders(folder)
    if not near and folder.parent == Path():
        near = difflib.get_close_matches(folder.name, recipes, n=3)
    return (
        RunError("there is no such folder", where=str(folder), hint=f"nearest names: {', '.join(near)}")
        if near
        else None
    )


def open_model(name: str, out: Path | None, device: str, *, trust_code: bool = False) -> "Model":
    """The model, ready to write; where nothing is released, a line on stderr says what it is instead."""
    from lilliput.api import Model, load
    from lilliput.train.machine import Machine

    found = find_model(name, out, trust_code=trust_code)
    if isinstance(found, Path):
        return load(found, device=device)
    explain(found)
    return Model(found.published, found.folder, Machine(device=device).resolved().device)


def explain(trained: "Trained") -> None:
    """Say on stderr which weights those of a run without a release are."""
    from lilliput.base.terminal import Terminal

    left = f"; not trained yet: {', '.join(trained.left)}" if trained.left else ""
    Terminal(stderr=True).print(
        f"{trained.folder} has released nothing: these are its weights after {trained.phase.name}{left}",
        style="dim",
        soft_wrap=True,
    )
