"""The license of a recipe beside those of the texts that it trains on: a card grants no more than they do."""

from collections.abc import Iterable, Iterator
from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.base.spec import to_plain
from lilliput.data.license_terms import disagreements, unnamed
from lilliput.recipe import Recipe
from lilliput.train.phase import Phase


def check_license(recipe: Recipe) -> Iterator[str]:
    """Yield notes on corpora whose license has terms that the recipe's has not.

    Raises:
        RecipeError: the recipe's license allows commercial use, and that of a corpus forbids it.
    """
    for one in disagreements(recipe.license, _read(recipe, recipe.phases.values())):
        own = f"--set license={one.license} names that of the texts, --set license=None none"
        if one.is_plain:
            where = f"the license of recipe {recipe.name!r}: a card may grant no more than its texts do"
            raise RecipeError(str(one), where=where, hint=f"{own}; or leave the corpus out")
        yield f"note: {one}\n  where: the license of recipe {recipe.name!r}; its cards say so, too\n  hint: {own}"


def terms(recipe: Recipe, phases: Iterable[Phase]) -> dict[str, list[str]]:
    """Return what a card says of the licenses of texts that phases read: `disagreements`, and corpora `unnamed`."""
    corpora = _read(recipe, phases)
    found = disagreements(recipe.license, corpora)
    return {"disagreements": [str(one) for one in found], "unnamed": list(unnamed(corpora))}


def _read(recipe: Recipe, phases: Iterable[Phase]) -> dict[str, Any]:
    """The plain forms of the corpora that phases read."""
    names = dict.fromkeys(name for phase in phases for name in phase.reads())
    return {name: to_plain(recipe.corpora[name]) for name in names}
