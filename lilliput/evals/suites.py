"""Evaluation suites: named lists of tasks, with the metrics on the card and the chance level."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lilliput.base.errors import RecipeError
from lilliput.base.spec import LATER
from lilliput.evals.averages import ARC_ACC, ARC_ACC_NORM, AVG_SLM, HEADLINE, INTELLIGENCE_INDEX, Average, mean
from lilliput.evals.minimal_pairs import PHENOMENA

Likelihood = Literal["joined", "apart", "apart, per token"]
"""Encoding of context and choice: encoded as one text; encoded one by one, which no merge of the tokenizer can
blur; or so with the mean over the choice's tokens instead of their sum."""


@dataclass(frozen=True, kw_only=True)
class TaskUse:
    """One lm-evaluation-harness task as a suite reports it."""

    task: str
    """The harness's name."""
    shipped: str | None = None
    """Folder under the harness's own tasks whose file defines it; None for a file in our `tasks/`."""
    metrics: tuple[str, ...]
    """Metrics from the task's file, the card's own first."""
    chance: float | None
    """Chance level; None if guessing is impossible."""
    majority: float | None = None
    """Score of always giving the commonest answer, if above the chance level."""
    likelihood: Likelihood = "joined"
    display: str
    """The name on the card."""
    num_fewshot: int = field(default=0, metadata=LATER)
    """Solved questions before each one that is asked."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The tasks of one results table."""

    name: str
    tasks: tuple[TaskUse, ...] = ()
    """On public questions: the suite cannot be had without them."""
    optional: tuple[TaskUse, ...] = ()
    """On public questions that few have: asked where their file is there."""
    made: tuple[TaskUse, ...] = ()
    """On items that Lilliput makes itself: asked where they were made."""
    averages: tuple[Average, ...] = ()
    limit: int | None = None
    """Ask only the first so many questions of each task; None asks all."""

    @property
    def uses(self) -> tuple[TaskUse, ...]:
        """All tasks, whether they can be had or not."""
        return (*self.tasks, *self.optional, *self.made)

    def with_fewshot(self, count: int) -> "Suite":
        """The suite with so many solved questions before each of its public ones; averages are of other scores then.

        Raises:
            RecipeError: the number is below 0.
        """
        if count < 0:
            raise RecipeError(f"num_fewshot is {count}", where="--num-fewshot", hint="give 0 or more examples")
        tasks, optional = (
            tuple(replace(use, num_fewshot=count) for use in uses) for uses in (self.tasks, self.optional)
        )
        return replace(self, tasks=tasks, optional=optional, averages=self.averages if count == 0 else ())

    def only(self, names: Sequence[str]) -> "Suite":
        """The suite restricted to some of its tasks, by the harness's names; all of them must be had then.

        Raises:
            RecipeError: the suite has no such task.
        """
        known = {use.task: use for use in self.uses}
        for name in names:
            if name not in known:
                raise _unknown("task", name, list(known), f"evaluation suite {self.name!r}")
        return replace(
            self,
            tasks=tuple(use for use in (*self.tasks, *self.optional) if use.task in names),
            optional=(),
            made=tuple(use for use in self.made if use.task in names),
        )


HELDOUT = TaskUse(
    task="heldout_bits_per_byte", metrics=("bits_per_byte",), chance=None, display="held-out text, bits per byte"
)
ARITHMARK2_SYNTHETIC = TaskUse(
    task="arithmark2_synthetic", metrics=("acc",), chance=0.25, likelihood="apart", display="arithmark2-synthetic"
)
ARITHMARK2 = TaskUse(task="arithmark2", metrics=("acc",), chance=0.25, likelihood="apart", display="ArithMark-2.0")
ARITHMARK3 = TaskUse(
    task="arithmark3", metrics=("acc",), chance=0.25, likelihood="apart, per token", display="ArithMark-3"
)

_GRAMMAR_USES = tuple(
    TaskUse(
        task=f"grammar_{phenomenon}",
        metrics=("acc",),
        chance=0.5,
        display=f"grammar: {phenomenon.replace('_', ' ')}",
    )
    for phenomenon in PHENOMENA
)

NORM_FIRST, ACC_FIRST = ("acc_norm", "acc"), ("acc", "acc_norm")

HELLASWAG = TaskUse(task="hellaswag", shipped="hellaswag", metrics=NORM_FIRST, chance=0.25, display="HellaSwag")
ARC_EASY = TaskUse(task="arc_easy", shipped="arc", metrics=NORM_FIRST, chance=0.25, display="ARC-Easy")
ARC_CHALLENGE = TaskUse(task="arc_challenge", shipped="arc", metrics=NORM_FIRST, chance=0.25, display="ARC-Challenge")
PIQA = TaskUse(task="piqa", shipped="piqa", metrics=NORM_FIRST, chance=0.5, display="PIQA")
COPA = TaskUse(task="copa", shipped="super_glue/copa", metrics=("acc",), chance=0.5, majority=0.55, display="COPA")
BOOLQ = TaskUse(
    task="boolq", shipped="super_glue/boolq", metrics=("acc",), chance=0.5, majority=0.6217, display="BoolQ"
)
WSC = TaskUse(
    task="wsc",
    shipped="super_glue/wsc",
    metrics=("acc",),
    chance=0.5,
    majority=0.6346,
    display="Winograd (SuperGLUE WSC)",
)
WSC273 = TaskUse(task="wsc273", shipped="wsc273", metrics=("acc",), chance=0.5, display="Winograd (WSC273)")
WINOGRANDE = TaskUse(task="winogrande", shipped="winogrande", metrics=("acc",), chance=0.5, display="WinoGrande")
AQUA_RAT = TaskUse(
    task="agieval_aqua_rat", shipped="agieval", metrics=ACC_FIRST, chance=0.2, display="AQuA-RAT (AGIEval)"
)
OPENBOOKQA = TaskUse(task="openbookqa", shipped="openbookqa", metrics=NORM_FIRST, chance=0.25, display="OpenBookQA")
COMMONSENSE_QA = TaskUse(
    task="commonsense_qa", shipped="commonsense_qa", metrics=("acc",), chance=0.2, display="CommonsenseQA"
)
# Questions of TruthfulQA have 2 to 13 choices; these are the means over its 817 questions.
TRUTHFULQA_MC1 = TaskUse(
    task="truthfulqa_mc1", shipped="truthfulqa", metrics=("acc",), chance=0.2225, display="TruthfulQA MC1"
)
TRUTHFULQA_MC2 = TaskUse(
    task="truthfulqa_mc2", shipped="truthfulqa", metrics=("acc",), chance=0.4641, display="TruthfulQA MC2"
)

QUICKSTART = Suite(name="quickstart", made=(HELDOUT, ARITHMARK2_SYNTHETIC))

OWN_TEXT = Suite(name="own-text", made=(HELDOUT,))
"""Suite for texts of any kind and language: bits per byte of what was held out of them, and nothing else."""

OWN_CHAT = Suite(name="own-chat", made=(HELDOUT,))
"""The same; replies to held-out conversations are judged besides."""

QUICKSTART_CHAT = Suite(name="quickstart-chat", made=(ARITHMARK2_SYNTHETIC,))
"""Suite of a release that is judged by its replies; bits per byte of raw text say little about it."""

OPEN_SLM = Suite(
    name="open-slm",
    tasks=(HELLASWAG, ARC_EASY, ARC_CHALLENGE, PIQA),
    optional=(ARITHMARK2, ARITHMARK3),
    made=(HELDOUT, ARITHMARK2_SYNTHETIC),
    averages=(AVG_SLM, HEADLINE, ARC_ACC, ARC_ACC_NORM, INTELLIGENCE_INDEX),
)
"""The Open SLM Leaderboard and the SLM-10M card. Our look-alike arithmetic is shown apart and is in no average."""

ODINNEXT = Suite(
    name="odinnext",
    tasks=(HELLASWAG, *(replace(use, metrics=ACC_FIRST) for use in (ARC_EASY, ARC_CHALLENGE, PIQA))),
    made=(HELDOUT,),
    averages=(ARC_ACC, ARC_ACC_NORM),
)
"""The OdinNext card: HellaSwag acc_norm, ARC as the mean of both accs, PIQA acc."""

MTLM = Suite(
    name="mtlm",
    tasks=(
        COPA,
        BOOLQ,
        WINOGRANDE,
        AQUA_RAT,
        OPENBOOKQA,
        COMMONSENSE_QA,
        ARC_EASY,
        ARC_CHALLENGE,
        HELLASWAG,
        TRUTHFULQA_MC1,
        TRUTHFULQA_MC2,
    ),
    optional=(WSC, WSC273),
    made=(HELDOUT,),
)
"""The MTLM card's twelve, and WSC273 in a row of its own. The card's "Winograd" of 43.27% is 45 of SuperGLUE's 104, of
which few have the file; WSC273 has no such share."""

GRAMMAR = Suite(
    name="grammar",
    made=_GRAMMAR_USES,
    averages=(mean("grammar", "mean over the phenomena, acc", [use.task for use in _GRAMMAR_USES], "acc"),),
)
"""English grammar in generated minimal pairs; it needs no file and no network."""

SMOKE = Suite(name="smoke", tasks=OPEN_SLM.tasks, made=(ARITHMARK2_SYNTHETIC,), limit=100)
"""Smoke test of minutes; its figures say little about the model."""

SUITES = {
    suite.name: suite
    for suite in (QUICKSTART, QUICKSTART_CHAT, OWN_TEXT, OWN_CHAT, OPEN_SLM, ODINNEXT, MTLM, GRAMMAR, SMOKE)
}
"""Suites by the name that recipes and people type."""
SUITE = OPEN_SLM.name
"""The one that is asked where none is named."""


def named(name: str) -> Suite:
    """The suite of this name.

    Raises:
        RecipeError: there is none.
    """
    if name in SUITES:
        return SUITES[name]
    raise _unknown("evaluation suite", name, sorted(SUITES), "the `suite` of a release, or --suite")


def _unknown(kind: str, name: str, known: list[str], where: str) -> RecipeError:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"nearest names: {', '.join(near)}" if near else f"there are: {', '.join(known)}"
    return RecipeError(f"there is no {kind} {name!r}", where=where, hint=hint)
