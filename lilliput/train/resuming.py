"""A phase that resumes another one: it begins with the state which that one had before its decay.

A decayed learning rate is of no use to further training, and raising it again loses what the decay has won. So a phase
of a stable rate (`WarmupStableDecay`) keeps the checkpoint of the step at which its decay begins, in `before-decay/`
beside its other checkpoints: nothing falls back on it, and it outlives them. A phase that resumes goes on from there,
at the stable rate, as if the decay had never been, and has a decay of its own. Where there was no stable rate to go
back to (`Cosine`), or no decay (`Constant`), it goes on from the last checkpoint.

It may have other data, such as better text for the decay (MiniCPM, arXiv 2404.06395, section 4.3): those are read from
their beginning.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lilliput.base.errors import RecipeError, RunError
from lilliput.base.run_folder import differences
from lilliput.base.spec import to_plain
from lilliput.data.batch import Cursor
from lilliput.entry import TimelineEntry
from lilliput.train.checkpoint import Checkpoint, at_step, load
from lilliput.train.phase import Phase, StepPlan

BEFORE_DECAY = "before-decay"
"""The folder of that checkpoint, in the folder of a phase."""
CHECKPOINTS = "checkpoints"
SAME = ("optimizer", "ema")
"""Fields that both phases share: the state that is taken over is theirs."""


def check_resuming(phase: Phase, before: Phase | None, where: str) -> None:
    """Refuse a phase that cannot resume what it names.

    Args:
        phase: one that resumes another.
        before: the phase that comes before it with nothing but releases between them; None where none does.
        where: the recipe, for the error.

    Raises:
        RecipeError: it names another one, or its state would not fit.
    """
    what = f"the phase {phase.name!r} resumes {phase.resumes!r}"
    if before is None or before.name != phase.resumes:
        near = "no phase" if before is None else repr(before.name)
        raise RecipeError(
            f"{what}, but {near} comes right before it",
            where=where,
            hint="put it right after the phase that it resumes: only releases may come between them",
        )
    for name in SAME:
        changed = differences({name: to_plain(getattr(before, name))}, {name: to_plain(getattr(phase, name))})
        if changed:
            raise RecipeError(
                f"{what} with another state: {'; '.join(changed[:4])}",
                where=where,
                hint=f"give both phases the same {name}, or start afresh: remove resumes=",
            )
    begin = StepPlan(before).stable_until
    stable = None if begin is None else before.schedule(begin - 1, StepPlan(before).steps)
    first = phase.schedule(0, StepPlan(phase).steps)
    if stable is not None and first != stable:
        raise RecipeError(
            f"{what}, whose stable rate is {stable:g} of the peak, but its first step is at {first:g}",
            where=where,
            hint="leave the warm-up out, the phase before did it: schedule=WarmupStableDecay(warmup=Steps(0), ...)",
        )


def check_handed_on(entry: TimelineEntry, before: Phase | None, after: TimelineEntry | None, where: str) -> None:
    """Refuse an entry that hands an optimizer's state on, unless it stands between two phases with the same optimizer.

    Args:
        entry: of the timeline.
        before: the phase before it with nothing but releases between them; None if there is none.
        after: the entry after it, releases aside; None if there is none.
        where: the recipe, for the error.

    Raises:
        RecipeError: no phase would take the state over.
    """
    if before is not None and isinstance(after, Phase) and to_plain(after.optimizer) == to_plain(before.optimizer):
        return
    raise RecipeError(
        f"the optimizer's state cannot be handed on by {entry.describe()}",
        where=where,
        hint="put it right between two phases with the same optimizer (only releases may stand between them), or let "
        "the next phase begin with a fresh one",
    )


def continues_data(phase: Phase, before: Phase | None) -> bool:
    """Return whether a phase reads on where another one stood that it resumes; other data are read from the start."""
    return phase.resumes is not None and before is not None and to_plain(phase.data) == to_plain(before.data)


def place_of(phase: Phase, folder: Path) -> Path:
    """Return where the checkpoint is that a phase which resumes this one begins with.

    Args:
        phase: the one that is resumed.
        folder: it, in the run.
    """
    stable = StepPlan(phase).stable_until
    return at_step(folder / (CHECKPOINTS if stable is None else BEFORE_DECAY), StepPlan(phase).resumable)


def resume_point(phase: Phase, folder: Path, report: Callable[[str], None] = lambda line: None) -> Checkpoint:
    """Return the state that a phase which resumes this one begins with.

    Args:
        phase: the one that is resumed, trained to its end.
        folder: of that phase, in the run.
        report: called with one line that says which state it is.

    Raises:
        RunError: it is not there any more, or damaged.
    """
    report(f"resumes {described(phase)}")
    path = place_of(phase, folder)
    hint = "put it back from a copy, or begin another run with --out: what is trained here stays as it is"
    if not (path / "manifest.json").is_file():
        when = "at the end of" if StepPlan(phase).stable_until is None else "before the decay of"
        raise RunError(
            f"the state {when} {phase.name!r} is missing: it was cleaned away, or never kept (by older versions)",
            where=str(path),
            hint=hint,
        )
    try:
        return load(path)
    except RunError as error:
        raise RunError(error.what, where=error.where, hint=hint) from error


def resumed_state(phase: Phase, before: Phase, folder: Path, report: Callable[[str], None]) -> Checkpoint:
    """Return the state that a phase begins with: that of the phase it resumes, at the start of data of its own.

    Args:
        phase: one that resumes another.
        before: that one.
        folder, report: see `resume_point`.
    """
    state = resume_point(before, folder, report)
    if continues_data(phase, before):
        return state
    return replace(state, progress=replace(state.progress, cursor=Cursor()))


def described(before: Phase) -> str:
    """Return where a phase that resumes this one begins, in words."""
    plan = StepPlan(before)
    if plan.stable_until is not None:
        return f"from step {plan.stable_until:,} of {before.name}, before its decay"
    return f"from the end of {before.name}, whose schedule has no stable rate with a decay to go back before"
