"""Training a recipe, or a run that has finished, for longer: `--more-tokens` adds a phase that resumes another one.

lilliput train runs/slm-10m --more-tokens 5e9               after the last phase
lilliput run quickstart --more-tokens pretrain=1e6          after one by name; what follows it is trained on that
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.run_folder import RunFolder
from lilliput.base.units import Tokens
from lilliput.optim.schedule import resumed_schedule
from lilliput.recipe import Recipe, unknown
from lilliput.train.phase import Phase, StepPlan, phase_folder
from lilliput.train.resuming import described, resume_point

OPTION = "--more-tokens"


def with_more_tokens(recipe: Recipe, more: Sequence[str]) -> Recipe:
    """The recipe with phases that resume others, one after another.

    Args:
        recipe: what to change.
        more: of each new phase its text tokens, `1e6`, to resume the last phase there is, or `pretrain=1e6`.

    Raises:
        LilliputError: a text is not a number of tokens, or the phase is resumed already.
        RecipeError: there is no such phase, or the new one would end before the decay that it replaces.
    """
    for text in more:
        recipe = _longer(recipe, text)
    return recipe


def _longer(recipe: Recipe, text: str) -> Recipe:
    name, tokens = _read(text)
    phases = {phase.name: index for index, phase in recipe.phases.items()}
    name = name or next(reversed(phases), "")
    if name not in phases:
        raise unknown("phase", name, list(phases), f"{OPTION} {text}, recipe {recipe.name!r}")
    index = phases[name]
    after = recipe.resumed_by(index)
    if after is not None:
        later = recipe.phases[after]
        raise LilliputError(
            f"the phase {name!r} is resumed already, by {later.name!r}",
            where=f"{OPTION} {text}",
            hint=f"resume that one: {OPTION} {later.name}={tokens:g}",
        )
    before = recipe.phases[index]
    phase = resuming(before, Tokens(tokens), {getattr(entry, "name", "") for entry in recipe.timeline})
    _refuse_shorter(phase, before, text)
    return replace(recipe, timeline=(*recipe.timeline[: index + 1], phase, *recipe.timeline[index + 1 :]))


def resuming(before: Phase, tokens: Tokens, taken: set[str]) -> Phase:
    """The phase that goes on where another one stood before its decay, under the objective that this ended with.

    Args:
        before: what is resumed.
        tokens: text tokens to read from there on, those of a decay of its own among them.
        taken: names that it may not have.
    """
    stem, _, number = before.name.rpartition("-")
    numbered = before.resumes is not None and number.isdecimal()
    first = int(number) + 1 if numbered else 2
    names = (f"{stem if numbered else before.name}-{number}" for number in count(first))
    return replace(
        before,
        name=next(name for name in names if name not in taken),
        tokens=tokens,
        stages=(replace(before.stages[-1], share=1.0),),
        schedule=resumed_schedule(before.schedule),
        resumes=before.name,
    )


def refuse_unfinished(run: RunFolder, before: Recipe, recipe: Recipe) -> None:
    """Refuse to lengthen phases of a run that are not trained to their end, or whose state is not there any more.

    Args:
        run: read, not written.
        before: its recipe as it is.
        recipe: the same with more phases.

    Raises:
        RunError: a phase that a new one resumes is such a phase.
    """
    added = _added(before, recipe)
    for index in added:
        resumed_index, resumed = _resumed(recipe, index)
        if resumed_index in added:
            continue
        part = phase_folder(resumed_index, resumed)
        if not run.record(part).get("done"):
            raise RunError(
                f"the phase {resumed.name!r} is not finished, so it cannot be trained for longer yet",
                where=str(run.path / part),
                hint=f"finish it: lilliput train {run.path}; then give {OPTION} again",
            )
        resume_point(resumed, run.path / part)


def announced(before: Recipe, recipe: Recipe) -> list[str]:
    """Return what becomes of a run whose recipe gets more phases, in lines."""
    added = _added(before, recipe)
    lines = []
    for index in added:
        phase = recipe.phases[index]
        lines.append(f"{phase.name}: {int(phase.tokens):,} tokens {described(_resumed(recipe, index)[1])}")
    for index, phase in recipe.phases.items():
        if index > added[0] and index not in added:
            lines.append(f"{phase.name}: trained again after that; its former weights stay in the run folder")
    return lines


def _added(before: Recipe, recipe: Recipe) -> list[int]:
    """The indices of phases that a recipe did not have."""
    known = {phase.name for phase in before.phases.values()}
    return [index for index, phase in recipe.phases.items() if phase.name not in known]


def _resumed(recipe: Recipe, index: int) -> tuple[int, Phase]:
    """The phase that the one at an index resumes, and its own index."""
    found = recipe.phase_before(index)
    assert found is not None, "a recipe has no phase that resumes none"
    return found


def _refuse_shorter(phase: Phase, before: Phase, text: str) -> None:
    plan, new = StepPlan(before), StepPlan(phase)
    left = plan.steps - plan.resumable
    if new.steps <= left:
        least = (left + 1) * new.tokens(0)
        raise LilliputError(
            f"{int(phase.tokens):,} more tokens would not train longer than {before.name!r} did: they count "
            f"from step {plan.resumable:,} of {plan.steps:,}, where its decay begins",
            where=f"{OPTION} {text}",
            hint=f"give {least:,} or more",
        )


def _read(text: str) -> tuple[str, float]:
    name, equals, number = text.rpartition("=")
    try:
        tokens = float(number)
    except ValueError:
        tokens = math.nan
    if not 1 <= tokens < math.inf or (equals and not name):
        raise LilliputError(
            f"{text!r} is not a number of tokens",
            where=OPTION,
            hint=f"write e.g. {OPTION} 1e6, or {OPTION} pretrain=1e6 for a phase other than the last",
        )
    return name, tokens
