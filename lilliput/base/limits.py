"""Limits of what is read from strangers: far above all that is real, far below what a machine chokes on.

Each can be set for one command: `LILLIPUT_MAX_LINE_BYTES=1000000000 lilliput data RUN`.
"""

import os
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from lilliput.base.errors import LilliputError

MIB = 1 << 20
DEFAULTS = {
    "config_bytes": 16 * MIB,  # of a config.json and of the other small files beside weights
    "header_bytes": 32 * MIB,  # of a file of weights: some 100 bytes a tensor
    "model_layers": 2_000,
    "code_bytes": 1 * MIB,  # of a Python file of a recipe
    "code_files": 256,
    "line_bytes": 32 * MIB,
    "document_bytes": 32 * MIB,
    "template_characters": 1_000_000,  # of a chat template, and of the text that it makes
    "template_seconds": 10,
    "template_bytes": 512 * MIB,  # of memory, above what the process that renders starts with
    "tokenizer_bytes": 256 * MIB,
    "tokenizer_growth": 64,  # characters that a tokenizer's rules may make of one
    "tokenizer_steps": 256,  # in which a tokenizer reads or writes a text
    "token_characters": 4_096,
    "uncut_bytes": 8 * MIB,  # of a text that a tokenizer has to read at once, with some 150 bytes of memory for each
}
LONGEST_NAME = 255
"""Bytes of a file's name that every file system takes."""


def limit(name: str) -> int:
    """The limit of that name, from the environment where it says one.

    Raises:
        LilliputError: what the environment says is no whole number above 0.
    """
    text = os.environ.get(variable(name))
    if text is None:
        return DEFAULTS[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) > 0):
        raise LilliputError(
            f"{variable(name)} is {text!r:.80}",
            where="the environment",
            hint=f"give a whole number above 0, such as {DEFAULTS[name]}, or unset it",
        )
    return int(text)


def variable(name: str) -> str:
    """The environment variable that sets a limit."""
    return f"LILLIPUT_MAX_{name.upper()}"


def raising(name: str) -> str:
    """Return how to go beyond a limit, for the hint of the error about it."""
    return f"where it comes from someone you trust, raise the limit: export {variable(name)}={2 * limit(name)}"


def plain_name(name: Any, *, where: str) -> str:
    """The name of a file, as a file of a stranger gives it: one part of a path, so that it cannot lead elsewhere.

    Raises:
        LilliputError: it is a path, or no name on some system.
    """
    if (
        isinstance(name, str)
        and name.isprintable()  # else a file system may refuse it, or a terminal obey it
        and 0 < len(name.encode()) <= LONGEST_NAME
        and name not in (".", "..")
        and PurePosixPath(name).name == PureWindowsPath(name).name == name
    ):
        return name
    raise LilliputError(
        f"{name!r:.120} is not a plain file name",
        where=where,
        hint="fetch the folder again from a source you trust: its files lie in it, without subfolders",
    )
