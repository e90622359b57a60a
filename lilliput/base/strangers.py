"""Reading what strangers wrote: within limits, and whatever is wrong with it is an error of three parts."""

import json
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.limits import limit, raising


@contextmanager
def reading(where: str, hint: str, kind: type[LilliputError] = RunError) -> Iterator[None]:
    """Turn every exception that is no `LilliputError` yet into one: a file can be wrong in more ways than are foreseen.

    Args:
        where: the file or folder.
        hint: what to do.
        kind: of the error.
    """
    try:
        yield
    except LilliputError:
        raise
    except Exception as error:
        says = str(error) or "no more is known"
        raise kind(f"it cannot be read ({type(error).__name__}: {says:.300})", where=where, hint=hint) from error


def read_object(path: Path, hint: str, kind: type[LilliputError] = RunError) -> dict[str, Any]:
    """A JSON file that holds one object.

    Args:
        path: the file.
        hint: what to do if it is damaged.
        kind: of the error.

    Raises:
        LilliputError: of that kind: there is no such file, or it is too large, no JSON or no object.
    """
    with reading(str(path), hint, kind):
        check_size(path, "config_bytes", kind)
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise kind(f"{path.name} cannot be read ({error})", where=str(path), hint=hint) from error
        if not isinstance(plain, dict):
            raise kind(f"{path.name} is no JSON object", where=str(path), hint=hint)
        return plain


def check_size(path: Path, most: str, kind: type[LilliputError] = RunError) -> None:
    """Refuse a file of more bytes than the limit of that name, before any of it is read."""
    size = path.stat().st_size
    if size > limit(most):
        raise kind(f"{path.name} has {size:,} bytes, {limit(most):,} at most", where=str(path), hint=raising(most))


def shown(value: Any) -> str:
    """A value from a file for an error: its beginning, however long or deep it is."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
