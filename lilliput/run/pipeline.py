"""A run: follow a recipe's timeline from raw text to published models, resuming where the last run stopped.

Each entry's inputs are the hash of everything before it, so an entry is done again exactly when something it depends on
has changed: the recipe, the text, the tokenizer or the machine. Only training is never thrown away unasked.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lilliput.base.errors import RecipeError
from lilliput.base.implemented import check_implemented
from lilliput.evals.question_files import Hub, QuestionSource
from lilliput.recipe import Recipe
from lilliput.run.asking import Asking
from lilliput.run.command_record import Command
from lilliput.run.context import RunContext
from lilliput.run.open_run import open_context, open_run
from lilliput.run.release import Publisher
from lilliput.run.reproducibility import resolve_machine, untrained
from lilliput.run.runner import Runner
from lilliput.train.loggers.logger import check_loggers
from lilliput.train.machine import Machine


def run(
    recipe: Recipe,
    folder: Path,
    machine: Machine | None,
    console: Console,
    questions: QuestionSource = Hub(),
    command: Command | None = None,
    *,
    loggers: Sequence[str] = (),
    allow_change: bool = False,
    asking: Asking = Asking(),
) -> list[Path]:
    """Do everything the recipe's timeline says, and return the folders of the releases, in order.

    Of several ranks, the first one makes the releases, and others return none.

    Args:
        recipe: what to do.
        folder: the run folder; one that exists is continued.
        machine: where; None for the machine the run began on, else whatever is here.
        console: where progress is shown.
        questions: where the questions of evaluation suites come from.
        command: what the recipe comes from, for the cards; None where it was made in Python.
        loggers: names of other programs that are shown the numbers of training.
        allow_change: whether training may resume on another machine, or with other versions, than it began with.
        asking: means to ask teachers; what replies are compared with comes from `questions`.

    Raises:
        LilliputError: a logger does not exist.
        RecipeError: the recipe needs a part that is not built.
        RunError: a phase in the folder was trained from something else, or resuming here would change the weights.
    """
    check_implemented(recipe)
    check_loggers(loggers)
    asking = replace(asking, questions=questions)
    with open_context(recipe, folder, machine, console, command, loggers, allow_change, asking) as context:
        publisher = Publisher(context, questions) if context.publishes else None
        return list(Runner(context, publisher).run_timeline())


def train(
    recipe: Recipe,
    folder: Path,
    machine: Machine | None,
    console: Console,
    command: Command | None = None,
    *,
    until: str | None = None,
    loggers: Sequence[str] = (),
    allow_change: bool = False,
    asking: Asking = Asking(),
) -> None:
    """Do everything up to the weights of the last phase, and release nothing; arguments as of `run`.

    `until` is the last phase to train, None for all. The run stays one of the whole recipe and can be continued.
    """
    check_implemented(recipe.until(until) if until else recipe)
    check_loggers(loggers)
    with open_context(recipe, folder, machine, console, command, loggers, allow_change, asking) as context:
        Runner(context).run_timeline(until)


def publish(
    recipe: Recipe, folder: Path, console: Console, questions: QuestionSource = Hub(), command: Command | None = None
) -> list[Path]:
    """Export, check, evaluate and describe the releases of a trained run; never trains.

    Raises:
        RecipeError: the recipe makes no release.
        RunError: a phase is not trained, or was trained from something else.
    """
    check_implemented(recipe)
    if not recipe.releases:
        raise RecipeError(
            f"nothing is published: the recipe {recipe.name!r} makes no release of what it trains",
            where=str(folder),
            hint=f"put a Release(...) at the end of the timeline; lilliput generate {folder} asks what is trained",
        )
    if not (folder / "run.json").is_file():
        raise untrained("this run", folder)
    with open_run(recipe, folder, command) as run_folder:
        if (run_folder.read("run.json") or {}).get("machine") is None:
            raise untrained("this run", folder)
        resolved = resolve_machine(run_folder, None)
        resolved.apply()
        context = RunContext(run=run_folder, recipe=recipe, machine=resolved, console=console)
        return list(Runner(context, Publisher(context, questions), trains=False).run_timeline())
