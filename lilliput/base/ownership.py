"""The gate before anything in a run folder is removed or replaced: only what runs write may go.

A run folder may come from a stranger, and people put files of their own beside ours. So a name is one component of a
path, a target lies below the run with no symbolic link on the way, and a folder is removed only if every file in it has
a name that runs write. Whatever else is there is named, and nothing is removed.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from lilliput.base import files
from lilliput.base.errors import RecipeError, RunError
from lilliput.base.files import PARTIAL

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""A name that becomes a file or a folder of a run: of a corpus, a phase, a release or a recipe."""
BEGUN = ".begun-"
"""Between the name of a folder of token files that are not whole yet, and the hash of what they are made from."""

_WRITTEN = re.compile(
    rf"""
    \.lock | (run|recipe|command|code|environment|verified|failure)\.json | train\.log
    | (report|replies|data|tokenizer)\.html
    | code/[0-9a-f]{{16}}/([^/\n]+/)*[^/\n]+\.py
    | parts/{NAME}\.json
    | tokenizer/tokenizer(_config)?\.json
    | evaluation_sets/items\.safetensors
    | replies/{NAME}/replies\.jsonl
    | shards/{NAME}/((index|progress)\.json | (train|heldout)-[a-z0-9_]+\.bin | heldout(\.txt)?\.jsonl | dropped\.jsonl)
    | phases/{NAME}/((metrics|incidents)\.jsonl | loss\.png | final/(weights|average)\.safetensors)
    | phases/{NAME}/checkpoints/(incidents|rows)\.jsonl?
    | phases/{NAME}/(checkpoints|before-decay|kept)/step-\d+/(manifest\.json | [a-z0-9-]+\.safetensors)
    | computed/{NAME}/[a-z0-9_-]+\.(json | jsonl | bin | safetensors)
    | releases/{NAME}/((config|tokenizer|tokenizer_config|generation_config|lilliput|record)\.json | model\.safetensors)
    | releases/{NAME}/(chat_template\.jinja | README\.md | loss\.png | [a-z0-9_]+_lm\.py)
    | releases/{NAME}/({NAME}-(F16 | Q8_0)\.gguf | Modelfile | int8\.safetensors)
    | evals/{NAME}\.json | evals/{NAME}/[a-z0-9_]+\.jsonl
    | cards/{NAME}\.md
    """,
    re.VERBOSE,
)
"""Every file that a run writes, by its path below the run folder."""
_UNFINISHED = re.compile(rf"(\.before|\.replaced)?{re.escape(PARTIAL)}$|{re.escape(BEGUN)}[0-9a-f]+$")
"""Suffixes of files and folders that are being written, or wait to be removed."""
_FOLDERS = tuple(
    "code parts tokenizer evaluation_sets replies shards phases computed releases evals baselines cards".split()
)


def check_name(kind: str, name: object, where: str) -> None:
    """Refuse a name that is not one plain component of a path.

    Raises:
        RecipeError: it is not; `kind` says what it names.
    """
    is_plain = isinstance(name, str) and re.fullmatch(NAME, name) and name == finished(name) and BEGUN not in name
    if not is_plain:
        raise RecipeError(
            f"a {kind} cannot be named {name!r:.120}",
            where=where,
            hint="use up to 100 letters, digits and . _ -, with a letter or a digit first; it becomes part of a path",
        )


def finished(name: str) -> str:
    """The name that an unfinished file or folder will have; any other name as it is."""
    while (shorter := _UNFINISHED.sub("", name)) != name:
        name = shorter
    return name


def is_written(relative: str) -> bool:
    """Return whether a path below a run folder, with slashes, is one that a run writes, finished or not."""
    return _WRITTEN.fullmatch("/".join(map(finished, relative.split("/")))) is not None


def inside(root: Path, relative: str) -> Path:
    """The path of a part of a run.

    Raises:
        RunError: it does not lie below the run, or a symbolic link is on the way.
    """
    path = root
    for component in relative.split("/"):
        if component in ("", ".", "..") or "\\" in component or ":" in component:
            raise RunError(
                f"{relative!r} is not inside the run folder",
                where=str(root),
                hint="this recipe.json was not written by Lilliput: start a new run with --out",
            )
        path = path / component
        _refuse_link(path)
    return path


def check_links(root: Path) -> None:
    """Refuse a run folder in which a symbolic link stands where a run reads, writes or removes.

    Raises:
        RunError: there is one.
    """
    for name in _FOLDERS:
        _refuse_link(root / name)
        for path in below(root / name):
            _refuse_link(path)


def foreign(root: Path, relative: str) -> list[str]:
    """Everything at and below a path of a run that no run writes, as paths below the run; links are not followed."""
    path = root / relative
    found = [path, *below(path)] if path.is_dir() and not path.is_symlink() else [path]
    names = [(one, one.relative_to(root).as_posix()) for one in found]
    return [name for one, name in names if one.is_symlink() or (not one.is_dir() and not is_written(name))]


def check_ours(root: Path, relative: str) -> None:
    """Refuse to touch what is at a path of a run if anything there was not written by a run.

    Raises:
        RunError: something was not; it is named.
    """
    inside(root, relative)
    if os.path.lexists(root / relative) and (strange := foreign(root, relative)):
        raise RunError(
            f"{relative} holds files that no run writes: {', '.join(strange[:4])}",
            where=str(root),
            hint="move it out of the run folder, then repeat the command",
        )


def remove(root: Path, relative: str) -> None:
    """Remove a file or a folder that a run wrote; nothing if it is not there.

    Raises:
        RunError: something in it was not written by a run; nothing is removed.
    """
    check_ours(root, relative)
    path = root / relative
    files.boundary("remove", path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_output(path: Path, mark: str, option: str) -> None:
    """Refuse to replace a file that somebody names for our output unless it is an earlier output of ours.

    Args:
        path: the file.
        mark: what stands in the first kilobyte of every such output.
        option: that it was named with.

    Raises:
        RunError: it is there, and has no such mark.
    """
    if not os.path.lexists(path):
        return
    is_ours = path.is_file() and mark.encode() in path.read_bytes()[:1000]
    if not is_ours:
        raise RunError(
            f"{path.name} already exists and was not written by this command",
            where=f"{option} {path}",
            hint="name another file, or move this one away",
        )


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise RunError(
            f"{path.name} is a symbolic link",
            where=str(path),
            hint="links inside a run are not followed: put the files themselves there, or link the whole run folder",
        )


def below(folder: Path) -> Iterator[Path]:
    """Everything below a folder, folders before what is in them; links are not followed."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in (*folders, *names):
            yield Path(parent) / name
