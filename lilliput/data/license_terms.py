"""Licenses of texts beside the license that a recipe names for its weights.

A table of what well-known licenses say, by the names that the hub has for them. It compares names, and judges neither
law nor fact: another license is taken for unknown, and nothing is said of it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lilliput.data.documents import licenses

GENERATED = ("lilliput.data.corpora.arithmetic:Arithmetic",)
"""Types of corpora whose texts have no author."""


class Terms(NamedTuple):
    """Terms of a license."""

    commercial: bool = True
    """True if commercial use is allowed."""
    adaptations: bool = True
    """True if adaptations may be shared."""
    alike: str = ""
    """The family of licenses that adaptations have to be shared under; empty for none."""
    attribution: bool = True
    """True if the authors are to be named."""


_FREE = Terms(attribution=False)
_KNOWN = {
    **dict.fromkeys(("cc0-1.0", "pddl", "unlicense", "0bsd", "wtfpl"), _FREE),
    **dict.fromkeys(("mit", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "zlib", "odc-by"), Terms()),
    **dict.fromkeys(("gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0"), Terms(alike="gpl")),
    "odbl": Terms(alike="odbl"),
    "gfdl": Terms(alike="gfdl"),
}
_CREATIVE_COMMONS = re.compile(r"cc-by(-nc)?(-sa|-nd)?(-\d\.\d)?")


def terms_of(license: str) -> Terms | None:
    """Return the terms of a license by its name; None for one that is not in the table."""
    name = license.strip().lower()
    if found := _CREATIVE_COMMONS.fullmatch(name):
        without_money, kind, _ = found.groups()
        alike = f"cc-by{without_money or ''}-sa" if kind == "-sa" else ""
        return Terms(commercial=not without_money, adaptations=kind != "-nd", alike=alike)
    return _KNOWN.get(name)


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A license of a recipe beside that of one of its corpora."""

    recipe: str
    corpus: str
    license: str
    """License of the corpus."""
    says: str
    """Term of that license which the recipe's does not have."""
    is_plain: bool
    """True if the recipe's license allows what the corpus's forbids."""

    def __str__(self) -> str:
        return f"the recipe names {self.recipe}; the corpus {self.corpus} names {self.license}, which {self.says}"


def license_names(plain: Any) -> list[str]:
    """The licenses that the plain form of a corpus names; of a teacher that another one replied for, the prompts'."""
    is_other = isinstance(plain, dict) and "teacher:Teacher" in str(plain.get("type")) and plain.get("stand_in")
    return licenses(plain["prompts"] if is_other else plain)


def without_licenses(plain: Any) -> Any:
    """The plain form of a corpus without the licenses in it, which change no text."""
    if isinstance(plain, dict):
        return {key: without_licenses(value) for key, value in plain.items() if key != "license"}
    return [without_licenses(value) for value in plain] if isinstance(plain, list) else plain


def disagreements(recipe: str | None, corpora: Mapping[str, Any]) -> Iterator[Disagreement]:
    """Yield where the license of a recipe has not the terms of a corpus's.

    Args:
        recipe: its license; None for none, which grants nothing.
        corpora: the plain forms of those that are trained on, by name.
    """
    own = terms_of(recipe) if recipe else None
    if recipe is None or own is None:
        return
    for name, plain in corpora.items():
        for license in license_names(plain):
            terms = terms_of(license)
            if terms is None:
                continue
            if not terms.commercial and own.commercial:
                says, is_plain = "forbids commercial use", True
            elif not terms.adaptations:
                says, is_plain = "allows no adaptations to be shared", False
            elif terms.alike and terms.alike != own.alike:
                says, is_plain = "asks that adaptations be shared under the same license", False
            else:
                continue
            yield Disagreement(recipe=recipe, corpus=name, license=license, says=says, is_plain=is_plain)


def unnamed(corpora: Mapping[str, Any]) -> Sequence[str]:
    """The corpora, in their plain forms by name, that name no license and are not generated."""
    return [name for name, plain in corpora.items() if not license_names(plain) and plain.get("type") not in GENERATED]
