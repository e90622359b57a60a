"""Documentation markup to plain English: reStructuredText docstrings and Markdown descriptions."""

import re

NOTES = {"note", "warning", "tip", "important", "attention", "caution", "hint", "danger", "seealso", "admonition"}
"""Directives whose content is prose; the content of every other directive goes."""

HEADING = re.compile(r"^([A-Z][^\n]{1,60})\n([-=~^*#\"])\2{2,}$", re.MULTILINE)
"""A title (group 1) and the line below it."""

_DROPPED_SECTIONS = ("examples", "example", "references", "citations", "usage", "sample usage", "doctest", "tests")


def plain(text: str) -> str:
    """A docstring without reST roles, directives, footnotes, doctests and unfilled placeholders.

    Code in backticks keeps one pair; headings and parameter lists stay as they are.
    """
    text = _without_directives(text)
    text = _without_sections(text)
    text = _DOCTEST.sub("", text)
    text = _PLACEHOLDER.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _ROLE.sub(_role, text)
    text = _FOOTNOTE.sub("", text)
    text = _LITERAL.sub(r"`\1`", text)
    text = _REFERENCE.sub(_reference, text)
    text = _SUBSTITUTION.sub(r"\1", text)
    text = _BOLD.sub(r"\1", text)
    text = _ESCAPE.sub(r"\1", text)
    text = _LITERAL_BLOCK.sub(":", text)
    text = _BLANK.sub("\n\n", text).strip("\n")
    text = _ORPHAN_HEADING.sub("", text)
    text = _ORPHAN_LEAD.sub("", text).strip("\n")
    return _DANGLING.sub("", text)


def plain_markdown(text: str) -> str:
    """A Markdown (or reST) description without badges, pictures, HTML, fenced code, tables and link targets."""
    for pattern, kept in _MARKDOWN:
        text = pattern.sub(kept, text)
    return _EMPTY_SECTION.sub("", plain(text)).strip("\n")


def _without_directives(text: str) -> str:
    """Drop `.. name::` blocks, comments, targets and citations; prose ones become "Note: ..." at their indentation."""
    if ".. " not in text:
        return text
    lines, kept, index = text.split("\n"), [], 0
    while index < len(lines):
        line = lines[index]
        index += 1
        match = _DIRECTIVE.match(line)
        if not match:
            kept.append(line)
            continue
        indent, name, rest = len(match[1]), (match[2] or "").lower(), match[3].strip()
        block = []
        while index < len(lines) and (not lines[index].strip() or _indent(lines[index]) > indent):
            block.append(lines[index])
            index += 1
        if name in NOTES:
            kept.extend(_note(name, rest, block, indent))
        kept.append("")
    return "\n".join(kept)


def _note(name: str, rest: str, block: list[str], indent: int) -> list[str]:
    body = [line for line in block if not _OPTION.match(line)]
    depth = min((_indent(line) for line in body if line.strip()), default=indent)
    body = [" " * indent + line[depth:] if line.strip() else "" for line in body]
    while body and not body[0]:
        body.pop(0)
    title = rest if name == "admonition" and rest else "See also" if name == "seealso" else name.capitalize()
    if rest and name != "admonition":
        return [f"{' ' * indent}{title}: {rest}", *body]
    return [f"{' ' * indent}{title}: {body[0].lstrip()}", *body[1:]] if body else []


def _without_sections(text: str) -> str:
    """Drop the headed sections that hold examples and references: mostly code, arrays and citations."""
    parts = HEADING.split(text)
    if len(parts) == 1:
        return text
    kept = [parts[0]]
    for title, sign, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if title.strip().lower().rstrip(":") not in _DROPPED_SECTIONS:
            kept.append(f"{title}\n{sign * len(title)}{body}")
    return "".join(kept)


def _role(match: re.Match[str]) -> str:
    target = match[1].strip()
    if title := _TITLED.match(target):
        return f"`{title[1]}`"
    return f"`{target[1:].rsplit('.', 1)[-1]}`" if target.startswith("~") else f"`{target.lstrip('!')}`"


def _reference(match: re.Match[str]) -> str:
    target = match[1] or match[2]
    return f"`{target[1:].rsplit('.', 1)[-1]}`" if target.startswith("~") else f"`{target.lstrip('.!')}`"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


_DIRECTIVE = re.compile(r"^(\s*)\.\.(?: ([\w:+-]*\w) ?::)?(?!\S)(.*)$")
_OPTION = re.compile(r"^\s*:[\w-]+:(\s|$)")
_DOCTEST = re.compile(r"^[ \t]*>>>.*\n?(?:[ \t]*\S.*(?:\n|$))*", re.MULTILINE)
_PLACEHOLDER = re.compile(r"^[ \t]*(?:%\(\w+\)s|\{\w+\}|\$\{?\w+\}?)[ \t]*$", re.MULTILINE)
_LINK = re.compile(r"`([^`<>]*?[^`<>\s])\s*<[^`<>]*>`__?")
_ROLE = re.compile(r"(?<![\w`]):[a-zA-Z][\w+:-]*:`([^`]+)`")
_TITLED = re.compile(r"^([^<>]*?[^<>\s])\s*<[^<>]+>$", re.DOTALL)
_FOOTNOTE = re.compile(r"\s?\[[#*]?[\w.]*\]_(?!\w)")
_LITERAL = re.compile(r"``+([^`]+)``+")
_REFERENCE = re.compile(r"\[`([^`\s]+)`\](?!\()|(?<!`)`([~.!][\w.]+)`(?!`)")
_SUBSTITUTION = re.compile(r"%\((\w+)\)s")
_BOLD = re.compile(r"\*\*([^\s*](?:[^*\n]*[^\s*])?)\*\*(?!\w)")
_ESCAPE = re.compile(r"\\([*_|`<>\\])(?![a-zA-Z])")
_LITERAL_BLOCK = re.compile(r"::[ \t]*$", re.MULTILINE)
_BLANK = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")
_ORPHAN_HEADING = re.compile(
    r"^[A-Z][^\n]{1,60}\n([-=~^])\1{2,}\s*(?=\Z|^[A-Z][^\n]{1,60}\n[-=~^]{3,}$)"
    r"|^[ \t]*(?:Examples?|References|Usage|Sample usage):?[ \t]*$\s*(?=\Z|^\S)",
    re.MULTILINE,
)
_ORPHAN_LEAD = re.compile(r"(?<=\n\n)[^\n]{1,100}:\s*\Z|\A(?:Examples?|Usage):\s*")
_DANGLING = re.compile(r"(?<=\n\n)(?=\S+ )[^\n]{12,160}:\n\n(?=[A-Z#])")
_EMPTY_SECTION = re.compile(r"^(#+) [^\n]*\s*(?=^\1 \S|\Z)", re.MULTILINE)
_MARKDOWN = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"^([ \t]*)(```|~~~).*?^\1?\s*\2[ \t]*$", re.DOTALL | re.MULTILINE), ""),
    (re.compile(r"^.*\[!\[.*$", re.MULTILINE), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\[\]]+)\]\([^()\s]*(?:\([^()]*\)[^()]*)?(?:\s+\"[^\"]*\")?\)"), r"\1"),
    (re.compile(r"\[([^\[\]]+)\]\[[^\[\]]*\]"), r"\1"),
    (re.compile(r"^[ \t]*\[[^\]]+\]:.*$", re.MULTILINE), ""),
    (re.compile(r"</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>"), ""),
    (re.compile(r"^[ \t]*\|.*$|^[ \t]*[+=-][+=-]{2,}[+=\- ]*\+[ \t]*$", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*(?:https?://\S+|\$ .*)$", re.MULTILINE), ""),
)
