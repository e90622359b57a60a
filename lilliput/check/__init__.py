"""Tests that the parts of a recipe should pass, ours and somebody's own, on a small model and random rows.

check(recipe)                the results, one after the other, as each is there
"""

from lilliput.check.recipe_parts import check
from lilliput.check.result import Result

__all__ = ["Result", "check"]
