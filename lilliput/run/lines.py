"""A sweep of LiNeS over what a run has trained: what going back to pretrained weights costs, and what it saves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError
from lilliput.base.run_folder import RunFolder
from lilliput.data.chat_format import CHATS
from lilliput.data.formats import format_of
from lilliput.data.text_format import TEXT
from lilliput.evals.answer_bits import answer_bits, bits_score
from lilliput.growth.lines import LiNeS, Weights, scaled, weights_of
from lilliput.growth.use_ema import UseEma
from lilliput.model import LanguageModel, copy_weights
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.recipe import Recipe, read_recipe, unknown
from lilliput.run.trained import read_trained
from lilliput.run.trained_phase import TrainedPhase
from lilliput.tokenizer.specials import vocabulary_size
from lilliput.train.machine import Machine
from lilliput.train.trainable import Trainable
from lilliput.train.validation import make_validator

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
POSITIONS = 262_144
"""Measured of each held-out text at most."""


@dataclass(frozen=True, kw_only=True)
class LiNeSPoint:
    """Held-out figures of one setting; lower is better."""

    alpha: float
    beta: float
    texts: dict[str, float | None]
    """Bits per byte of text, by corpus."""
    answers: float | None
    """Bits per byte of held-out answers; None without conversations."""
    answers_stderr: float | None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return dict(vars(self))


def sweep_lines(
    folder: Path,
    *,
    phase: str | None = None,
    alphas: Sequence[float] = ALPHAS,
    weights: Weights | None = None,
    limit: int = 200,
    device: str = "auto",
    report: Callable[[str], None] = lambda line: None,
) -> tuple[LiNeS, list[LiNeSPoint]]:
    """Return the growth with the first alpha, and the figures at each alpha, with beta = 1 - alpha.

    At alpha 1 the model is the tuned one. The first layer is the pretrained one at alpha 0.

    Args:
        folder: of a run that is trained.
        phase: with the pretrained weights; the first one of the timeline by default.
        alphas: shares of the change that the first layer keeps.
        weights: of the phase; by default those that the timeline went on from.
        limit: held-out conversations whose answers are measured.
        device: as of machines.
        report: called with what is about to be done.

    Raises:
        RunError: the run has trained a single phase, or holds no corpus to measure on.
        RecipeError: there is no such phase, or it has another shape.
    """
    recipe, run, trained = read_recipe(folder), RunFolder(folder), read_trained(folder)
    index, weights = _pretrained(recipe, phase, weights)
    first = recipe.phases[index]
    if trained.phase == first:
        raise RunError(
            f"nothing is trained after {first.name!r}", where=str(folder), hint="name an earlier phase: --phase NAME"
        )
    machine = Machine(device=device).resolved()
    model = trained.published.model.to(machine.device)
    before = weights_of(TrainedPhase(run, index, first), weights, f"the phase {first.name!r}")
    known = vocabulary_size(trained.published.tokenizer)
    measure = _measure(recipe, folder, trained.published.tokenizer, trained.published.context, machine, limit)
    tuned = {name: one.detach().clone() for name, one in model.named_parameters()}
    points = []
    for alpha in alphas:
        report(f"alpha {alpha:g}")
        copy_weights(model, tuned)
        copy_weights(model, scaled(model, before, alpha=alpha, beta=1 - alpha, known=known))
        texts, answers = measure(model)
        value, stderr = (answers.value, answers.stderr) if answers else (None, None)
        points.append(LiNeSPoint(alpha=alpha, beta=1 - alpha, texts=texts, answers=value, answers_stderr=stderr))
    return LiNeS(phase=first.name, alpha=alphas[0], beta=1 - alphas[0], weights=weights), points


def _pretrained(recipe: Recipe, phase: str | None, weights: Weights | None) -> tuple[int, Weights]:
    """Return the index of the phase, and which of its weights the timeline went on from."""
    named = {one.name: index for index, one in recipe.phases.items()}
    if phase is not None and phase not in named:
        raise unknown("phase", phase, list(named), f"recipe {recipe.name!r}")
    index = named[phase] if phase is not None else min(recipe.phases)
    after = recipe.timeline[index + 1 : index + 2]
    return index, weights or ("average" if any(isinstance(entry, UseEma) for entry in after) else "last")


def _measure(recipe: Recipe, folder: Path, tokenizer: Any, context: int, machine: Machine, limit: int) -> Any:
    """Return what measures a model: held-out texts by corpus, and the score of held-out answers."""
    texts, conversations = {}, []
    for name, corpus in recipe.corpora.items():
        shards, format = folder / "shards" / name, format_of(corpus)
        if format not in (TEXT, CHATS) or not (shards / "index.json").is_file():
            continue
        opened: Any = format.open(shards, None, None)
        if format is TEXT and opened.heldout_size:
            texts[name] = opened
        if format is CHATS:
            conversations += [messages for _, messages in opened.heldout_conversations()]
    if not texts and not conversations:
        raise RunError(
            "the run has no held-out texts or conversations", where=str(folder), hint="train it again, or put them back"
        )
    validate = make_validator(texts, context, machine, POSITIONS)

    def measure(model: LanguageModel) -> Any:
        objective = Trainable.of_phase(model, [NextToken()], seed=0).objective(0)
        found = answer_bits(model, tokenizer, conversations[:limit], context=context) if conversations else []
        return validate(objective, CROSS_ENTROPY), bits_score("held-out conversations", found) if found else None

    return measure
