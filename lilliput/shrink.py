"""A recipe at toy size: the same timeline, mixtures, schedules and optimizers, in a minute and without the network.

Only what costs is changed: widths, layers, vocabulary, lengths, steps and texts. A rehearsal finds what is broken about
a recipe, and says nothing about what it is worth.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from math import ceil
from typing import Any

from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.corpora.arithmetic import Arithmetic
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.documentation.installed import Installed
from lilliput.data.corpora.documentation.questions import DocumentationQuestions
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.hub import HubChats, HubText
from lilliput.data.corpora.hub_partitions import HubPartitions
from lilliput.data.corpora.pairs import HubPairs, PairFiles, ShuffledAnswers
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.pair_data import PairData
from lilliput.data.replies.asking import ANSWERS
from lilliput.data.split import Split
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.optim.schedule import CosineCycles, Schedule
from lilliput.recipe import Recipe, Release
from lilliput.tokenizer.bpe import BPE
from lilliput.train.phase import Phase, Stage, StepPlan, tokens_per_position

WIDTH, LAYERS, HEADS, INNER, VOCAB = 64, 4, 4, 128, 512
"""Four layers can be stacked, turned in every second one, and cut into four blocks."""
LENGTH, ROWS, STEPS = 256, 2, 12
"""Rows are long enough for a question and its answer in tokens of two characters; a short stage gets more steps."""
REHEARSAL = (
    "A rehearsal at toy size: its corpora are a little documentation under the recipe's names, unless they were "
    "pointed elsewhere, and no figure here says anything about the recipe."
)
REPLY = 24
"""Tokens that a release writes by itself."""
REPLIES = 200
"""Prompts that a teacher is asked: of several packages, so that not all of them are held out."""

# Small, of plain Python, and Lilliput depends on them.
TEXT = Installed(
    distributions=("jinja2", "packaging", "rich", "typer", "accelerate", "safetensors", "tokenizers"),
    python=False,
    package_bytes=30_000,
    workers=1,
)
QUESTIONS = DocumentationQuestions(source=TEXT, per_package=20)
SPLIT = Split(share=0.4)
"""Two of the seven packages are held out, jinja2 and rich: no version of them changes that."""


def shrink(recipe: Recipe) -> Recipe:
    """The recipe at toy size, under the same names.

    Corpora of the hub, of files and of installed packages become a little documentation of what is installed anyway,
    evaluation suites the quickstart's, and a teacher's replies the answers of its prompts' own corpus. Specs from
    elsewhere stay as they are: a mixer of yours must fit width 64.
    """
    return _smaller(recipe)


def _smaller(value: Any) -> Any:
    """A value with the rule for its kind applied, after those of its parts."""
    if isinstance(value, Mapping):
        return {key: _smaller(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_smaller(item) for item in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    old = {field.name: getattr(value, field.name) for field in fields(value)}
    new = {name: _smaller(part) for name, part in old.items()}
    changed = {name: part for name, part in new.items() if part != old[name]}
    return _by_rule(replace(value, **changed) if changed else value)


def _by_rule(spec: Any) -> Any:
    match spec:
        case ModelSpec():
            return replace(spec, vocab=VOCAB, width=WIDTH, layers=min(spec.layers, LAYERS))
        case GQA():
            kv_heads = max(1, HEADS * spec.kv_heads // spec.heads)
            return replace(spec, heads=HEADS, kv_heads=kv_heads, head_width=WIDTH // HEADS)
        case HGRN2():
            return replace(spec, heads=HEADS)
        case SwiGLU() | SwiGLU2():
            return replace(spec, inner=INNER)
        case BPE():
            return replace(spec, vocab=VOCAB)
        case Split():
            return SPLIT
        case TextFiles() | HubText() | HubPartitions() | Installed():
            return TEXT
        case ChatFiles() | HubChats() | DocumentationQuestions():
            return QUESTIONS
        case PairFiles() | HubPairs():
            return ShuffledAnswers(source=QUESTIONS)
        case PairData():
            return replace(spec, lost=1.0)  # rows are short, and a pair has its prompt twice
        case Arithmetic():
            return replace(spec, count=100)
        case Recipe():
            return replace(spec, about=f"{REHEARSAL} {spec.about}")
        case Teacher():
            return replace(spec, stand_in=ANSWERS, replies=REPLIES)
        case Phase():
            return _shorter(spec)
        case Release():
            suite = "quickstart-chat" if spec.chat else "quickstart"
            return replace(spec, suite=suite, generation=replace(spec.generation, max_new_tokens=REPLY))
    return spec


def _shorter(phase: Phase) -> Phase:
    """A phase of so few steps that every stage still has one, with the warm-up in proportion."""
    steps = max(STEPS, ceil(1 / min(stage.share for stage in phase.stages)))
    stages = in_rows_of(LENGTH, phase)
    return replace(
        phase,
        tokens=Tokens(ceil(steps * ROWS * LENGTH * tokens_per_position(stages, LENGTH))),
        stages=stages,
        length=LENGTH,
        batch_tokens=ROWS * LENGTH,
        schedule=in_proportion(phase.schedule, steps / StepPlan(phase).steps),
        save_every=Steps(steps // 2),
        measure_every=Share(1.0),  # at the end: four times took as long as all of the training
    )


def in_rows_of(length: int, phase: Phase) -> tuple[Stage, ...]:
    """Stages of a phase for rows of another length: those with rows of their own have them as short in proportion."""
    return tuple(
        stage if stage.length is None else replace(stage, length=max(1, stage.length * length // phase.length))
        for stage in phase.stages
    )


def in_proportion(schedule: Schedule, factor: float) -> Schedule:
    """A schedule whose durations in steps are `factor` times as long; those in shares need no change."""
    spec: Any = schedule
    if isinstance(schedule, CosineCycles):
        return replace(schedule, base=in_proportion(schedule.base, factor))
    durations = {field.name: getattr(spec, field.name) for field in fields(spec)}
    counted = {name: value for name, value in durations.items() if isinstance(value, Steps)}
    return replace(
        spec, **{name: Steps(max(min(1, value.count), round(value.count * factor))) for name, value in counted.items()}
    )
