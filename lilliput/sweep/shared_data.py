"""Tokenizer, token files and a teacher's replies of a sweep, made once: a variant that needs them gets links.

A run never writes into a file that is there, it removes and replaces whole folders. So a link is as good as a copy: a
variant with another tokenizer gives its links up and makes its own, and nobody else's files change.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lilliput.base.files import new_folder
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.growth.growth import GROWTH
from lilliput.recipe import Recipe


def text_of(recipe: Recipe) -> Any:
    """Return what the tokenizer and the token files of a recipe depend on, as a JSON value."""
    read: list[Any] = []
    for index, entry in enumerate(recipe.without_releases().timeline):
        read.append(entry.reads())
        if entry.kind == GROWTH:
            read.append(entry)  # it may change the tokenizer
        elif (phase := recipe.without_releases().phases.get(index)) is not None:
            read.append([phase.row_tokens(stage)[0] for stage in range(len(phase.stages))])
    return to_plain([recipe.corpora, recipe.tokenizer, recipe.tokenizer_corpora, recipe.split, read])


def link_prepared(run: RunFolder, recipe: Recipe, donors: Iterable[tuple[Path, Recipe]]) -> None:
    """Give an open run what other variants have prepared, as far as it has nothing yet.

    Whether a part fits is for the run to say, by the part's inputs; likely ones come first.
    """
    names = ["tokenizer", *(f"{kind}/{corpus}" for corpus in recipe.corpora for kind in ("replies", "shards"))]
    # What is there without a record is somebody's own: the run refuses it, and a link would replace it.
    missing = [name for name in names if not run.record(name) and not (run.path / name).exists()]
    mine = text_of(recipe)
    for folder, _ in sorted(donors, key=lambda donor: text_of(donor[1]) != mine):
        donor = RunFolder(folder)
        for name in list(missing):
            record = donor.record(name)
            if not record.get("done"):
                continue
            run.give_up(name)  # until the record is there: a kill in between leaves nothing that is nobody's
            if _link(folder / name, run.path / name) and donor.record(name) == record:
                run.take_over(name, record)
                missing.remove(name)


def _link(source: Path, target: Path) -> bool:
    """Link a folder's files into a new one; False where they went away meanwhile."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(target) as partial:
            for file in source.iterdir():
                _link_file(file, partial / file.name)
    except FileNotFoundError:
        return False
    return True


def _link_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
