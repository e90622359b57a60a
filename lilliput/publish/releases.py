"""The releases of a run folder, and which of them a name stands for."""

import warnings
from pathlib import Path

from lilliput.base.errors import reading
from lilliput.base.files import read_json
from lilliput.base.ownership import check_name
from lilliput.publish.lineage import outdated


def warn_if_outdated(run: Path, release: Path) -> None:
    """Warn whoever asks a run, and is answered by a release that is older than what the run has trained.

    Args:
        run: the folder that was named; nothing is said where it is the release itself.
        release: the folder of the release.
    """
    if release != run and (why := outdated(run, release.name)):
        warnings.warn(why, stacklevel=3)


def folder_named(path: Path) -> Path:
    """The folder of a path; for the name of a recipe that was run and is no folder here, that of its run."""
    run = Path("runs") / path
    return run if not path.exists() and path.parent == Path() and (run / "recipe.json").is_file() else path


def last_release(run: Path) -> Path | None:
    """The last existing release of a run folder's timeline; None for a run without one, and for other folders."""
    folders = releases(run)
    return folders[-1] if folders else None


def releases(run: Path) -> list[Path]:
    """The releases of a run folder that are there, in the order of its timeline; none for other folders."""
    recipe = run / "recipe.json"
    hint = f"give a model below {run / 'releases'}, or let `lilliput run RECIPE --out {run}` write it again"
    with reading(recipe, hint, "the file is no recipe"):
        entries = read_json(recipe)["timeline"] if recipe.is_file() else []
        names = [entry["name"] for entry in entries if entry["type"] == "lilliput.recipe:Release"]
        for name in names:
            check_name("release", name, str(recipe))
    folders = [run / "releases" / name for name in names]
    return [folder for folder in folders if (folder / "lilliput.json").is_file()]
