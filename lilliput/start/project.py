"""From what somebody answered to a folder with a recipe and a machine, fitted to the minutes asked for."""

import math
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.files import PARTIAL, move, write_text
from lilliput.base.ownership import check_name
from lilliput.doctor import described
from lilliput.plan import foreseen, plan, probe
from lilliput.recipe import Recipe, load_machine, load_recipe
from lilliput.start.files import machine_text, recipe_text
from lilliput.start.fitting import Training, fitted
from lilliput.start.purposes import SEEDS, Purpose
from lilliput.start.sizes import corpus_tokens, notes
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase

RECIPE, MACHINE = "recipe.py", "machine.py"
MOST_MINUTES = 60 * 24 * 365


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers of the user: purpose, time, folder, device and data of a training."""

    purpose: Purpose
    minutes: float
    """Minutes of training; reading texts, releases and evaluation are not counted."""
    folder: Path
    """A new one, whose name becomes the recipe's."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, or `auto` for the best there is."""
    sources: Mapping[str, tuple[str, ...]]
    """Paths, by the corpora that the purpose takes from files."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minutes) and 0 < self.minutes <= MOST_MINUTES):
            raise LilliputError(
                f"training cannot take {self.minutes:g} minutes",
                where="--minutes",
                hint=f"give a number above 0, and at most {MOST_MINUTES:,}, a year",
            )


@dataclass(frozen=True, kw_only=True)
class Project:
    """Files to be written, and their plan."""

    folder: Path
    files: Mapping[str, str]
    """Texts by name."""
    plan: dict[str, Any]
    """Probed plan of one training, from `lilliput.plan.plan`."""
    notes: tuple[str, ...]
    """Sentences about it, warnings among them."""
    command: str
    """The one to type next."""


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that is there already, or whose name is none for a recipe, before anybody waits for a probe.

    Raises:
        LilliputError: it is, or it is not.
    """
    check_name("recipe", folder.name, f"--out {folder}")
    if folder.exists() or folder.is_symlink():
        raise _taken(folder)
    run = Path("runs") / folder.name
    if run.exists():
        raise RunError(
            f"a run of that name exists: {run}", where=f"--out {folder}", hint="give the folder another name"
        )


def make(answers: Answers, report: Callable[[str], None]) -> Project:
    """Measure this machine, and fit the purpose's recipe to the minutes. Nothing is written that stays.

    Args:
        answers: that were given.
        report: told what is being done.

    Raises:
        MachineError: the device is not there, or the minutes are too few.
        LilliputError: a text cannot be read.
    """
    machine = Machine(device=answers.device).resolved()
    others = _other_work(machine)
    report("reading the texts")
    recipe = _unfitted(answers)
    vocabulary = foreseen(recipe, Path("runs") / answers.folder.name)
    recipe, tokens = recipe.filled(vocabulary), corpus_tokens(recipe)
    trainings = [Training(one, probe(one, machine, report)) for one in _models(recipe, answers.purpose)]
    seconds = 60 * answers.minutes
    times = SEEDS if answers.purpose.mixers_of else 1
    phases = fitted(trainings * times, tokens, seconds)
    files = {RECIPE: _text(answers, phases), MACHINE: machine_text(machine, described(machine.device))}
    with TemporaryDirectory() as name:  # what is planned is what the files say
        for file, text in files.items():
            write_text(Path(name, file), text)
        written = load_recipe(str(Path(name, RECIPE))).filled(vocabulary)
        planned = plan(written, load_machine(str(Path(name, MACHINE))), costs=trainings[0].costs)
    said = notes(planned, tokens, seconds / len(trainings * times))
    said += filter(None, (answers.purpose.remark, others))
    return Project(folder=answers.folder, files=files, plan=planned, notes=tuple(said), command=_command(answers))


def write(project: Project) -> None:
    """Write the files into a new folder: all of them, or none, and nothing that was there is touched.

    Raises:
        RunError: the folder is there already.
    """
    folder = project.folder
    partial = folder.with_name(folder.name + PARTIAL)
    refuse_taken(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, text in project.files.items():
            write_text(partial / name, text)
        try:
            move(partial, folder)
        except OSError:
            if folder.exists():  # since a moment ago
                raise _taken(folder) from None
            raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _taken(folder: Path) -> RunError:
    return RunError(
        f"{folder} already exists and is not overwritten",
        where=f"--out {folder}",
        hint="name a new folder",
    )


def _text(answers: Answers, phases: Mapping[str, Phase]) -> str:
    time = f"{answers.minutes:g} minute{'' if answers.minutes == 1 else 's'}"
    return recipe_text(answers.purpose, answers.folder.name, sources=answers.sources, phases=phases, time=time)


def _unfitted(answers: Answers) -> Recipe:
    """The recipe as its file would say it with phases as long as those of the purpose's own recipe."""
    phases = {entry.name: entry for entry in answers.purpose.base().timeline if isinstance(entry, Phase)}
    with TemporaryDirectory() as name:
        write_text(Path(name, RECIPE), _text(answers, phases))
        return load_recipe(str(Path(name, RECIPE)))


def _models(recipe: Recipe, purpose: Purpose) -> list[Recipe]:
    """The recipe with each of the models that are trained."""
    mixers = [load_recipe(name).model.shape.mixer for name in purpose.mixers_of]
    shape = recipe.model.shape
    return [replace(recipe, model=replace(shape, mixer=mixer)) for mixer in mixers] or [recipe]


def _other_work(machine: Machine) -> str:
    """A sentence where other processes need the processor that is about to be measured, else nothing."""
    assert isinstance(machine.threads, int), "it is resolved"
    load = os.getloadavg()[0] if machine.device == "cpu" and hasattr(os, "getloadavg") else 0.0
    if load < machine.threads / 2:
        return ""
    return (
        f"Other work kept this machine busy while it was measured (a load of {load:.1f}, {machine.threads} threads): "
        "training takes less time when that ends, and more when there is more of it"
    )


def _command(answers: Answers) -> str:
    purpose, folder = answers.purpose, answers.folder
    words = ["lilliput", "sweep" if purpose.mixers_of else "run", str(folder / RECIPE)]
    if purpose.mixers_of:
        words += ["--over", purpose.over(), "--seeds", str(SEEDS)]
    return shlex.join([*words, "--machine", str(folder / MACHINE)])
