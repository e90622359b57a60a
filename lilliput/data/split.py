"""The held-out split: a fixed hash of the document group decides, so no list has to be kept."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from lilliput.base.errors import RecipeError


class HeldOut(Protocol):
    """Anything that says which groups are held out; a frozen keyword-only spec, so that token files are known by it."""

    def is_heldout(self, group: str) -> bool:
        """Return whether every document of this group is held out."""
        ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which document groups are held out; the same in every run and on every machine."""

    share: float = 0.02
    """Expected fraction of the groups that is held out, in [0, 1]. Where a corpus has so few documents that less than
    five of them are expected, the last part of each text is, this share of it, or whole ones (`data.small_corpora`)."""
    salt: str = ""
    """Another salt holds out other groups."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise RecipeError(f"share cannot be {self.share}", where="Split.share", hint="give a fraction in [0, 1]")

    def is_heldout(self, group: str) -> bool:
        """Return whether every document of this group is held out."""
        return self.fraction(group) < self.share

    def fraction(self, group: str) -> float:
        """The number in [0, 1) by which a group is held out, where the share is above it."""
        return fraction_of(f"{self.salt}\0{group}")


def fraction_of(text: str) -> float:
    """A number in [0, 1) that depends on the text alone and looks uniform: its SHA-256 as a fraction."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
