"""The steps of a timeline, one for each kind of entry: from what was reached before an entry to what is after it.

Phases are the runner's own. A kind that is not in its table has no step, and a recipe with one is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lilliput.base.code_hash import definitions
from lilliput.base.errors import RecipeError
from lilliput.base.files import hash_of
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.growth.growth import Growth, Lineage
from lilliput.publish.lineage import after_growth
from lilliput.recipe import Recipe, Release
from lilliput.run.context import RunContext
from lilliput.run.prepare import Preparation
from lilliput.run.release import Publisher
from lilliput.tokenizer.bpe import tokenizer_hash
from lilliput.train.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The state of a run between two entries of its timeline."""

    lineage: Lineage
    provenance: dict[str, Any]
    """The provenance: a JSON value that changes if anything before does."""
    phases: tuple[str, ...] = ()
    """Parts of the run, one a phase."""
    releases: tuple[Path, ...] = ()
    """Folders."""


def beginning(recipe: Recipe, tokenizer: Tokenizer, machine: Machine) -> Reached:
    """Return the state of a run before the first entry: the model with its first weights, on a machine's device."""
    model = recipe.model.build(recipe.seed).to(machine.device)
    provenance = {"model": recipe.model.identity(), "seed": recipe.seed, "tokenizer": tokenizer_hash(tokenizer)}
    return Reached(lineage=Lineage(model=model, tokenizer=tokenizer, average={}), provenance=provenance)


Step = Callable[[int, Any, Reached], Reached]
"""Given the index of an entry in the timeline, the entry, and what was reached before it."""


def check_steps(recipe: Recipe, steps: Mapping[str, Step]) -> None:
    """Refuse a recipe with an entry that nothing carries out.

    Raises:
        RecipeError: it has one.
    """
    for index, entry in enumerate(recipe.timeline):
        if entry.kind not in steps:
            raise RecipeError(
                f"{type(entry).__name__} is of the kind {entry.kind!r:.80}, which nothing carries out",
                where=f"timeline.{index} of recipe {recipe.name!r}",
                hint=f"one of: {', '.join(steps)}; another kind needs a step of its own in lilliput/run/steps.py",
            )


def entry_code(recipe: Recipe, index: int) -> dict[str, str]:
    """Return the hashes of own code that decides an entry: of each part from a recipe file until it."""
    return definitions(recipe.up_to(index).without_releases())


def recorded_code(run: RunFolder, recipe: Recipe, index: int, part: str) -> dict[str, dict[str, str]]:
    """Return the code among the inputs of a part: that it was begun with, as `check_code_unchanged` records changes.

    Args:
        run: with the part's record.
        recipe: of the run.
        index: of the entry in the timeline.
        part: its name in the run.
    """
    recorded = run.record(part).get("from")
    code = recorded.get("code", {}) if recorded else entry_code(recipe, index)
    return {"code": code} if code else {}


def growth_step(context: RunContext) -> Step:
    """Return the step that changes the model."""

    def step(index: int, entry: Growth, reached: Reached) -> Reached:
        seed = context.seed(index)
        lineage = entry.grow(reached.lineage, seed)
        context.say(f"{index:02d} {entry.describe()}: {lineage.model.parameter_counts()['total']:,} parameters")
        provenance = after_growth(reached.provenance, to_plain(entry), seed)
        return replace(reached, lineage=lineage, provenance=provenance)

    return step


def release_step(context: RunContext, preparation: Preparation, publisher: Publisher | None) -> Step:
    """Return the step that publishes the model as it is; without a publisher, it does nothing."""

    def step(index: int, entry: Release, reached: Reached) -> Reached:
        if publisher is None:
            return reached
        heldout, *chats = (preparation.tokens(name, reached.lineage.tokenizer) for name in entry.reads())
        folder = publisher.publish(
            entry,
            reached.lineage,
            provenance=hash_of(reached.provenance),
            phases=reached.phases,
            heldout=heldout,
            chats=chats[0] if chats else None,
        )
        context.report()
        return replace(reached, releases=(*reached.releases, folder))

    return step
