"""Run folders seen from outside: what is in them, how far they are, what can be removed without loss."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from lilliput.base import ownership
from lilliput.base.errors import LilliputError, reading
from lilliput.base.files import PARTIAL, read_json, verify_checksum, write_bytes
from lilliput.base.ownership import below, check_name, check_ours, foreign
from lilliput.base.run_folder import RunFolder, no_run
from lilliput.data.partial_shards import partial_folders
from lilliput.publish.card.edited import edited
from lilliput.publish.export import CARD_FILE
from lilliput.publish.lineage import newer_phase, outdated
from lilliput.train.phase import KEPT_FOLDER
from lilliput.train.resuming import BEFORE_DECAY


@dataclass(frozen=True, kw_only=True)
class Overview:
    """One run folder at a glance."""

    folder: Path
    recipe: str
    state: str
    """Such as `sft: step 40, saved at 25`, or `published`."""
    releases: tuple[str, ...]
    """Existing releases."""
    outdated: dict[str, str]
    """Releases older than the trained weights, each with a sentence that says so."""
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
    with reading(folder, "put what is damaged in it back from a copy"):
        files = [path for path in below(folder) if path.is_file()]
        released = tuple(
            entry["name"]
            for entry in _releases(recipe)
            if (folder / "releases" / entry["name"] / "README.md").is_file()
        )
        return Overview(
            folder=folder,
            recipe=recipe["name"],
            state=_state(folder, recipe, released),
            releases=released,
            outdated={name: why for name in released if (why := outdated(folder, name))},
            size=sum(path.stat().st_size for path in files),
            changed=datetime.fromtimestamp(max(path.stat().st_mtime for path in files)).astimezone(),
        )


def overviews(root: Path) -> tuple[list[Overview], list[tuple[Path, LilliputError]]]:
    """The runs at `root` at a glance, and those that cannot be shown, with why."""
    found, unreadable = [], []
    for folder in find(root):
        try:
            found.append(overview(folder))
        except LilliputError as error:
            unreadable.append((folder, error))
    return found, unreadable


@dataclass(frozen=True, kw_only=True)
class Removable:
    """Something in a run folder that may go."""

    name: str
    """A part of the run, or a folder in it."""
    why: str
    size: int


def spare(folder: Path) -> list[Removable]:
    """List what a finished run no longer needs: checkpoints of finished phases, and interrupted writes."""
    _recipe(folder)
    found = []
    with RunFolder(folder) as run:
        for name in _phases(folder):
            checkpoints = f"{name}/checkpoints"
            is_done = run.record(name).get("done") and (folder / name / "final").is_dir()
            if is_done and (folder / checkpoints).is_dir():
                state = (folder / name / BEFORE_DECAY).is_dir()
                stays = "its last weights and the state before its decay stay"
                stay = "its last weights stay, and it can no longer be trained for longer"
                found.append(_removable(folder, checkpoints, f"the phase is done; {stays if state else stay}"))
        for name in _unfinished(folder):
            found.append(_removable(folder, name, "left by an interruption"))
    return found


def states(folder: Path) -> list[Removable]:
    """The states before a decay, and the checkpoints of `Phase.keep`, of phases that are done."""
    _recipe(folder)
    with RunFolder(folder) as run:
        done = [name for name in _phases(folder) if run.record(name).get("done")]
    lost = {
        BEFORE_DECAY: "the phase can then not be trained for longer",
        KEPT_FOLDER: "no growth can then be made of these checkpoints",
    }
    names = [(f"{name}/{kind}", why) for name in done for kind, why in lost.items()]
    return [_removable(folder, name, why) for name, why in names if (folder / name).is_dir()]


def shards(folder: Path) -> list[Removable]:
    """The token files that the run wrote: they can be written again from the corpora, in time."""
    _recipe(folder)
    begun, found = partial_folders(folder / "shards"), []
    with RunFolder(folder) as run:
        for path in sorted((folder / "shards").glob("*")):
            name = f"shards/{path.name}"
            if path in begun:
                found.append(_removable(folder, name, "begun; encoding resumes from them"))
            elif run.recorded(name):
                found.append(_removable(folder, name, "written again when needed"))
    return found


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
    with RunFolder(folder) as run:
        for entry in later:
            if run.recorded(entry):
                kept = _card_kept(folder, entry)
                card = f"; its README.md was edited, and is kept as {kept}" if kept else ""
                found.append(_removable(folder, entry, f"given up, to be made again{card}"))
    return found


def remove(folder: Path, what: Iterable[Removable]) -> int:
    """Remove these from a run that nobody works on; the bytes that became free.

    Raises:
        RunError: another process is working on the run, or there is something that no run writes; it stays.
    """
    freed = 0
    with RunFolder(folder) as run:
        what = list(what)
        for one in what:
            check_ours(folder, one.name)  # all of them first: nothing is removed, or everything
        for one in what:
            if run.recorded(one.name):
                if kept := _card_kept(folder, one.name):
                    write_bytes(folder / kept, (folder / one.name / CARD_FILE).read_bytes())
                run.remove(one.name)
            else:
                ownership.remove(folder, one.name)
            freed += one.size
    return freed


def _card_kept(folder: Path, part: str) -> str | None:
    """Return where the edited README.md of a release goes when the release is given up; None without one."""
    kind, _, name = part.partition("/")
    if kind != "releases" or edited(folder, name) is None:
        return None
    names = (f"cards/{name}.edited{number or ''}.md" for number in count())
    return next(name for name in names if not (folder / name).exists())


def _recipe(folder: Path) -> dict[str, Any]:
    """The recipe of a run as plain values, its names checked: they become paths."""
    hint = "give a folder that `lilliput run` made; `lilliput runs` lists them"
    path = folder / "recipe.json"
    if not path.is_file():
        raise no_run(folder)
    with reading(folder, hint, "its recipe.json is damaged"):
        recipe = verify_checksum(read_json(path))
        check_name("recipe", recipe["name"], str(path))
        for name in recipe["corpora"]:
            check_name("corpus", name, str(path))
        for entry in recipe["timeline"]:
            if not isinstance(entry["type"], str):
                raise TypeError("a type is no text")
            if "name" in entry:
                check_name("part of the timeline", entry["name"], str(path))
        return recipe


def _releases(recipe: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (entry for entry in recipe["timeline"] if entry["type"] == "lilliput.recipe:Release")


def _parts(recipe: dict[str, Any]) -> list[str]:
    """Names of the parts of a run, in the order in which they are made; growths leave no files."""
    corpora = recipe["corpora"].items()
    teachers = [name for name, corpus in corpora if corpus["type"] == "lilliput.data.corpora.teacher:Teacher"]
    names = [f"replies/{name}" for name in teachers]
    names += ["tokenizer", *(f"shards/{name}" for name in recipe["corpora"])]
    for index, entry in enumerate(recipe["timeline"]):
        if entry["type"] == "lilliput.train.phase:Phase":
            names.append(f"phases/{index:02d}-{entry['name']}")
        elif entry["type"] == "lilliput.recipe:Release":
            names += [f"releases/{entry['name']}", f"evals/{entry['name']}"]
        elif "name" in entry:
            names.append(f"computed/{index:02d}-{entry['name']}")
    return names


def _state(folder: Path, recipe: dict[str, Any], releases: tuple[str, ...]) -> str:
    if (
        releases
        and len(releases) == len(list(_releases(recipe)))
        and all(_is_current(folder, recipe, name) for name in releases)
    ):
        return "published"
    state = (
        "token files" if (folder / "shards").is_dir() else "tokenizer" if (folder / "tokenizer").is_dir() else "begun"
    )
    for name in _parts(recipe):
        record = folder / "parts" / f"{name.replace('/', '.')}.json"
        if not (name.startswith(("phases/", "computed/")) and record.is_file()):
            continue
        phase = name.rpartition("/")[2].partition("-")[2]
        try:
            done = verify_checksum(read_json(record))["done"]
        except (ValueError, KeyError, TypeError):
            return f"{phase}: {record.name} is damaged"
        if name.startswith("computed/"):
            state = f"{phase}: computed" if done else f"{phase}: begun"
        else:
            state = f"{phase}: trained" if done else f"{phase}: {_progress(folder / name)}"
    return state


def _is_current(folder: Path, recipe: dict[str, Any], release: str) -> bool:
    """Return whether a release is of the phases that stand before it now."""
    try:
        return newer_phase(RunFolder(folder), recipe, release) is None
    except (LilliputError, LookupError, TypeError):  # a damaged record, which the state names
        return False


def _progress(phase: Path) -> str:
    metrics = phase / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    if not lines:
        return "begun"
    saved = [int(path.parent.name.removeprefix("step-")) for path in phase.glob("checkpoints/step-*/manifest.json")]
    step = len([line for line in lines if "tokens_per_second" in line])
    return f"step {step:,}, saved at {max(saved):,}" if saved else f"step {step:,}, not saved yet"


def _phases(folder: Path) -> list[str]:
    return [f"phases/{path.name}" for path in sorted((folder / "phases").glob("*"))]


def _unfinished(folder: Path) -> list[str]:
    """Return what an interruption left, as paths below the run: the whole of it, where a folder is unfinished."""
    found: list[str] = []
    for path in below(folder):
        name = path.relative_to(folder).as_posix()
        if path.name.endswith(PARTIAL) and not any(name.startswith(f"{other}/") for other in found):
            found += [] if foreign(folder, name) else [name]
    return sorted(found)


def _removable(run: Path, name: str, why: str) -> Removable:
    path = run / name
    files = [path] if path.is_file() else [file for file in below(path) if file.is_file()]
    return Removable(name=name, why=why, size=sum(file.stat().st_size for file in files))
