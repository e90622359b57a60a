"""Run folders seen from outside: what is in them, how far they are, what can be removed without loss."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lilliput.base.errors import LilliputError
from lilliput.base.files import PARTIAL, read_json, unsealed
from lilliput.base.rundir import RunFolder
from lilliput.data.begun import begun_folders
from lilliput.publish.readme import edited


@dataclass(frozen=True, kw_only=True)
class Overview:
    """One run folder at a glance."""

    folder: Path
    recipe: str
    state: str
    """Such as `sft: step 40 of 260`, or `published`."""
    releases: tuple[str, ...]
    """Those that are there."""
    size: int
    """Bytes on disk."""
    changed: datetime
    """When a file in it was last written."""


def find(root: Path) -> list[Path]:
    """The run folders directly below `root`, or `root` itself if it is one, by name."""
    if (root / "recipe.json").is_file():
        return [root]
    return sorted(path.parent for path in root.glob("*/recipe.json"))


def overview(folder: Path) -> Overview:
    """A run folder at a glance; works while another process trains there.

    Raises:
        LilliputError: the folder is no run, or its recipe is damaged.
    """
    recipe = _recipe(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    there = tuple(
        entry["name"] for entry in _releases(recipe) if (folder / "releases" / entry["name"] / "README.md").is_file()
    )
    return Overview(
        folder=folder,
        recipe=recipe["name"],
        state=_state(folder, recipe, there),
        releases=there,
        size=sum(path.stat().st_size for path in files),
        changed=datetime.fromtimestamp(max(path.stat().st_mtime for path in files)).astimezone(),
    )


@dataclass(frozen=True, kw_only=True)
class Removable:
    """Something in a run folder that may go."""

    name: str
    """A part of the run, or a folder in it."""
    why: str
    size: int


def spare(folder: Path) -> list[Removable]:
    """What a finished run does not need any more: checkpoints of phases that are done, and interrupted writing."""
    _recipe(folder)
    found = []
    with RunFolder(folder) as run:
        for phase in sorted((folder / "phases").glob("*")):
            checkpoints = phase / "checkpoints"
            if run.record(f"phases/{phase.name}").get("done") and (phase / "final").is_dir() and checkpoints.is_dir():
                found.append(_removable(folder, checkpoints, "the phase is done; its last weights stay"))
        for partial in sorted(folder.rglob(f"*{PARTIAL}")):
            found.append(_removable(folder, partial, "left by an interruption"))
    return found


def shards(folder: Path) -> list[Removable]:
    """The token files: they can be written again from the corpora, in time."""
    begun = begun_folders(folder / "shards")
    return [
        _removable(folder, path, "begun; encoding goes on from them" if path in begun else "written again when needed")
        for path in sorted((folder / "shards").glob("*"))
    ]


def since(folder: Path, part: str) -> list[Removable]:
    """A part of a run and everything that was made after it.

    Raises:
        LilliputError: the run has no such part.
    """
    parts = _parts(_recipe(folder))
    name = part.rstrip("/")
    if name not in parts:
        raise LilliputError(
            f"the run has no part {part!r}", where=f"clean {folder} --from", hint=f"one of: {', '.join(parts)}"
        )
    later = parts[parts.index(name) :]
    found = []
    for path in (folder / entry for entry in later):
        if path.exists():
            own = path.parent.name == "releases" and edited(folder, path.name) is not None
            why = "given up, to be made again" + ("; its README.md was edited" if own else "")
            found.append(_removable(folder, path, why))
    return found


def remove(folder: Path, what: Iterable[Removable]) -> int:
    """Remove these from a run that nobody works on; the bytes that became free.

    Raises:
        RunError: another process is working on the run.
    """
    import shutil

    freed = 0
    with RunFolder(folder) as run:
        for one in what:
            path = folder / one.name
            if run.record(one.name):
                run.remove(one.name)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            freed += one.size
    return freed


def _recipe(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "recipe.json")
    except (OSError, ValueError) as error:
        raise LilliputError(
            f"the folder is no run, or its recipe.json is damaged ({error})",
            where=str(folder),
            hint="give a folder that `lilliput run` made; `lilliput runs` lists them",
        ) from error


def _releases(recipe: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (entry for entry in recipe["timeline"] if entry["type"] == "lilliput.recipe:Release")


def _parts(recipe: dict[str, Any]) -> list[str]:
    """Names of the parts that the timeline makes, in its order; growths leave no files."""
    names = []
    for place, entry in enumerate(recipe["timeline"]):
        if entry["type"] == "lilliput.train.phase:Phase":
            names.append(f"phases/{place:02d}-{entry['name']}")
        elif entry["type"] == "lilliput.recipe:Release":
            names += [f"releases/{entry['name']}", f"evals/{entry['name']}"]
    return names


def _state(folder: Path, recipe: dict[str, Any], there: tuple[str, ...]) -> str:
    if len(there) == len(list(_releases(recipe))):
        return "published"
    state = (
        "token files" if (folder / "shards").is_dir() else "tokenizer" if (folder / "tokenizer").is_dir() else "begun"
    )
    for name in _parts(recipe):
        record = folder / "parts" / f"{name.replace('/', '.')}.json"
        if not (name.startswith("phases/") and record.is_file()):
            continue
        phase = name.rpartition("/")[2].partition("-")[2]
        try:
            done = unsealed(read_json(record))["done"]
        except (ValueError, KeyError, TypeError):
            return f"{phase}: {record.name} is damaged"
        state = f"{phase}: trained" if done else f"{phase}: {_progress(folder / name)}"
    return state


def _progress(phase: Path) -> str:
    metrics = phase / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    return f"step {len([line for line in lines if 'tokens_per_second' in line]):,}" if lines else "begun"


def _removable(run: Path, path: Path, why: str) -> Removable:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return Removable(name=str(path.relative_to(run)), why=why, size=sum(file.stat().st_size for file in files))
