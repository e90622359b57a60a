"""Text from a record as Markdown that it cannot break out of, and specs as the Python that recipes are written in."""

import json
import re
from typing import Any

WIDTH = 110
"""Columns of quoted Python."""
NOTHING = "—"
"""In a cell of a table where there is nothing to say."""


def fenced(text: str, language: str = "") -> str:
    """A code block, with a fence longer than any inside it."""
    fence = "`" * max(3, _longest_backticks(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def code(text: str) -> str:
    """Inline code, on one line."""
    line = " ".join(text.split())
    ticks = "`" * (_longest_backticks(line) + 1)
    space = " " if "`" in line else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def prose(text: str) -> str:
    """Text on one line that opens no tag."""
    return " ".join(text.split()).replace("<", "&lt;")


def cell(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def literal(value: Any) -> str:
    """A Python literal on one line; of an absolute path only the last part."""
    if not isinstance(value, str):
        return repr(value)
    if re.match(r"[/~]|[A-Za-z]:\\", value):
        value = "…/" + re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return json.dumps(value, ensure_ascii=False)


def source(value: Any, prefix: str = "", indent: int = 0, width: float = WIDTH) -> str:
    """A plain spec as Python: `GQA(heads=8, ...)`, broken into lines where it is too long for one.

    Args:
        value: what `lilliput.base.spec.to_plain` returns.
        prefix: what stands before it on its first line.
        indent: columns before its first and last line.
        width: columns of a line.
    """
    if not isinstance(value, dict | list):
        return prefix + literal(value)
    opening, parts, closing = _opened(value)
    flat = [source(item, name, width=float("inf")) for name, item in parts]
    comma = "," if isinstance(value, list) and len(flat) == 1 else ""
    line = f"{prefix}{opening}{', '.join(flat)}{comma}{closing}"
    if indent + len(line) < width:
        return line
    lines: list[str] = []
    for (name, item), short in zip(parts, flat, strict=True):
        is_plain = isinstance(value, list) and not isinstance(item, dict | list)
        if is_plain and lines and len(lines[-1]) + len(short) + 2 <= width:
            lines[-1] += f" {short},"  # side by side
        else:
            lines.append(" " * (indent + 4) + source(item, name, indent + 4, width) + ",")
    return "\n".join([prefix + opening, *lines, " " * indent + closing])


def _opened(value: dict[str, Any] | list[Any]) -> tuple[str, list[tuple[str, Any]], str]:
    """What a call, dict or tuple begins with, its parts with what stands before each, and its end."""
    if isinstance(value, list):
        return "(", [("", item) for item in value], ")"
    if "type" not in value:
        return "{", [(f"{literal(key)}: ", item) for key, item in value.items()], "}"
    fields = [(f"{key}=", item) for key, item in value.items() if key != "type"]
    return value["type"].partition(":")[2] + "(", fields, ")"


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
