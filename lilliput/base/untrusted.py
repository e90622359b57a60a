"""Reading what strangers wrote: within limits, and whatever is wrong with it is an error of three parts."""

import json
import reprlib
from pathlib import Path
from typing import Any

from lilliput.base.errors import LilliputError, RunError, reading
from lilliput.base.limits import limit, raising


def read_object(path: Path, hint: str, kind: type[LilliputError] = RunError) -> dict[str, Any]:
    """A JSON file that holds one object.

    Args:
        path: the file.
        hint: what to do if it is damaged.
        kind: of the error.

    Raises:
        LilliputError: of that kind: there is no such file, or it is too large, no JSON or no object.
    """
    with reading(path, hint, kind=kind):
        check_size(path, "config_bytes", kind)
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise kind(f"{path.name} cannot be read ({error})", where=str(path), hint=hint) from error
        if not isinstance(plain, dict):
            raise kind(f"{path.name} is not a JSON object", where=str(path), hint=hint)
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
