"""Notes of a recipe for the cards of its releases, beside what a run measures: a value in the recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Citation:
    """Whom to cite for the model that a recipe follows."""

    key: str
    kind: str
    """BibTeX entry type: `misc`, `software`."""
    author: str
    title: str
    year: int
    url: str

    def bibtex(self) -> str:
        """The entry."""
        fields = {"author": f"{{{self.author}}}", "title": self.title, "year": str(self.year), "url": self.url}
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
        return f"@{self.kind}{{{self.key},\n{lines}}}"


@dataclass(frozen=True, kw_only=True)
class RankingExample:
    """A question whose answer is the likeliest of a few texts."""

    context: str
    choices: tuple[str, ...]
    answer: str


@dataclass(frozen=True, kw_only=True)
class CardNotes:
    """Statements of the card that no record can make. What is empty is on no card."""

    tags: tuple[str, ...] = ()
    """For the Hub, beside those of every release."""
    metrics: tuple[str, ...] = ()
    tier: str = ""
    """Tier of a leaderboard."""
    suited: Mapping[str, str] = field(default_factory=dict)
    """Examples, by what the model is for."""
    unsuited: tuple[str, ...] = ()
    prompt: str = ""
    """A prompt that a base model continues, if there is no sample."""
    ranking: RankingExample | None = None
    advice: tuple[str, ...] = ()
    """On using it."""
    cutoff: str = ""
    """Until when the texts were written."""
    citation: Citation | None = None
    references: tuple[str, ...] = ()
    contradictions: Mapping[str, str] = field(default_factory=dict)
    """Contradictions and misnomers of the published card, and what holds here."""
