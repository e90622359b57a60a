"""The web chat: one document that needs nothing but itself and the server that it comes from."""

import re
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent / "page"
LINKED = re.compile(r'<link rel="stylesheet" href="([\w.]+)">|<script src="([\w.]+)"></script>')
"""Tags by which `index.html` names its parts, which also load it from its folder."""
INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


@cache
def page() -> bytes:
    """The document: `index.html` with the styles and scripts that it names inside of it."""
    return LINKED.sub(_inlined, (FOLDER / "index.html").read_text(encoding="utf-8")).encode()


@cache
def policy() -> str:
    """The `Content-Security-Policy` of the document: its own styles and scripts by their hashes, and its own server.

    A browser then runs, loads and sends nothing else, and its scripts cannot turn a text into HTML, whatever a model
    or a user wrote.
    """
    hashes = list(_hashes(page().decode()))
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(value for name, value in hashes if name == "script"),
        "style-src": " ".join(value for name, value in hashes if name == "style"),
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _inlined(match: re.Match[str]) -> str:
    style, script = match.groups()
    text = (FOLDER / (style or script)).read_text(encoding="utf-8")
    return f"<style>\n{text}</style>" if style else f"<script>\n{text}</script>"


def _hashes(document: str) -> Iterator[tuple[str, str]]:
    for name, text in INLINE.findall(document):
        yield name, f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
