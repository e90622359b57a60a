"""Text from a record as Markdown that it cannot break out of, and specs as the Python that recipes are written in."""

import json
import re
from typing import Any

from lilliput.base.terminal import visible

WIDTH = 110
"""Columns of quoted Python."""
NOTHING = "—"
"""In a cell of a table where there is nothing to say."""

ACTING = re.compile(
    r"""
    [`*~$|\[\]]                 # code, emphasis, mathematics, cells of tables, links, images, notes
    | [<\\]                     # tags, escapes
    | &(?=\#?\w*(?:;|$))        # the name of a character
    | (?<!\w)_+ | _+(?!\w)      # emphasis; nothing within a word
    | ^(?:[>=]|[-+](?![\w.]))   # quotes, underlines and lists begin a line
    | ^\d+[.)](?!\S)            # numbered ones, too
    | ^\#+ | (?<=\ )\#+$        # and headings, which may also end with it
    | (?<={)[{%\#]              # templates of pages
    """,
    re.VERBOSE,
)
"""Escape what GitHub-flavored Markdown, HTML or page generators would act on, in text on one line."""
WRITTEN = {"<": "&lt;", "&": "&amp;", "\\": "&#92;"}
"""The others have a backslash before them; two of those would begin mathematics on the Hub."""


def fenced(text: str, language: str = "") -> str:
    """A code block, with a fence longer than any inside it."""
    fence = "`" * max(3, _longest_backticks(text) + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def code(text: str) -> str:
    """Inline code, on one line."""
    line = _line(text) or " "
    ticks = "`" * (_longest_backticks(line) + 1)
    space = " " if "`" in line else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def prose(text: str) -> str:
    """Text on one line that reads as it is written, wherever it stands: nothing in it is Markdown or HTML."""
    return ACTING.sub(lambda found: WRITTEN.get(found[0]) or re.sub(r"([\W_])", r"\\\1", found[0]), _line(text))


def cell(quoted: str) -> str:
    """Inline code that stays in its cell of a table, where alone a backslash means something within code."""
    return quoted.replace("|", "\\|")


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
    """Split a call, dict or tuple into its beginning, its parts with their prefixes, and its end."""
    if isinstance(value, list):
        return "(", [("", item) for item in value], ")"
    if "type" not in value:
        return "{", [(f"{literal(key)}: ", item) for key, item in value.items()], "}"
    fields = [(f"{key}=", item) for key, item in value.items() if key != "type"]
    return value["type"].partition(":")[2] + "(", fields, ")"


def _line(text: str) -> str:
    return visible(" ".join(text.split()))


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
