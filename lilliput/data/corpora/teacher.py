"""Replies of a larger model as conversations: sequence-level distillation (Kim and Rush 2016, arXiv 1606.07947).

The student learns from the teacher's text in its own tokens, by the loss of instruction tuning.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lilliput.base.errors import DataError, RecipeError
from lilliput.data.conversations import ChatCorpus, Conversation


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The first questions of a chat corpus, answered by a teacher."""

    not_implemented: ClassVar[str] = "asking a teacher model for replies"

    model: str
    """Its name on the hub."""
    prompts: ChatCorpus
    """Source of the questions; its own answers are not used."""
    replies: int = 10_000
    """Replies kept, after those that were cut short, refused or were said before are dropped."""
    temperature: float = 0.0
    """0 takes the likeliest token, the nearest to the mode of the teacher's distribution."""
    max_tokens: int = 1_024
    """Teacher's tokens of a reply; longer ones are dropped."""
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

    def identity(self) -> Any:
        """Return what the questions depend on."""
        return self.prompts.identity()

    def conversations(self) -> Iterator[Conversation]:
        """Raises DataError: nobody asks the teacher yet."""
        raise DataError(
            f"{self.not_implemented} is not built",
            where=f"Teacher(model={self.model!r})",
            hint="point the corpus at a file of replies that you have, or use a later version",
        )
