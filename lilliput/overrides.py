"""Corpora of a recipe read from local files: `--source fineweb-edu=/data/*.jsonl.xz`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError
from lilliput.base.run_folder import RunFolder
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.corpora.pairs import PairFiles, ShuffledAnswers
from lilliput.data.formats import format_of
from lilliput.data.readers.paths import files_of
from lilliput.recipe import Recipe, unknown


def replace_sources(
    recipe: Recipe, sources: Mapping[str, tuple[str, ...]], corpora_before: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe with other sources for some of its corpora.

    Args:
        recipe: what to change.
        sources: files, folders and glob patterns by the name of a corpus: texts for a text corpus, conversations for a
            chat corpus. `name:column` names the column that holds them, where it is not `text` or `messages`.
            Filters around a corpus stay; a corpus made of several is replaced as a whole, but for one of parts in
            folders, which is read from a folder that is laid out like it.
        corpora_before: corpora that say how files in their place are read, where the recipe's have been replaced.

    Raises:
        RecipeError: the recipe has no corpus of that name.
        DataError: a path stands for no file.
    """
    corpora = dict(recipe.corpora)
    for given, paths in sources.items():
        name, _, column = given.partition(":")
        if name not in corpora:
            raise unknown("corpus", name, list(corpora), f"a source for recipe {recipe.name!r}")
        if not files_of(paths, f"--source {given}"):
            raise DataError("no path is given", where=f"the source of {name!r}", hint="give at least one file")
        corpora[name] = _read_from((corpora_before or corpora)[name], paths, column)
    return replace(recipe, corpora=corpora)


def refuse_missing_files(recipe: Recipe, run: Path) -> None:
    """Refuse local files of corpora that are not there, or whose first row is not theirs, unless the run has read them.

    Raises:
        DataError: some are not there, or cannot be read.
    """
    for name, corpus in recipe.corpora.items():
        while isinstance(corpus, Filtered | ShuffledAnswers):
            corpus = corpus.source
        if isinstance(corpus, TextFiles | ChatFiles | PairFiles) and not RunFolder(run).recorded(f"shards/{name}"):
            try:
                files_of(corpus.paths, f"the corpus {name!r} of the recipe {recipe.name!r}")
            except DataError as error:
                hint = f"give its path: --source {name}=PATH; {error.hint}"
                raise DataError(error.what, where=error.where, hint=hint) from error
            next(format_of(corpus).items(corpus), None)


def _read_from(corpus: Any, paths: tuple[str, ...], column: str) -> Any:
    if isinstance(corpus, Filtered):
        return replace(corpus, source=_read_from(corpus.source, paths, column))
    return format_of(corpus).from_files(corpus, paths, column)
