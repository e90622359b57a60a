"""Filters of a teacher's replies: each is kept, or dropped for one reason, by what was asked for and came.

Raw replies stay as they are, so other filters cost nothing but another look at them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lilliput.base.errors import RecipeError
from lilliput.data.language import is_in
from lilliput.data.near_duplicates import NearDuplicates
from lilliput.data.replies.reply import FAILED, LENGTH, Reply

FAILURE, CUT_OFF, EMPTY, TOO_LONG = "no answer", "cut off", "empty", "too long"
REFUSAL, LANGUAGE, OVERLAP, DUPLICATE = "refusal", "another language", "benchmark overlap", "nearly the same reply"
REASONS = (FAILURE, CUT_OFF, EMPTY, TOO_LONG, REFUSAL, LANGUAGE, OVERLAP, DUPLICATE)
"""Reasons for dropping a reply, in the order in which they are looked for."""

_REFUSALS = re.compile(
    r"""
    ^\W*(?:(?:i['’]m|i\ am)\ (?:very\ |so\ |truly\ )?sorry\b|sorry\b|unfortunately\b|i\ apologi[sz]e\b|my\ apologies\b
         |i\ must\ (?:decline|refuse)\b|i\ (?:regret|am\ afraid)\b|i['’]m\ afraid\b)?[\s,.;:—-]*(?:but\s+|that\s+)?
       (?:as\ an?\ (?:ai|(?:large\ )?language\ model|artificial\ intelligence)\b
         |i\ (?:can(?:not|['’]t)|could(?:\ not|n['’]t)|won['’]t|will\ not|am\ (?:not\ able|unable)|do\ not|don['’]t)
          \ (?:be\ able\ to\ |to\ |feel\ comfortable\ |currently\ |really\ )?
          (?:assist|help|answer|comply|fulfil|fulfill|provide|create|generate|write|engage|discuss|support|share
            |do\ that|have\ (?:access|the\ ability|personal|feelings|opinions)|access|browse|process|see|view|offer)
         |i['’]m\ (?:not\ able|unable)\ to\b|i\ must\ (?:decline|refuse)\b
         |i['’]m\ (?:just\ )?an?\ (?:ai|language\ model))
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Beginnings of replies that refuse: an apology, perhaps, and what the teacher says it cannot do or is."""


@dataclass(frozen=True, kw_only=True)
class ReplyFilters:
    """Conditions on replies, besides that they are there and are not empty."""

    cut_off: bool = True
    """True to drop replies that did not end by themselves: the student would learn to stop anywhere."""
    max_tokens: int = 1_024
    """Teacher's tokens of a reply; an endpoint may ignore how many it was asked for."""
    refusals: bool = True
    """True to drop replies that begin as a refusal."""
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes of languages to keep; none: all of them."""
    likeness: float = 0.8
    """Share of runs of five words that a reply has in common with an earlier one, at which it is dropped; 0: never."""
    benchmarks: bool = True
    """True to drop prompts and replies that overlap an evaluation set, by 13 words in a row."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or not 0 <= self.likeness <= 1:
            raise RecipeError(
                f"max_tokens is {self.max_tokens}, likeness {self.likeness}",
                where="ReplyFilters",
                hint="give a whole number above 0, and a share from 0 to 1",
            )

    def judge(self, replies: Iterable[Reply], overlaps: Mapping[str, Sequence[str]]) -> Iterator[tuple[Reply, str]]:
        """Yield each reply with the reason for dropping it, empty for one that is kept.

        Args:
            replies: in the order of their prompts.
            overlaps: tasks that a prompt or its reply overlaps, by key.
        """
        kept = NearDuplicates(self.likeness)
        for reply in replies:
            reason = self._reason(reply, overlaps)
            if not reason and self.likeness and kept.add(reply.text):
                reason = DUPLICATE
            yield reply, reason

    def _reason(self, reply: Reply, overlaps: Mapping[str, Sequence[str]]) -> str:
        checks = (
            (FAILURE, reply.finish == FAILED),
            (CUT_OFF, self.cut_off and reply.finish == LENGTH),
            (EMPTY, not reply.text.strip()),
            (TOO_LONG, reply.tokens > self.max_tokens),
            (REFUSAL, self.refusals and is_refusal(reply.text)),
            (OVERLAP, self.benchmarks and bool(overlaps.get(reply.key))),
        )
        found = next((reason for reason, is_met in checks if is_met), "")
        return found or (LANGUAGE if self.languages and not is_in(reply.text, self.languages) else "")


def is_refusal(text: str) -> bool:
    """Return whether a reply begins as one that refuses."""
    return _REFUSALS.match(text.lstrip()) is not None
