"""Lines printed before a phase trains: where it resumes, its passes over the data, its units."""

from lilliput.data.formats import format_of
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.recipe import Recipe
from lilliput.train.phase import Phase

MANY = 10
"""Passes over the same text that are warned of; up to four lose little (Muennighoff et al., arXiv 2305.16264)."""


def resuming(step: int, steps: int, left_at: int) -> str:
    """Return where a phase that was interrupted after step `left_at` resumes, in words."""
    if not step:
        return f"begins again: it was interrupted at step {left_at:,}, before its first checkpoint"
    lost = f"; it was interrupted at step {left_at:,}, and this is its last checkpoint" if left_at > step else ""
    return f"resumes at step {step:,} of {steps:,}{lost}"


def units(recipe: Recipe, phase: Phase) -> str:
    """Return what the held-out numbers of a phase are in, by corpus."""
    named: dict[str, list[str]] = {}
    for name in phase.data.corpora:
        named.setdefault(format_of(recipe.corpora[name]).unit, []).append(name)
    text = "; ".join(f"{', '.join(names)} in {unit}" for unit, names in named.items())
    others = {one.objective.headline: None for one in phase.stages if one.objective.headline != CROSS_ENTROPY}
    if others:
        text = f"{', '.join(others)} of {', '.join(phase.data.corpora)}"
    return f"held-out {text}, lower is better"


def passes(recipe: Recipe, phase: Phase, available: int) -> str:
    """Return how often a phase reads what there is, and what to do where that is too often."""
    count = int(phase.tokens) / max(1, available)
    text = f"reads {int(phase.tokens):,} tokens, {count:.{1 if count >= 0.1 else 3}f} passes over {available:,}"
    is_packed = any(format_of(recipe.corpora[name]).packs_rows for name in phase.data.corpora)
    text += " (whole rows, with their empty ends)" if is_packed else ""
    if count < MANY:
        return text
    return f"{text}; so many teach it by heart: --set timeline.{phase.name}.tokens={4 * available} makes it four"
