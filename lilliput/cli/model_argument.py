"""Resolves MODEL|RUN|RECIPE of the commands that use a model to a model folder or to a run's trained weights."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.run_folder import near_folders

if TYPE_CHECKING:
    from lilliput.api import Model
    from lilliput.run.trained import Trained


def find_model(name: str, out: Path | None, *, trust_code: bool = False) -> "Path | Trained":
    """Find the model that a name stands for: a model folder, a run's last release, or its trained weights if none.

    Args:
        name: a folder, or the recipe of a trained run by name or Python file, which makes its own types known.
        out: the run folder of a recipe; `runs/<recipe>` by default.
        trust_code: whether the Python files that a run keeps of its recipe may run.

    Raises:
        LilliputError: `--out` was given with a folder.
        RunError: nothing is trained yet, or a file is damaged.
        RecipeError: the run's recipe needs code that may not run, and no recipe file was given.
    """
    from lilliput.base.own_code import using
    from lilliput.base.terminal import Terminal
    from lilliput.cli.trust import meet
    from lilliput.publish.lineage import outdated
    from lilliput.publish.releases import last_release
    from lilliput.recipe import names, recipe_and_code
    from lilliput.run.trained import read_trained

    folder, code = Path(name), None
    if not folder.is_dir() and (out is not None or name.endswith(".py") or name in names("lilliput.recipes")):
        recipe, code = recipe_and_code(name)
        folder = out or Path("runs") / recipe.name
        if not (folder / "recipe.json").is_file():
            raise RunError(
                f"this folder holds no run of {recipe.name}",
                where=str(folder),
                hint=f"give the run's folder with --out, or train it first: lilliput train {name} --out {folder}",
            )
    elif out is not None:
        raise LilliputError(
            f"--out has no effect here: {name} is a folder itself",
            where="--out",
            hint=f"leave --out out, or give the run's recipe instead of the folder: RECIPE --out {out}",
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
    """Make the error for a missing folder; below runs/ it may be that of a recipe that was not run yet.

    None if no name is near: other arguments are checked before such a folder is refused.
    """
    from lilliput.recipe import names

    recipes = names("lilliput.recipes")
    if folder.parent == Path("runs") and folder.name in recipes:
        return RunError("the folder does not exist", where=str(folder), hint=f"`lilliput run {folder.name}` makes it")
    near = near_folders(folder)
    if not near and folder.parent == Path():
        near = difflib.get_close_matches(folder.name, recipes, n=3)
    return (
        RunError("the folder does not exist", where=str(folder), hint=f"nearest names: {', '.join(near)}")
        if near
        else None
    )


def open_model(
    name: str, out: Path | None, device: str, dtype: str = "fp32", *, trust_code: bool = False, **about: Any
) -> "Model":
    """Load a model for generation; if the run has no release, a line on stderr says which weights are used.

    Args:
        name, out, trust_code: as of `find_model`.
        device, dtype, about: as of `lilliput.load`.
    """
    from lilliput.api import Model, load
    from lilliput.train.machine import inference_device

    found = find_model(name, out, trust_code=trust_code)
    if isinstance(found, Path):
        return load(found, device=device, dtype=dtype, **about)
    explain(found)
    device = inference_device(device)
    return Model(found.published, found.folder, device, dtype, **about)


def explain(trained: "Trained") -> None:
    """Print to stderr which weights are used of a run without a release."""
    from lilliput.base.terminal import Terminal

    left = f"; not trained yet: {', '.join(trained.left)}" if trained.left else ""
    Terminal(stderr=True).print(
        f"{trained.folder} has released nothing: these are its weights after {trained.phase.name}{left}",
        style="dim",
        soft_wrap=True,
    )
