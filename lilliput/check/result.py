"""The outcome of one check, and how it comes about: whatever a part raises is a check that failed."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from inspect import unwrap
from pathlib import Path
from types import CodeType
from typing import Any, Literal

from lilliput.base.errors import LilliputError
from lilliput.base.own_code import is_own_module

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of a check of a part."""

    kind: str
    """`mixer`, `optimizer`, `objective` or `phase`."""
    part: str
    """The type of the part, or the name of the phase."""
    check: str
    state: Literal["ok", "failed", "skipped"]
    says: str = ""
    """The number that is wrong, why it was skipped, or more than that it is well."""
    where: str = ""
    hint: str = ""


class CheckFailed(LilliputError):
    """A part does not do what its seam asks for."""


class CheckSkipped(Exception):
    """A part has nothing to check, or cannot be checked here; the message says why."""


def result_of(kind: str, part: str, name: str, check: Callable[[], str]) -> Result:
    """Run a check.

    Args:
        kind, part: what is checked.
        name: of the check.
        check: returns what there is to say, or raises.
    """
    found: dict[str, Any] = {"kind": kind, "part": part, "check": name}
    try:
        return Result(**found, state="ok", says=check())
    except CheckSkipped as why:
        return Result(**found, state="skipped", says=str(why))
    except LilliputError as error:
        return Result(**found, state="failed", says=error.what, where=error.where, hint=error.hint)
    except Exception as error:  # of code that anybody wrote
        says = " ".join(f"{type(error).__name__}: {error}".split())
        hint = f"mend it; {kind}s are given what lilliput/{SEAMS[kind]} says"
        return Result(**found, state="failed", says=says, where=_raised_at(error), hint=hint)


SEAMS = {
    "mixer": "nn/mixer.py",
    "optimizer": "optim/optimizer.py",
    "objective": "objectives/objective.py",
    "phase": "train/phase.py",
}
"""The file that says what a part of a kind is given and has to return."""


def place_of(owner: Any, method: str) -> str:
    """Return where a method is written, `file:line, Type.method`."""
    kind = owner if isinstance(owner, type) else type(owner)
    found: Any = getattr(kind, method, None)
    code = getattr(unwrap(getattr(found, "fget", found)), "__code__", None)
    name = f"{kind.__name__}.{method}"
    return f"{shown_file(code.co_filename)}:{code.co_firstlineno}, {name}" if isinstance(code, CodeType) else name


def _raised_at(error: Exception) -> str:
    """Return the last line of somebody's own file on the way to an error, or of any other file but PyTorch's."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [(frame, line) for frame, line in frames if is_own_module(frame.f_globals.get("__name__", ""))]
    others = [(frame, line) for frame, line in frames if not frame.f_globals.get("__name__", "").startswith("torch")]
    frame, line = (own or others)[-1]
    return f"{shown_file(frame.f_code.co_filename)}:{line}, in {frame.f_code.co_qualname}"


def shown_file(file: str) -> str:
    """Return a file as people know it: from the current folder, or from the package, on."""
    path = Path(file)
    for folder in (Path.cwd(), PACKAGE.parent):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return file
