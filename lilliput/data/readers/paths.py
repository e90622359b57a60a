"""The files that paths, folders and glob patterns stand for."""

import glob
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from lilliput.base.errors import DataError
from lilliput.base.files import PARTIAL
from lilliput.data.readers.formats import compression_of, conversion, holds_rows, suffix_of, tells_of_rows

LINKED = 10_000
"""Folders that `**` may reach through links; links to folders of links double their number at each step."""
PATHS = "the paths of a corpus"


class Found(NamedTuple):
    """A file that a path stands for."""

    path: Path
    name: str
    """Its path below the folder, or below the fixed part of the pattern, that it was found by."""
    given: str
    """The path that stands for it."""
    is_about: bool
    """True if it tells of rows in its folder or below, in a folder that was given as a whole."""


def files_of(paths: tuple[str, ...], where: str = PATHS) -> list[Path]:
    """The files that paths, folders and glob patterns stand for; `where` they came from is for the error.

    Raises:
        DataError: one of them stands for no file, or for one whose format is not read.
    """
    return [found.path for found in readable_files(paths, where)]


def readable_files(paths: tuple[str, ...], where: str = PATHS) -> list[Found]:
    """The same, each with how it was found.

    Raises:
        DataError: as above.
    """
    files = list(found_files(paths, where))
    for found in files:
        todo = conversion(found.path)
        if todo is not None:
            raise _other_format(found, todo, files, where)
    return files


def found_files(paths: tuple[str, ...], where: str = PATHS) -> Iterator[Found]:
    """The same, whatever their format.

    Raises:
        DataError: a path stands for no file.
    """
    for given in paths:
        try:
            yield from _found(given, where)
        except (OSError, ValueError, RuntimeError) as error:  # too long a name, a null byte, a home of nobody
            raise DataError(
                f"{given!r:.200} cannot be looked up ({error!s:.200})", where=where, hint="check the spelling"
            ) from error


def nothing_in(paths: tuple[str, ...]) -> DataError:
    """The error of a corpus that ended without a single record."""
    return DataError(
        "none of the files holds a record",
        where=", ".join(paths) or "an empty list of paths",
        hint="point the corpus at files that hold text",
    )


def _found(given: str, where: str) -> Iterator[Found]:
    path = base = Path(given).expanduser()
    if not given:
        raise DataError("a path is empty", where=where, hint='name a file or a folder; "." is the folder you are in')
    if path.is_dir():
        _refuse_circles(path, where)  # linked folders are read, too: their texts would be missed without a word
        below = (Path(folder, file) for folder, _, files in os.walk(path, followlinks=True) for file in files)
        below = sorted(below, key=lambda file: file.relative_to(path).parts)
        files = [file for file in below if file.is_file() and not _is_hidden(file.relative_to(path))]
    elif path.is_file():
        files, base = [path], path.parent
    else:
        base = _fixed_part(path)
        if "**" in path.parts:
            _refuse_circles(base, where)
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))
        files = sorted(match for match in matches if match.is_file())
    if not files:
        raise DataError(
            f"there is no file or folder {given!r}" if not path.is_dir() else f"the folder {given!r} holds no file",
            where=where,
            hint="put texts in it, or name another folder"
            if path.is_dir()
            else f"check the spelling; relative paths start at {Path.cwd()}",
        )
    with_rows = _folders_of_rows(files) if path.is_dir() else set()
    for file in files:
        is_about = tells_of_rows(file) and file.parent in with_rows
        yield Found(file, file.relative_to(base).as_posix(), given, is_about)


def _folders_of_rows(files: list[Path]) -> set[Path]:
    """The folders with files of rows in them or below."""
    return {folder for file in files if holds_rows(file) and not tells_of_rows(file) for folder in file.parents}


def _other_format(found: Found, todo: str, files: list[Found], where: str) -> DataError:
    base = Path(found.given).expanduser()
    if base != found.path:
        beside = (one.path for one in files if one.given == found.given and not one.is_about)
        like = next((path for path in beside if path.suffix and conversion(path) is None), None)
        ending = "".join(like.suffixes[-2 if compression_of(like) else -1 :]) if like else ""
        folder = glob.escape(str(base)) if base.is_dir() else _fixed_part(base)
        todo += f', or name what is text with a pattern: "{folder}/**/*{ending}"' if like else ""
    return DataError(
        f"a {suffix_of(found.path)} file cannot be read as text", where=f"{found.path}, {where}", hint=todo
    )


def _fixed_part(pattern: Path) -> Path:
    """The folder that a pattern begins with."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def _is_hidden(relative: Path) -> bool:
    return relative.name.endswith(PARTIAL) or any(part.startswith(".") for part in relative.parts)


def _refuse_circles(base: Path, where: str) -> None:
    """Refuse a folder in which whoever follows links would go round for ever.

    Raises:
        DataError: a folder below leads back to one that it lies in, or links multiply the folders.
    """
    waiting: list[tuple[str, tuple[str, ...], int]] = [(str(base), (os.path.realpath(base),), 0)]
    linked = 0
    while waiting:
        folder, above, links = waiting.pop()
        for name in _folders_in(folder):
            path = os.path.join(folder, name)
            is_link = os.path.islink(path)
            real = os.path.realpath(path) if is_link else os.path.join(above[-1], name)
            linked += bool(links or is_link)
            if real in above or linked > LINKED:
                what = "leads back to one that it lies in" if real in above else f"is one of {linked:,} behind links"
                raise DataError(
                    f"the folder {path!r} {what}",
                    where=where,
                    hint="remove such links, or name the folders one by one instead of using **",
                )
            waiting.append((path, (*above, real), links + is_link))


def _folders_in(folder: str) -> list[str]:
    """Names of the folders that `**` would enter."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return []
    return [name for name in names if os.path.isdir(os.path.join(folder, name))]
