"""Training the variants of a sweep one after another, beside other processes that do the same in the same folder.

Nothing is trained after the phase whose end is compared. A variant is a run of the whole recipe that has come so far:
`lilliput run` takes it on, and a sweep with a later metric too.

sweep.json      the recipe, the swept fields with their values, the seeds; it may grow
results.json    table.md    plot.png    written again after every variant
<variant>/      a run folder each, and train.log, what its run had to say
.tokens/        held by the process that prepares token files, so that the others wait and link them
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from lilliput.base import __version__
from lilliput.base.errors import DivergenceError, ExportError, InUseError, RecipeError, RunError, reading
from lilliput.base.files import write_bytes, write_text
from lilliput.base.implemented import check_implemented
from lilliput.base.locked_folder import LockedFolder
from lilliput.base.run_folder import RunFolder, differences
from lilliput.base.spec import to_plain
from lilliput.base.terminal import Terminal
from lilliput.base.text_units import duration, operations_rate
from lilliput.plan import plan
from lilliput.recipe import Recipe
from lilliput.run import before_training, pipeline
from lilliput.run.command_record import Command, RecipeOptions
from lilliput.sweep.axes import SweepAxis, Variant, expanded, variants
from lilliput.sweep.metric import Metric, Outcome, choose, outcome, record_failure, refuse_without_effect
from lilliput.sweep.plot import picture
from lilliput.sweep.results import results
from lilliput.sweep.shared_data import link_prepared
from lilliput.sweep.table import markdown
from lilliput.train.machine import Machine

FORMAT = 2
IN_FULL = 1
"""The format of sweeps whose folders are named by parts with all their fields; they are continued under these names."""
SWEEP_FILE = "sweep.json"
PAUSE = 1.0
"""Seconds between two looks at what other processes hold."""


def sweep(
    recipe: Recipe,
    overs: Sequence[SweepAxis],
    seeds: int,
    folder: Path,
    machine: Machine | None,
    console: Console,
    *,
    metric: str | None = None,
    fixed: Sequence[str] = (),
    command: Command | None = None,
) -> dict[str, Any]:
    """Train every variant of a recipe that is not trained yet, as far as the metric, and compare them.

    Args:
        recipe: what is varied. Where a variant's model is none that its releases can be made of, none has releases.
        overs: the fields to vary, `lilliput.sweep.axes.read_over` makes them of text; none to vary the seed alone.
        seeds: how many, from the recipe's own on.
        folder: of the sweep; one that exists is continued, and grows by values and seeds that it has not.
        machine: where variants begin; None for whatever is here. A variant goes on where it began.
        console: where progress is shown.
        metric: `phase.corpus`; None for bits per byte at the end of the last phase that reads text.
        fixed: what `--set` was given, `path=value`; these fields may not be varied.
        command: what the recipe comes from; None where it was made in Python.

    Returns:
        what `results.json` holds.

    Raises:
        RecipeError: a path, a value, a combination or the metric does not fit, or a field cannot change the metric;
            nothing was written.
        RunError: the folder holds something else.
    """
    if seeds < 1:
        raise RunError(f"seeds cannot be {seeds}", where="--seeds", hint="give 1 or more")
    chosen = choose(recipe, metric)
    try:
        overs, every = _settled(recipe, overs, seeds, fixed)
    except ExportError as error:
        recipe = recipe.without_releases()
        overs, every = _settled(recipe, overs, seeds, fixed)
        console.print(f"variants are trained without their releases: {error.what}", markup=False, soft_wrap=True)
    for variant in every:
        choose(variant.recipe, chosen.name)
        check_implemented(variant.recipe.until(chosen.phase))
    refuse_without_effect(recipe, overs, chosen)
    (machine or Machine()).resolved()
    runner = _SweepRunner(recipe, folder, machine, chosen, console, command)
    runner.count(every)
    runner.open(overs, [recipe.seed + place for place in range(seeds)])
    return runner.all()


def _settled(
    recipe: Recipe, overs: Sequence[SweepAxis], seeds: int, fixed: Sequence[str]
) -> tuple[list[SweepAxis], list[Variant]]:
    """The fields to vary, and every setting of them at the recipe's own seed."""
    found = expanded(recipe, overs, fixed, seeds=seeds)
    return found, variants(recipe, found, [recipe.seed])


class SweepFolder(LockedFolder):
    """The folder of a sweep."""

    def check(self) -> None:
        """Refuse a folder that is neither a sweep nor empty, hidden files aside.

        Raises:
            RunError: it is not; nothing in it was touched.
        """
        if (self.path / "run.json").exists():
            raise RunError(
                "the folder is a run, not a sweep", where=str(self.path), hint="choose another folder with --out"
            )
        if self.path.is_dir() and not (self.path / SWEEP_FILE).is_file():
            self.refuse_others("sweep", SWEEP_FILE)


class _SweepRunner:
    """One process at work on a sweep."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        machine: Machine | None,
        metric: Metric,
        console: Console,
        command: Command | None,
    ):
        self._recipe, self._folder, self._machine = recipe, folder, machine
        self._metric, self._console, self._command = metric, console, command
        self._counted: dict[str, dict[str, int]] = {}

    def count(self, every: Sequence[Variant]) -> None:
        """Count what variants cost, which refuses models that cannot be built.

        Raises:
            RecipeError: there is one.
        """
        for variant in every:
            try:
                self._cost(variant)
            except RecipeError as error:
                where = f"{error.where}, of {variant.setting.title}"
                raise RecipeError(error.what, where=where, hint=error.hint) from error

    def open(self, overs: Sequence[SweepAxis], seeds: Sequence[int]) -> None:
        """Begin the sweep, or add what is new to the one that is there.

        Raises:
            RecipeError: a combination of an old and a new value does not fit.
            RunError: the folder holds a run, or a sweep of another recipe or of other fields.
        """
        with _alone(SweepFolder(self._folder)) as folder, _reading_sweep(self._folder):
            old = folder.read(SWEEP_FILE)
            plain = to_plain(self._recipe)
            values = {over.path: list(over.values) for over in overs}
            if old is not None:
                self._refuse_others(old, plain, values)
                values = {path: list(dict.fromkeys([*old["over"][path], *values[path]])) for path in old["over"]}
                seeds = sorted({*old["seeds"], *seeds})
            variants(self._recipe, [SweepAxis(path=path, values=tuple(texts)) for path, texts in values.items()], seeds)
            form = FORMAT if old is None else old["format"]
            new = {"format": form, "lilliput": __version__, "recipe": plain, "over": values, "seeds": list(seeds)}
            folder.write(SWEEP_FILE, new)
        outcomes = self._outcomes()
        self._began, self._before = time.perf_counter(), self._operations(outcomes)
        over = sum(one.is_over for one in outcomes.values())
        self._say(f"{len(outcomes)} variants, {over} of them done, in {self._folder}")

    def all(self) -> dict[str, Any]:
        """Train what is not trained, then wait for what others train; the results at the end."""
        waiting = False
        while left := [variant for variant in self._grid()[1] if not self._outcome(variant).is_over]:
            if any(self._train(variant) for variant in left):
                self._write()
                waiting = False
                continue
            if not waiting:
                self._say(f"waiting for {', '.join(variant.name for variant in left)}: other processes have them")
            waiting = True
            time.sleep(PAUSE)
        return self._write()

    def _train(self, variant: Variant) -> bool:
        """Train a variant to its end; False if another process has it."""
        folder, until = self._folder / variant.name, self._metric.phase
        command = self._command and self._command.extended_with(
            RecipeOptions(overrides=variant.overrides), variant.recipe
        )
        try:
            with RunFolder(folder) as run:
                begun = (run.read("run.json") or {}).get("machine") is not None
            with open(folder / "train.log", "a", encoding="utf-8") as log:
                console = Terminal(file=log, width=120)
                with _alone(LockedFolder(self._folder / ".tokens")):
                    with RunFolder(folder) as run:
                        link_prepared(run, variant.recipe, self._donors(variant))
                    before_training.data(variant.recipe, folder, console, command, until=until)
                if self._outcome(variant).is_over:  # another process trained it while this one waited for token files
                    return False
                self._say(
                    f"{variant.name} {'resumes where it began' if begun else 'begins'}, see {folder / 'train.log'}"
                )
                machine = None if begun else self._machine
                pipeline.train(variant.recipe, folder, machine, console, command, until=until)
        except InUseError:
            return False
        except DivergenceError as error:
            record_failure(folder, error)
        self._report(variant)
        return True

    def _report(self, variant: Variant) -> None:
        """One line on a variant that ended, and on what is left of the sweep."""
        outcomes = self._outcomes()
        ended = outcomes[variant.name]
        said = f"failed, {ended.failure}"
        if ended.value is not None and ended.seconds:
            speed = self._cost(variant)["tokens"] / ended.seconds
            said = f"{self._metric.name} {ended.value:.4f} {self._metric.unit}, {speed:,.0f} tokens/s"
        done = self._operations(outcomes)
        rate = (done - self._before) / (time.perf_counter() - self._began)
        left = (sum(self._cost(one)["operations"] for one in self._grid()[1]) - done) / rate
        over = sum(outcome.is_over for outcome in outcomes.values())
        pace = f", {operations_rate(rate)}, {duration(left)} left" if over < len(outcomes) else ""
        self._say(f"{variant.name}: {said}; {over} of {len(outcomes)} done{pace}")

    def _write(self) -> dict[str, Any]:
        """Write the results so far; the last to write has seen everything."""
        with _alone(SweepFolder(self._folder)) as folder:
            overs, every = self._grid()
            costs = {one.setting.name: self._cost(one) for one in every}
            found = results(self._recipe.name, self._metric, overs, every, self._outcomes(), costs)
            folder.write("results.json", found)
            write_text(self._folder / "table.md", markdown(found))
            write_bytes(self._folder / "plot.png", picture(found))
        return found

    def _grid(self) -> tuple[list[SweepAxis], list[Variant]]:
        """Return what is to be trained, as the folder says now: another process may have made the sweep larger."""
        with _reading_sweep(self._folder):
            record = SweepFolder(self._folder).read(SWEEP_FILE)
            assert record is not None
            overs = [SweepAxis(path=path, values=tuple(values)) for path, values in record["over"].items()]
            return overs, variants(self._recipe, overs, record["seeds"], in_full=record["format"] == IN_FULL)

    def _outcome(self, variant: Variant) -> Outcome:
        return outcome(self._folder / variant.name, variant, self._metric)

    def _outcomes(self) -> dict[str, Outcome]:
        return {variant.name: self._outcome(variant) for variant in self._grid()[1]}

    def _operations(self, outcomes: dict[str, Outcome]) -> int:
        """Floating-point operations of the variants that are over."""
        return sum(self._cost(one)["operations"] for one in self._grid()[1] if outcomes[one.name].is_over)

    def _cost(self, variant: Variant) -> dict[str, int]:
        """Parameters and counts of training until the metric, made once a setting: no seed changes them."""
        name = variant.setting.name
        if name not in self._counted:
            planned = plan(variant.recipe.until(self._metric.phase))
            parameters = planned["phases"][-1]["parameters"]["total"]
            totals = {key: planned["totals"][key] for key in ("steps", "tokens", "positions", "operations")}
            self._counted[name] = {"parameters": parameters} | totals
        return self._counted[name]

    def _donors(self, variant: Variant) -> list[tuple[Path, Recipe]]:
        others = [(self._folder / one.name, one.recipe) for one in self._grid()[1] if one.name != variant.name]
        return [(folder, recipe) for folder, recipe in others if folder.is_dir()]

    def _refuse_others(self, old: dict[str, Any], recipe: Any, values: dict[str, list[str]]) -> None:
        changed = differences(old["recipe"], recipe)
        if old["format"] not in (IN_FULL, FORMAT):
            changed = [f"the format was {old['format']}, not {FORMAT}"]
        if set(old["over"]) != set(values):
            named = [", ".join(paths) or "none but the seed" for paths in (old["over"], values)]
            changed.append(f"the swept fields were {named[0]}, not {named[1]}")
        if changed:
            raise RunError(
                f"the folder holds another sweep: {'; '.join(changed[:4])}",
                where=str(self._folder),
                hint="start another one with --out; a sweep can only gain values and seeds",
            )

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _reading_sweep(folder: Path) -> AbstractContextManager[None]:
    return reading(folder / SWEEP_FILE, "begin another sweep with --out", "the file is no record of a sweep")


@contextmanager
def _alone(folder: LockedFolder) -> Iterator[LockedFolder]:
    """Hold a folder that other processes hold for a while too."""
    with ExitStack() as stack:
        while True:
            try:
                held = stack.enter_context(folder)
                break
            except InUseError:
                time.sleep(PAUSE / 10)
        yield held
