"""Replies of a larger model as conversations: sequence-level distillation (Kim and Rush 2016, arXiv 1606.07947).

The student learns from the teacher's text in its own tokens, by the loss of instruction tuning.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.spec import LATER
from lilliput.data.conversations import ChatCorpus, Conversation
from lilliput.data.replies.reply_filters import ReplyFilters


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The first prompts of a chat corpus, answered by a teacher.

    A run asks it once, keeps every reply in `replies/<name>/`, and reads these through the filters.
    """

    model: str
    """Its name on the hub, which it also has at an endpoint; or its folder."""
    stand_in: str | None = field(default=None, metadata=LATER)
    """Model that is asked in its place, which cards then say: a name at an endpoint, a folder, or `answers`, those that
    the prompts have in their own corpus."""
    prompts: ChatCorpus
    """Source of the prompts: conversations up to their last user's turn, each once."""
    replies: int = 10_000
    """Prompts that are answered, at most; those whose replies filters drop are not replaced."""
    temperature: float = 0.0
    """0 takes the likeliest token, the nearest to the mode of the teacher's distribution."""
    top_p: float = field(default=1.0, metadata=LATER)
    """Share of the likeliest tokens that one is drawn from."""
    max_tokens: int = 1_024
    """Teacher's tokens of a reply; longer ones are cut off, and dropped."""
    filters: ReplyFilters = field(default=ReplyFilters(), metadata=LATER)
    """Conditions on replies; others may be set at any time before they are trained on."""
    license: str
    """Under which the replies may be used."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("replies", "max_tokens"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"{name} is {getattr(self, name)}", where=f"Teacher.{name}", hint="give a whole number above 0"
                )
        if self.temperature < 0:
            raise RecipeError(
                f"a temperature of {self.temperature}", where="Teacher.temperature", hint="give 0 or a number above it"
            )
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"a top_p of {self.top_p}", where="Teacher.top_p", hint="give a share above 0, at most 1")

    @property
    def asked(self) -> str:
        """Name of the model that is asked."""
        return self.stand_in or self.model

    @property
    def settings(self) -> dict[str, Any]:
        """Sampling settings, by the names that endpoints have for them."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens, "seed": self.seed}
        return {name: value for name, value in given.items() if (name, value) != ("top_p", 1.0)}

    def identity(self) -> Any:
        """Return what the prompts depend on."""
        return self.prompts.identity()

    def conversations(self) -> Iterator[Conversation]:
        """Raises DataError: a run asks, and reads what it has kept; see `TeacherReplies`."""
        raise DataError(
            "a teacher's replies are read from the run that asked for them",
            where=f"Teacher(model={self.model!r})",
            hint="ask for them: lilliput replies RECIPE",
        )
