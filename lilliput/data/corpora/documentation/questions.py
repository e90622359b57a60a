"""Questions about installed software whose answers its own documentation gives: a small corpus of conversations."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lilliput.base.errors import DataError, RecipeError
from lilliput.data.conversations import Conversation
from lilliput.data.corpora.documentation.answers import about, parameters, summary
from lilliput.data.corpora.documentation.docstrings import Entry
from lilliput.data.corpora.documentation.installed import Installed
from lilliput.data.messages import Message

REPEATS = 2
"""Questions that may share one answer, all in one group: an answer never lands on both sides of the split."""
WIDEST = 100
"""Questions show the arguments of a function when its header is no longer."""

_PHRASINGS = {
    "function": (
        "What does `{title}` do?",
        "What does the function `{name}` do?",
        "What is `{title}` for?",
        "Explain `{name}` in a sentence or two.",
    ),
    "class": ("What is `{name}`?", "What is the class `{name}` for?", "Describe the class `{name}` briefly."),
    "attribute": ("What is `{name}`?", "What does the attribute `{name}` stand for?"),
}
_PARAMETER = (
    "What is the parameter `{parameter}` of `{name}`?",
    "What does the argument `{parameter}` of `{name}` mean?",
    "In `{name}`, what is `{parameter}` for?",
)
_DISTRIBUTION = ("What is the package `{name}`?", "What is `{name}`?", "Tell me about the Python package `{name}`.")


@dataclass(frozen=True, kw_only=True)
class DocumentationQuestions:
    """One question and its answer a conversation, from docstring summaries, parameter sections and descriptions."""

    source: Installed
    per_package: int = 300
    """At most this many conversations from one group of packages, chosen by a hash."""

    def __post_init__(self) -> None:
        if self.per_package < 1:
            raise RecipeError(
                f"per_package is {self.per_package}",
                where="DocumentationQuestions.per_package",
                hint="give a whole number above 0",
            )

    def identity(self) -> dict[str, str]:
        """Return what the source depends on, as the conversations do besides the spec."""
        return self.source.identity()

    def conversations(self) -> Iterator[Conversation]:
        """Yield the conversations, shuffled by a hash of their ids.

        Raises:
            DataError: a distribution is not installed, or its documentation answers nothing.
        """
        candidates = {candidate.conversation.id: candidate for candidate in (*self._packages(), *self._entries())}
        groups: Counter[str] = Counter()
        answers: Counter[str] = Counter()
        owners: dict[str, str] = {}
        questions: set[str] = set()
        for candidate in sorted(candidates.values(), key=lambda candidate: _hash(candidate.conversation.id)):
            conversation, answer = candidate.conversation, candidate.answer
            group, question = conversation.group, conversation.messages[0].content
            if groups[group] == self.per_package or answers[answer] == REPEATS or question in questions:
                continue
            if owners.setdefault(answer, group) != group:
                continue
            groups[group] += 1
            answers[answer] += 1
            questions.add(question)
            yield conversation
        if not questions:
            raise DataError(
                "no docstring answers a question",
                where=f"the installed distributions {', '.join(self.source.distributions) or '(none)'}",
                hint="name more distributions, or set python=True",
            )

    def _packages(self) -> Iterator["_Candidate"]:
        for name, group, text in self.source.extraction().summaries:
            if answer := summary(text):
                yield _ask(f"questions/{group}/{name}", group, _DISTRIBUTION, name, answer, name=name)

    def _entries(self) -> Iterator["_Candidate"]:
        groups = self.source.extraction().groups
        for entry in self.source.extraction().entries:
            if not _is_public(entry):
                continue
            key, group, name = f"questions/{entry.package}/{entry.name}", groups[entry.package], entry.name
            if answer := summary(entry.docstring):
                title = entry.title if len(entry.title) <= WIDEST else name
                yield _ask(key, group, _PHRASINGS[entry.kind], name, answer, name=name, title=title)
            known = sorted(parameters(entry.docstring), key=lambda item: _hash(f"{key}/{item[0]}"))
            for parameter, answer in known[:1]:
                yield _ask(f"{key}/{parameter}", group, _PARAMETER, parameter, answer, name=name, parameter=parameter)


@dataclass(frozen=True, slots=True)
class _Candidate:
    conversation: Conversation
    answer: str
    """Without its subject, so that equal answers about different things are seen to be equal."""


def _ask(key: str, group: str, phrasings: tuple[str, ...], subject: str, answer: str, **names: str) -> _Candidate:
    question = phrasings[_hash(key)[-1] % len(phrasings)].format(**names)
    messages = (Message("user", question), Message("assistant", about(subject, answer)))
    return _Candidate(Conversation(messages, key, group), answer)


def _is_public(entry: Entry) -> bool:
    """A class, function or attribute that users meet, so nothing private and nothing of a test."""
    names = entry.name.split(".")
    return entry.kind in _PHRASINGS and not any(name.startswith(("_", "test")) for name in names)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
