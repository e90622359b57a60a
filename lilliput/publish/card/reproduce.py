"""The command that makes a model again, as its card says it: every option, and no folder of somebody's machine."""

import glob
import re
import shlex
from collections.abc import Sequence
from typing import Any

from lilliput.publish.card.record import Part

PRIVATE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]")
"""Beginnings of paths that exist on one machine only."""
SET_PATH = re.compile(rf"(?<==)(?:{PRIVATE.pattern})[^'\"(),]*$|(?<=['\"])(?:{PRIVATE.pattern})[^'\"]*(?=['\"])")
"""Such paths in values of --set: a whole value, or texts in a part that is written by its name."""


def reproduce_command(command: Part | None) -> dict[str, Any] | None:
    """The line to type, and what has to be known about it; None where no command is known.

    Args:
        command: a plain `lilliput.run.command_record.Command`.

    Returns:
        `line`; `recipe`, its file where it has one; whether paths were `shortened`.
    """
    if command is None:
        return None
    recipe, machine = command["recipe"], command.optional("machine")
    sources = [source.partition("=") for source in command["sources"]]
    set_paths = [path for override in command["overrides"] for path in SET_PATH.findall(override)]
    shown = shown_paths([recipe, *([machine] if machine else []), *(path for _, _, path in sources), *set_paths])
    words = ["lilliput", "run", shown[recipe], *(["--shrink"] if command["shrink"] else [])]
    for override in command["overrides"]:
        words += ["--set", SET_PATH.sub(lambda path: shown[path[0]], override)]
    for name, _, path in sources:
        words += ["--source", f"{name}={shown[path]}"]
    for more in command["more_tokens"]:
        words += ["--more-tokens", more]
    words += ["--machine", shown[machine]] if machine else []
    return {
        "line": shlex.join(words),
        "recipe": shown[recipe] if recipe.endswith(".py") else None,
        "shortened": any(path != short for path, short in shown.items()),
    }


def shown_paths(paths: Sequence[str]) -> dict[str, str]:
    """Paths as they were typed; of those from a root or home their end, as long as it takes to tell them apart."""
    private = {path: re.split(r"[/\\]+", path.rstrip("/\\")) for path in paths if PRIVATE.match(path)}
    most = max((len(words) for words in private.values()), default=1)
    for count in range(1, most + 1):
        ends = {path: _end(words, count) for path, words in private.items()}
        if len(set(ends.values())) == len({tuple(words) for words in private.values()}):
            break
    return {path: ends.get(path, path) for path in paths}


def _end(words: list[str], count: int) -> str:
    """The last words of a path, and all of a pattern: it stands for what lies below one folder."""
    pattern = next((index for index, word in enumerate(words) if glob.has_magic(word)), len(words))
    return "/".join(words[min(pattern, max(0, len(words) - count)) :])
