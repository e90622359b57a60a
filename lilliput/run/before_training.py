"""Steps before training, each by itself: the tokenizer, a teacher's replies, the token files."""

from pathlib import Path

import torch
from rich.console import Console

from lilliput.data.replies.teacher_replies import TeacherReplies
from lilliput.recipe import Recipe
from lilliput.run.asking import Asking
from lilliput.run.command_record import Command
from lilliput.run.open_run import open_run
from lilliput.run.prepare import Preparation


def tokenizer(recipe: Recipe, folder: Path, console: Console, command: Command | None = None) -> None:
    """Learn a recipe's tokenizer.

    Args:
        recipe, folder, console, command: see `lilliput.run.pipeline.run`.
    """
    with open_run(recipe, folder, command) as run_folder:
        Preparation(run_folder, recipe, console).tokenizer()


def replies(
    recipe: Recipe, folder: Path, console: Console, command: Command | None = None, *, asking: Asking = Asking()
) -> dict[str, TeacherReplies]:
    """Ask the teachers of a recipe for what its timeline reads of them, and return the replies by corpus.

    Args:
        recipe, folder, console, command, asking: see `lilliput.run.pipeline.run`.

    Raises:
        DataError: a teacher, or its prompts, are out of reach.
    """
    with open_run(recipe, folder, command) as run_folder:
        return Preparation(run_folder, recipe, console, asking=asking).replies()


def data(
    recipe: Recipe,
    folder: Path,
    console: Console,
    command: Command | None = None,
    *,
    until: str | None = None,
    verify: bool = False,
    asking: Asking = Asking(),
) -> None:
    """Learn the tokenizer and write the token files of every corpus that the timeline reads, or phases until one.

    Args:
        recipe, folder, console, command, asking: see `lilliput.run.pipeline.run`.
        until: the last phase; None for all.
        verify: whether every token file is hashed again, also one that looks unchanged.

    Raises:
        DataError: a token file differs from its index.
    """
    with open_run(recipe, folder, command) as run_folder:
        preparation = Preparation(run_folder, recipe, console, asking=asking, processes=torch.get_num_threads())
        if verify:
            preparation.forget()
        preparation.everything(until)
