"""A run: walk a recipe's timeline from raw text to published models, going on where the last walk stopped.

Each entry's inputs are the hash of everything before it, so an entry is done again exactly when something it depends on
has changed: the recipe, the text, the tokenizer or the machine. Only training is never thrown away unasked.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file

from lilliput import __version__
from lilliput.base.environment import environment
from lilliput.base.errors import LilliputError, RunError
from lilliput.base.files import hash_of, new_folder, sha256, write_bytes
from lilliput.base.rundir import FORMAT, RunFolder, differences
from lilliput.base.spec import to_plain
from lilliput.evals.items import Hub, Items
from lilliput.growth.growth import Line
from lilliput.missing import refuse_missing
from lilliput.model import copy_weights
from lilliput.prepare import Preparation
from lilliput.recipe import Recipe, Release
from lilliput.release import Publisher
from lilliput.tokenizer.bpe import tokenizer_hash
from lilliput.train.all_reduce import RANK, AllReduce
from lilliput.train.checkpoint import write_tensors
from lilliput.train.exchange import OneWorker, Workers
from lilliput.train.heldout import measurer
from lilliput.train.incidents import read_incidents
from lilliput.train.loop import Measure, train_phase
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, Plan, Reader
from lilliput.train.promise import keep, settle
from lilliput.train.unwatched import Unwatched
from lilliput.train.watch import Watch, plot_loss


def run(
    recipe: Recipe,
    folder: Path,
    machine: Machine | None,
    console: Console,
    items: Items = Hub(),
    *,
    allow_change: bool = False,
) -> list[Path]:
    """Do everything the recipe's timeline says.

    Args:
        recipe: what to do.
        folder: the run folder; one that exists is continued.
        machine: where; None for the machine the run began on, else whatever is here.
        console: where progress is shown.
        items: where the questions of evaluation suites come from.
        allow_change: whether training may go on on another machine, or with other versions, than it began with.

    Returns:
        the folders of the releases, in order.

    Raises:
        RecipeError: the recipe needs a part that is not built.
        RunError: a phase in the folder was trained from something else, or would go on to other bits.
    """
    refuse_missing(recipe)
    with _walking(recipe, folder, machine, console, allow_change) as walk:
        publisher = walk.publisher(items)
        return walk.along(walk.train, publisher)


def tokenizer(recipe: Recipe, folder: Path, console: Console) -> None:
    """Learn the recipe's tokenizer."""
    with _opened(recipe, folder, console) as opened:
        Preparation(opened, recipe, console).tokenizer()


def data(recipe: Recipe, folder: Path, console: Console) -> None:
    """Learn the tokenizer and write the token files of every corpus that the timeline reads."""
    with _opened(recipe, folder, console) as opened:
        Preparation(opened, recipe, console).everything()


def train(
    recipe: Recipe, folder: Path, machine: Machine | None, console: Console, *, allow_change: bool = False
) -> None:
    """Do everything up to the weights of the last phase, and release nothing."""
    refuse_missing(recipe)
    with _walking(recipe, folder, machine, console, allow_change) as walk:
        walk.along(walk.train, None)


def publish(recipe: Recipe, folder: Path, console: Console, items: Items = Hub()) -> list[Path]:
    """Export, check, evaluate and describe the releases of a trained run; never trains.

    Raises:
        RunError: a phase is not trained, or was trained from something else.
    """
    refuse_missing(recipe)
    if not (folder / "run.json").is_file():
        raise _untrained("this run", folder)
    with _opened(recipe, folder, console) as opened:
        if (opened.read("run.json") or {}).get("machine") is None:
            raise _untrained("this run", folder)
        settled = settle(opened, None)
        settled.prepare()
        walk = _Walk(opened, recipe, settled, console)
        return walk.along(walk.trained, walk.publisher(items))


@contextmanager
def _walking(
    recipe: Recipe, folder: Path, machine: Machine | None, console: Console, allow_change: bool
) -> Iterator["_Walk | _Beside"]:
    """The walk of this process: that of the first worker, which holds the run, or that of one beside it."""
    if os.environ.get(RANK, "0") != "0":
        run = RunFolder(folder)  # read, never written
        settled = machine.settled() if machine else settle(run, None)
        if isinstance(settled.exchange, AllReduce):
            settled.prepare()
            with settled.exchange.join(settled.device) as workers:
                yield _Beside(run, recipe, settled, Console(quiet=True), workers)
            return
    with _opened(recipe, folder, console) as opened:
        settled = settle(opened, machine, allow_change=allow_change)
        settled.prepare()
        with settled.exchange.join(settled.device) as workers:
            yield _Walk(opened, recipe, settled, console, workers, allow_change=allow_change)


@contextmanager
def _opened(recipe: Recipe, folder: Path, console: Console) -> Iterator[RunFolder]:
    with RunFolder(folder) as opened:
        if opened.read("run.json") is None:
            opened.write_sealed("run.json", {"format": FORMAT, "lilliput": __version__, "machine": None})
        _refuse_change(opened, recipe)
        stored = folder / "recipe.json"
        before = stored.read_bytes() if stored.exists() else None
        opened.write("recipe.json", to_plain(recipe))
        opened.write("environment.json", environment())
        try:
            yield opened
        except (LilliputError, KeyboardInterrupt):  # the run stays what it was made from
            if before is not None:
                write_bytes(stored, before)
            raise


def _refuse_change(opened: RunFolder, recipe: Recipe) -> None:
    """Refuse a recipe that would have trained a phase otherwise, before anything the phase rests on is replaced."""
    begun = []
    for place, entry in enumerate(recipe.timeline):
        if isinstance(entry, Phase) and opened.record(_folder(place, entry)).get("from"):
            begun.append(_folder(place, entry))
            opened.refuse_change(begun[-1], {"phase": to_plain(entry), "seed": _seed(recipe, place)})
    tokenizer = opened.record("tokenizer").get("from")
    if begun and tokenizer:
        changed = differences(
            {key: tokenizer[key] for key in ("tokenizer", "split")},
            {"tokenizer": recipe.tokenizer.identity(), "split": to_plain(recipe.split)},
        )
        if changed:
            raise RunError(
                f"{begun[0]} was trained on other tokens: {'; '.join(changed[:4])}",
                where=str(opened.path),
                hint=f"begin another run with --out, or give it up: lilliput clean {opened.path} --from {begun[0]}",
            )


def _seed(recipe: Recipe, place: int) -> int:
    return (recipe.seed << 8) + place


class _Walk:
    """One walk along a timeline."""

    def __init__(
        self,
        opened: RunFolder,
        recipe: Recipe,
        machine: Machine,
        console: Console,
        workers: Workers = OneWorker(),
        *,
        allow_change: bool = False,
    ):
        self.machine, self.workers = machine, workers
        self._run, self._recipe, self._console = opened, recipe, console
        self._allow_change = allow_change
        self._preparation = Preparation(opened, recipe, console)

    def publisher(self, items: Items) -> Publisher | None:
        """Who makes releases on this walk, having looked whether it can."""
        publisher = Publisher(self._run, self._recipe, self.machine, self._console, items)
        publisher.check()
        return publisher

    def along(self, phase: Any, publisher: Publisher | None) -> list[Path]:
        """Walk, with `train` or `trained` for the phases; without a publisher nothing is released.

        All texts are read first: one that is damaged is not found after a week of training.
        """
        recipe = self._recipe
        with self._first():
            tokenizer = self._preparation.everything()
        model = recipe.model.build(recipe.seed).to(self.machine.device)
        line = Line(model=model, tokenizer=tokenizer, average={})
        past = {"model": recipe.model.identity(), "seed": recipe.seed, "tokenizer": tokenizer_hash(tokenizer)}
        releases: list[Path] = []
        phases: list[str] = []
        for place, entry in enumerate(recipe.timeline):
            match entry:
                case Phase():
                    line, past = phase(place, entry, line, past)
                    phases.append(_folder(place, entry))
                case Release():
                    if publisher is not None:
                        heldout = self._preparation.tokens(entry.heldout, line.tokenizer)
                        chats = self._preparation.tokens(entry.chat, line.tokenizer) if entry.chat else None
                        lineage = hash_of(past)
                        releases.append(
                            publisher.publish(entry, line, lineage=lineage, phases=phases, heldout=heldout, chats=chats)
                        )
                case _:
                    line = entry.grow(line, self._seed(place))
                    past = {"before": hash_of(past), "growth": to_plain(entry), "seed": self._seed(place)}
                    self._say(
                        f"{place:02d} {type(entry).__name__}: {line.model.parameter_counts()['total']:,} parameters"
                    )
        return releases

    def train(self, place: int, phase: Phase, line: Line, past: dict[str, Any]) -> tuple[Line, dict[str, Any]]:
        """The line after a phase, trained now as far as it is not."""
        name = _folder(place, phase)
        tokens = {corpus: self._preparation.tokens(corpus, line.tokenizer) for corpus in phase.data.corpora}
        inputs = self._inputs(place, phase, past, tokens)
        measure = measurer(tokens, phase.length, self.machine)  # refuses what cannot be measured before anything begins

        def make(folder: Path) -> dict[str, Any]:
            for change in keep(self._run, self.machine, name, allow_change=self._allow_change):
                self._say(f"{phase.name}: goes on although {change}")
            return self._train(folder, place, phase, line, tokens, measure)

        with self._first():
            made = self._run.lasting_part(name, inputs, make, whole=_is_whole)
        return self._after(place, phase, line, past, inputs, made)

    @contextmanager
    def _first(self) -> Iterator[None]:
        """What the first worker does before the others look at it."""
        yield
        self.workers.wait()

    def trained(self, place: int, phase: Phase, line: Line, past: dict[str, Any]) -> tuple[Line, dict[str, Any]]:
        """The line after a phase that is trained already.

        Raises:
            RunError: it is not.
        """
        tokens = {corpus: self._preparation.tokens(corpus, line.tokenizer) for corpus in phase.data.corpora}
        inputs = self._inputs(place, phase, past, tokens)
        made = self._run.made(_folder(place, phase), inputs, _is_whole)
        if made is None:
            raise _untrained(f"the phase {phase.name!r}", self._run.path)
        return self._after(place, phase, line, past, inputs, made)

    def _inputs(self, place: int, phase: Phase, past: dict[str, Any], tokens: dict[str, Any]) -> dict[str, Any]:
        return {
            "before": past,
            "phase": to_plain(phase),
            "seed": self._seed(place),
            "machine": self._began_on(),
            "tokens": {name: opened.index["sha256"] for name, opened in tokens.items()},
        }

    def _began_on(self) -> Any:
        record = self._run.read("run.json")
        assert record is not None
        return record["machine"]

    def _train(
        self, folder: Path, place: int, phase: Phase, line: Line, tokens: dict[str, Any], measure: Measure
    ) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        plan = Plan(phase)
        reader, bytes_per_token = phase.data.open(tokens), phase.data.bytes_per_token(tokens)
        self._say(f"{phase.name}: {int(phase.tokens):,} tokens to read, {reader.tokens_available:,} there")
        metrics = folder / "metrics.jsonl"
        average = self._through(
            folder,
            place,
            phase,
            line,
            reader,
            measure,
            lambda step: Watch(metrics, self._console, phase.name, plan.steps, step, bytes_per_token),
        )
        plot_loss(metrics, folder / "loss.png", phase.name, bytes_per_token)
        with new_folder(folder / "final") as partial:
            write_tensors(partial / "weights.safetensors", dict(line.model.named_parameters()))
            write_tensors(partial / "average.safetensors", average)
            return {
                "weights": sha256(partial / "weights.safetensors"),
                "average": sha256(partial / "average.safetensors"),
                "steps": plan.steps,
                "incidents": read_incidents(folder / "checkpoints"),
            }

    def _through(
        self,
        folder: Path,
        place: int,
        phase: Phase,
        line: Line,
        reader: Reader,
        measure: Measure,
        watch: Callable[[int], Any],
    ) -> dict[str, Any]:
        return train_phase(
            line.model,
            phase,
            reader,
            self.machine,
            folder=folder / "checkpoints",
            seed=self._seed(place),
            watch=watch,
            measure=measure,
            report=self._say,
            workers=self.workers,
        )

    def _after(
        self, place: int, phase: Phase, line: Line, past: dict[str, Any], inputs: dict[str, Any], made: dict[str, Any]
    ) -> tuple[Line, dict[str, Any]]:
        final = self._run.path / _folder(place, phase) / "final"
        copy_weights(line.model, load_file(final / "weights.safetensors"))
        average = load_file(final / "average.safetensors", device=str(self.machine.device))
        self._say(f"{place:02d} {phase.name}: {made['steps']:,} steps, weights {made['weights'][:12]}")
        return replace(line, average=average), {"before": hash_of(past), "inputs": hash_of(inputs)}

    def _seed(self, place: int) -> int:
        return _seed(self._recipe, place)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Beside(_Walk):
    """The walk of a worker that is not the first: it trains along, and reads what that one has written."""

    def publisher(self, items: Items) -> None:
        return None

    @contextmanager
    def _first(self) -> Iterator[None]:
        self.workers.wait()
        yield

    def train(self, place: int, phase: Phase, line: Line, past: dict[str, Any]) -> tuple[Line, dict[str, Any]]:
        name = _folder(place, phase)
        tokens = {corpus: self._preparation.tokens(corpus, line.tokenizer) for corpus in phase.data.corpora}
        inputs = self._inputs(place, phase, past, tokens)
        if self._run.made(name, inputs, _is_whole) is None:
            measure = measurer(tokens, phase.length, self.machine)
            reader = phase.data.open(tokens)
            self._through(self._run.path / name, place, phase, line, reader, measure, lambda step: Unwatched())
        with self._first():
            made = self._run.made(name, inputs, _is_whole)
        assert made is not None, "the first worker has just written it"
        return self._after(place, phase, line, past, inputs, made)


def _folder(place: int, phase: Phase) -> str:
    return f"phases/{place:02d}-{phase.name}"


def _is_whole(folder: Path, made: dict[str, Any]) -> bool:
    """Whether a phase's last weights are what was written; if not, they are made again from its last checkpoint."""
    files = {name: folder / "final" / f"{name}.safetensors" for name in ("weights", "average")}
    return all(file.is_file() and sha256(file) == made[name] for name, file in files.items())


def _untrained(what: str, folder: Path) -> RunError:
    return RunError(
        f"{what} is not trained as the recipe says",
        where=str(folder),
        hint=f"train first, publishing never does: lilliput train {folder}",
    )
