"""Python functions of the commands: run and train recipes, evaluate models, and get back what was made.

import lilliput

run = lilliput.run_recipe("own-text", "runs/stories", sources={"texts": "stories"})
print(run.scores(), run.model().generate("Once"))
print(lilliput.evaluate_model(run.releases[-1], "open-slm").plain())
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lilliput.api import Model, load
from lilliput.base.errors import LilliputError, RunError, reading
from lilliput.base.files import read_json
from lilliput.base.terminal import Terminal
from lilliput.evals.evaluation import Evaluation
from lilliput.evals.question_files import question_source
from lilliput.evals.run_suite import evaluate_by_name, evaluate_own
from lilliput.evals.suites import SUITE
from lilliput.publish.releases import folder_named, last_release, releases, warn_if_outdated
from lilliput.publish.remote_code import check_code
from lilliput.recipe import Recipe, allow_code, load_machine, read_recipe
from lilliput.run.asking import Asking
from lilliput.run.command_record import Command, RecipeOptions
from lilliput.run.model_code import model_to_score
from lilliput.run.pipeline import run, train
from lilliput.run.target import Target, find_target
from lilliput.run.trained import Trained, read_trained
from lilliput.train.machine import Machine, inference_device
from lilliput.train.metrics_file import Line, read_metrics

Sources = Mapping[str, str | Sequence[str]]
"""Files, folders or patterns by the name of a corpus."""
ARGUMENTS = {
    "--set": "overrides",
    "--source": "sources",
    "--more-tokens": "more_tokens",
    "--out": "folder",
    "--machine": "machine",
    "--shrink": "shrink",
}
"""Arguments of the functions here, by the options of the commands."""
NOTHING: Sources = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, and what is in it."""

    folder: Path

    @property
    def recipe(self) -> Recipe:
        """Return what it was made of."""
        return read_recipe(self.folder)

    @property
    def releases(self) -> list[Path]:
        """The folders of its releases, in the order of the timeline."""
        return releases(self.folder)

    def model(self, *, device: str = "auto") -> Model:
        """Its last release, loaded.

        Raises:
            RunError: nothing is released yet.
        """
        return load(self.folder, device=device)

    def metrics(self, phase: str) -> list[Line]:
        """The lines of `metrics.jsonl` of a phase: one a step, one a measurement on held-out data (`heldout`).

        Raises:
            RunError: there is no such phase, or it was not trained.
        """
        files = {path.parent.name.partition("-")[2]: path for path in self.folder.glob("phases/*/metrics.jsonl")}
        if phase not in files:
            raise RunError(
                f"there are no metrics of the phase {phase!r}",
                where=str(self.folder),
                hint=f"phases that were trained: {', '.join(files) or 'none'}",
            )
        return read_metrics(files[phase])

    def scores(self, release: str | None = None) -> list[dict[str, Any]]:
        """The scores of a release, the last one unless named: `task`, `metric`, `value`, `stderr`, `chance`, `items`.

        Raises:
            RunError: there is no such release, or it was not evaluated.
        """
        names = [folder.name for folder in self.releases]
        name = release or (names[-1] if names else "")
        if name not in names:
            raise RunError(
                f"there is no release {name!r}" if name else "there is no release",
                where=str(self.folder),
                hint=f"releases: {', '.join(names) or 'none; run_recipe makes them'}",
            )
        with reading(self.folder, "publish the run again: it evaluates what is not evaluated"):
            return read_json(self.folder / "evals" / f"{name}.json")["scores"]


def run_recipe(
    recipe: str | PathLike[str] | Recipe,
    folder: str | PathLike[str] | None = None,
    *,
    machine: str | Machine | None = None,
    overrides: Sequence[str] = (),
    sources: Sources = NOTHING,
    more_tokens: Sequence[str] = (),
    shrink: bool = False,
    trust_code: bool = False,
    eval_data: str | PathLike[str] | None = None,
    loggers: Sequence[str] = (),
    endpoint: str | None = None,
    quiet: bool = False,
) -> Run:
    """Do everything a recipe says, as `lilliput run` does; a folder that exists is continued.

    Args:
        recipe: by name, a Python file, a run folder, or the value itself.
        folder: of the run; `runs/<name>` by default.
        machine: by name, a Python file, or the value itself; this machine by default.
        overrides: fields of the recipe, such as `"seed=1"`.
        sources: local files for corpora of the recipe.
        more_tokens: train for longer: `"1e6"` tokens after the last phase, `"pretrain=1e6"` after one by name.
        shrink: the same recipe at toy size.
        trust_code: let the Python files run that a run folder keeps of its recipe.
        eval_data: a folder of evaluation sets; the hub by default.
        loggers: names of programs that are shown the numbers of training.
        endpoint: base URL where a teacher answers; OPENAI_BASE_URL by default.
        quiet: show nothing.

    Raises:
        LilliputError: an argument is not one, or whatever `lilliput run` would say.
    """
    target, where = _aim(recipe, folder, machine, overrides, sources, more_tokens, shrink, trust_code)
    questions, terminal = question_source(Path(eval_data) if eval_data is not None else None), Terminal(quiet=quiet)
    for note in target.notes:
        terminal.print(note)
    asking = Asking(endpoint=endpoint)
    run(target.recipe, target.folder, where, terminal, questions, target.command, loggers=loggers, asking=asking)
    return Run(folder=target.folder)


def train_recipe(
    recipe: str | PathLike[str] | Recipe,
    folder: str | PathLike[str] | None = None,
    *,
    machine: str | Machine | None = None,
    overrides: Sequence[str] = (),
    sources: Sources = NOTHING,
    more_tokens: Sequence[str] = (),
    shrink: bool = False,
    trust_code: bool = False,
    until: str | None = None,
    loggers: Sequence[str] = (),
    endpoint: str | None = None,
    quiet: bool = False,
) -> Run:
    """Train every phase of a recipe and release nothing, as `lilliput train` does.

    Args:
        recipe, folder, machine, overrides, sources, more_tokens, shrink, trust_code: see `run_recipe`.
        loggers, endpoint, quiet: see `run_recipe`.
        until: the last phase to train; None for all.

    Raises:
        LilliputError: an argument is not one, or whatever `lilliput train` would say.
    """
    target, where = _aim(recipe, folder, machine, overrides, sources, more_tokens, shrink, trust_code)
    terminal = Terminal(quiet=quiet)
    for note in target.notes:
        terminal.print(note)
    asking = Asking(endpoint=endpoint)
    train(target.recipe, target.folder, where, terminal, target.command, until=until, loggers=loggers, asking=asking)
    return Run(folder=target.folder)


def evaluate_model(
    model: str | PathLike[str],
    suite: str | None = None,
    *,
    tasks: Sequence[str] = (),
    task_files: Sequence[str | PathLike[str]] = (),
    eval_data: str | PathLike[str] | None = None,
    limit: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    batch_size: int | None = None,
    model_code: str = "auto",
    trust_code: bool = False,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Score a model on a suite, or on tasks of one's own, by lm-evaluation-harness, as `lilliput eval` does.

    Args:
        model: a model folder, or a run folder, also by the name of its recipe: its last release is scored, or what it
            has trained if it has none.
        suite: `open-slm` by default, `odinnext`, `mtlm`, `smoke`, or another that `lilliput eval --help` names.
        tasks: only these of its tasks.
        task_files: YAML files of tasks, as the harness has them, instead of a suite.
        eval_data: a folder of evaluation sets; the hub by default.
        limit: only the first so many items of each task.
        device: `cpu`, `cuda`, `mps`, or `auto` for the best one there is.
        dtype: of the weights: float32, bfloat16 or float16.
        batch_size: most rows of a forward pass; by default, as many as memory holds.
        model_code: `lilliput` or `transformers`, whose model class computes; `auto` is Lilliput where it can load the
            folder.
        trust_code: let the Python files run that a run folder keeps of its recipe.
        trust_remote_code: let Python files of the folder, or of tasks, run that are not ours.

    Returns:
        `scores` and `averages`; `plain()` makes JSON values of them.

    Raises:
        LilliputError: there is no such model, suite or task, or questions are missing.
    """
    files = [Path(file).expanduser() for file in _texts(task_files, "task_files", '["mine.yaml"]')]
    if files and (suite or tasks):
        raise LilliputError(
            f"{'suite' if suite else 'tasks'} and task_files cannot be combined",
            where="evaluate_model(...)",
            hint="use one at a time; tasks names tasks of a suite, task_files files of your own",
        )
    found = _find_model(folder_named(Path(_path(model, "the model"))), trust_code=trust_code)
    questions = question_source(Path(eval_data) if eval_data is not None else None)
    settings: dict[str, Any] = {
        "device": inference_device(device),
        "dtype": dtype,
        "batch_size": batch_size,
        "limit": limit,
        "trust_remote_code": isinstance(found, Path) and check_code(found, trusted=trust_remote_code),
    }
    asked = model_to_score(found, model_code)
    if files:
        return evaluate_own(asked, files, questions, trust_tasks=trust_remote_code, **settings)
    heldout = None if isinstance(found, Path) else found.heldout
    return evaluate_by_name(asked, suite or SUITE, questions, tasks=tasks, heldout=heldout, **settings)


def _find_model(folder: Path, *, trust_code: bool) -> Path | Trained:
    """A model folder, the last release of a run, or what a run has trained that released nothing."""
    if (release := last_release(folder)) is not None:
        warn_if_outdated(folder, release)
        return release
    if not (folder / "recipe.json").is_file():
        return folder
    if trust_code:
        allow_code(folder)
    return read_trained(folder)


def _aim(
    recipe: str | PathLike[str] | Recipe,
    folder: str | PathLike[str] | None,
    machine: str | Machine | None,
    overrides: Sequence[str],
    sources: Sources,
    more_tokens: Sequence[str],
    shrink: bool,
    trust_code: bool,
) -> tuple[Target, Machine | None]:
    """Return what the arguments stand for; one text where there could be several counts as one."""
    if not isinstance(sources, Mapping):
        raise LilliputError(
            f"{sources!r:.80} is not a mapping", where="sources", hint='give {"texts": "path/to/folder"}'
        )
    options: dict[str, Any] = {
        "shrink": shrink,
        "overrides": tuple(_texts(overrides, "overrides", '["seed=1"]')),
        "sources": tuple(f"{name}={path}" for name in sources for path in _texts(sources[name], "sources", '"path"')),
        "more_tokens": tuple(_texts(more_tokens, "more_tokens", '["1e6"]')),
    }
    where = load_machine(machine) if isinstance(machine, str) else machine
    if not isinstance(where, Machine | None):
        raise LilliputError(f"{machine!r:.80} is not a machine", where="machine", hint='give "cpu", or Machine(...)')
    out = None if folder is None else Path(_path(folder, "the folder"))
    with _as_arguments():
        if isinstance(recipe, Recipe):
            changed = RecipeOptions(**options).apply(recipe)
            out = out or Path("runs") / (f"{changed.name}-shrunk" if shrink else changed.name)
            return Target(recipe=changed, folder=out, command=None), where
        name = machine if isinstance(machine, str) else None
        command = Command(recipe=_path(recipe, "the recipe"), machine=name, **options)
        found = find_target(command, meet=lambda run: allow_code(run) if trust_code else None, out=out)
    return found, where


@contextmanager
def _as_arguments() -> Iterator[None]:
    """Let errors that name options of the command line name the arguments of Python instead."""
    try:
        yield
    except LilliputError as error:
        error.where, error.hint = _spoken(error.where), _spoken(error.hint)
        raise


def _spoken(text: str) -> str:
    text = re.sub(r"--set ([\w.]+=\S+)", r'overrides=["\1"]', text)
    text = re.sub(r"--source ([\w.:-]+)=(\S+)", r'sources={"\1": "\2"}', text)
    for option, argument in ARGUMENTS.items():
        text = re.sub(rf"{option}(?![\w-])", argument, text)
    return text


def _texts(value: Any, name: str, example: str) -> list[str]:
    values = [value] if isinstance(value, str | PathLike) else value
    if not isinstance(values, Sequence) or not all(isinstance(one, str | PathLike) for one in values):
        raise LilliputError(f"{value!r:.80} is not a list of texts", where=name, hint=f"give e.g. {example}")
    return [str(one) for one in values]


def _path(value: Any, what: str) -> str:
    if not isinstance(value, str | PathLike) or not str(value):
        raise LilliputError(f"{what} is {value!r:.80}", where="the arguments", hint="give a name or a path")
    return str(value)
