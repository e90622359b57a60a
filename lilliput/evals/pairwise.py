"""Pairwise judging: another model says which of two replies to the same question is the better one.

Judges prefer what they read first (arXiv 2306.05685), so each pair is asked in both orders. A win in both is one, a win
in one order alone is none: two orders that contradict each other are half a win, as a tie is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lilliput.data.messages import Message
from lilliput.data.replies.prompts import Prompt
from lilliput.evals.judge import QUESTION
from lilliput.evals.score import NORMAL_95, mean_stderr

ASKED = """\
Two assistants answered the same question. Which answer is better: more correct, more helpful, of the right length?
Judge the answers alone, and not their order.

[Question]
{question}

[Answer A]
{first}

[Answer B]
{second}

Reply with one letter and nothing else: A if answer A is better, B if answer B is better, C if they are equally good."""
"""Text that a judge is asked with."""
FIRST, SECOND, TIE = "A", "B", "C"
_VERDICT = re.compile(r"(?<![A-Za-z])[ABC](?![A-Za-z'’])")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Replies of two models to a question."""

    question: str
    reply: str
    """Reply of the model that is compared."""
    other: str
    """Reply of the one that it is compared with."""

    def prompts(self, judge: str, number: int) -> tuple[Prompt, Prompt]:
        """The pair in both orders; the compared model's reply is the first one of the first.

        Args:
            judge: name of the model that is asked.
            number: of the first prompt.
        """
        first, second = ((self.reply, self.other), (self.other, self.reply))
        return self._prompt(judge, number, *first), self._prompt(judge, number + 1, *second)

    def _prompt(self, judge: str, number: int, first: str, second: str) -> Prompt:
        text = ASKED.format(question=self.question, first=first, second=second)
        return Prompt(number=number, messages=(Message("user", text),), id=str(number), group=judge, own_answer=None)


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """Verdicts on a model's replies beside those of another."""

    model: str
    other: str
    value: float | None
    """Share of wins, where a tie is half of one; None without a verdict."""
    stderr: float | None
    """One standard error over the questions; None where they tell none."""
    questions: int
    """Questions with verdicts in both orders."""
    wins: int
    losses: int
    ties: int
    """Ties in both orders, or in one of them."""
    contradictions: int
    """Questions where another order is another winner."""
    first: float | None
    """Share of verdicts for the first answer among those for one of them: half, of a judge without a preference."""
    unjudged: int
    """Questions without a verdict in both orders."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of 95%, within 0 and 1; None without a standard error."""
        if self.value is None or self.stderr is None:
            return None
        margin = NORMAL_95 * self.stderr
        return max(0.0, self.value - margin), min(1.0, self.value + margin)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return dict(vars(self)) | {"interval": self.interval}


def comparisons(judged: Mapping[str, Any], other: Mapping[str, Any]) -> list[Comparison]:
    """Return the held-out questions that two models replied to, or else all prompts that both did.

    Args:
        judged: `Judged.plain` of the model.
        other: the same of the one that it is compared with.
    """
    pairs = [(_by_prompt(judged["replies"], kind), _by_prompt(other["replies"], kind)) for kind in (QUESTION, None)]
    replies, others = next((pair for pair in pairs if pair[0].keys() & pair[1].keys()), pairs[-1])
    return [
        Comparison(question=prompt, reply=replies[prompt], other=others[prompt])
        for prompt in replies
        if prompt in others
    ]


def _by_prompt(replies: Sequence[Mapping[str, Any]], kind: str | None) -> dict[str, str]:
    return {one["prompt"]: one["reply"] for one in replies if kind in (None, one["kind"])}


def verdict(text: str) -> str | None:
    """Return the only letter of the last line, whatever stands before it; None if it has none, or several."""
    lines = text.strip().splitlines()
    found = set(_VERDICT.findall(lines[-1])) if lines else set()
    return found.pop() if len(found) == 1 else None


def win_rate(
    model: str, other: str, compared: Sequence[Comparison], verdicts: Mapping[str, str], judge: str
) -> WinRate:
    """Count what a judge said.

    Args:
        model: name of the compared model.
        other: name of the one that it is compared with.
        compared: the pairs; equal replies are a tie, without a question.
        verdicts: replies of the judge by the keys of prompts.
        judge: its name.
    """
    points: list[float] = []
    counts = {"wins": 0, "losses": 0, "ties": 0, "contradictions": 0}
    firsts: list[bool] = []
    for one in compared:
        if one.reply == one.other:
            points.append(0.5)
            counts["ties"] += 1
            continue
        said = [verdict(verdicts.get(prompt.key, "")) for prompt in one.prompts(judge, 0)]
        firsts += [each == FIRST for each in said if each in (FIRST, SECOND)]
        if None in said:
            continue
        gained = (_POINTS[said[0]], 1 - _POINTS[said[1]])
        points.append(fmean(gained))
        counts[_outcome(*gained)] += 1
    return WinRate(
        model=model,
        other=other,
        value=fmean(points) if points else None,
        stderr=mean_stderr(points),
        questions=len(points),
        first=fmean(firsts) if firsts else None,
        unjudged=len(compared) - len(points),
        **counts,
    )


_POINTS: dict[str | None, float] = {FIRST: 1.0, SECOND: 0.0, TIE: 0.5}


def _outcome(one: float, other: float) -> str:
    if one == other:
        return {1.0: "wins", 0.0: "losses", 0.5: "ties"}[one]
    return "ties" if 0.5 in (one, other) else "contradictions"


def prompts_of(compared: Sequence[Comparison], judge: str) -> Iterator[Prompt]:
    """Yield the prompts of all pairs of replies that differ, each once."""
    seen: set[str] = set()
    for one in compared:
        for prompt in one.prompts(judge, len(seen)) if one.reply != one.other else ():
            if prompt.key not in seen:
                seen.add(prompt.key)
                yield prompt
