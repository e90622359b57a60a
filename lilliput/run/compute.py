"""Carries out computations of a timeline: once, with the hash of every file in the run, resumed after a kill."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError
from lilliput.base.files import hash_of, sha256
from lilliput.base.ownership import foreign
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.computations.computation import Computation
from lilliput.growth.growth import Computed
from lilliput.publish.lineage import after_part
from lilliput.run.context import RunContext
from lilliput.run.prepare import Preparation
from lilliput.run.reproducibility import began_on
from lilliput.run.steps import Reached, Step, recorded_code


def computation_step(context: RunContext, preparation: Preparation, *, computes: bool) -> Step:
    """Return the step that computes an entry unless it is computed, for all entries after it to depend on.

    Args:
        context: of the run.
        preparation: opens token files.
        computes: whether it may compute; if not, an entry that is not computed is an error.
    """
    run = context.run

    def compute(index: int, entry: Computation, reached: Reached, tokens: Mapping[str, Any], folder: Path) -> Any:
        name = entry.part(index)
        context.note_changes(entry.describe(), name)
        folder.mkdir(parents=True, exist_ok=True)
        value = entry.compute(reached.lineage, tokens, folder, machine=context.machine, seed=context.seed(index))
        _refuse_strange(run, name)
        return {"value": value, "files": {path.name: sha256(path) for path in sorted(folder.iterdir())}}

    def step(index: int, entry: Computation, reached: Reached) -> Reached:
        name = entry.part(index)
        tokens = {name: preparation.tokens(name, reached.lineage.tokenizer) for name in entry.reads()}
        inputs = {
            "before": reached.provenance,
            entry.kind: to_plain(entry),
            "seed": context.seed(index),
            "machine": began_on(run),
            "tokens": {name: files.index["sha256"] for name, files in tokens.items()},
        } | recorded_code(run, context.recipe, index, name)

        with context.written_first():
            if computes and context.writes:
                run.refuse_change(name, inputs)
                with run.part(name, inputs, is_intact) as part:
                    if part.is_missing:
                        part.outputs = compute(index, entry, reached, tokens, part.folder)
                outputs = part.outputs
            else:
                outputs = run.outputs(name, inputs, is_intact)
        if outputs is None:
            raise RunError(
                f"{entry.describe()}, is not computed as the recipe says",
                where=str(run.path / name),
                hint=f"compute it first, publishing never does: lilliput train {run.path}",
            )
        context.say(f"{index:02d} {entry.describe()}: computed")
        computed = Computed(value=outputs["value"], folder=run.path / name)
        lineage = replace(reached.lineage, computed={**reached.lineage.computed, entry.name: computed})
        return replace(reached, lineage=lineage, provenance=after_part(reached.provenance, hash_of(inputs)))

    return step


def is_intact(folder: Path, outputs: dict[str, Any]) -> bool:
    """Return whether every file of a computation is what was written."""
    files = outputs["files"].items()
    return all((folder / name).is_file() and sha256(folder / name) == expected for name, expected in files)


def check_intact(folder: Path, outputs: dict[str, Any]) -> None:
    """Refuse files of a computation that are not what was written.

    Raises:
        RunError: they are not.
    """
    if not is_intact(folder, outputs):
        raise RunError(
            "the files of the computation are not those that were written",
            where=str(folder),
            hint="put them back from a copy, or compute it again: lilliput train on the run does",
        )


def _refuse_strange(run: RunFolder, part: str) -> None:
    if strange := foreign(run.path, part):
        raise RunError(
            f"the computation wrote files that no run writes: {', '.join(strange[:4])}",
            where=str(run.path / part),
            hint="write .json, .jsonl, .bin or .safetensors files with lower-case names, in no folder of their own",
        )
