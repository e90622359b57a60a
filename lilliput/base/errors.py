"""Errors a person can act on: what is wrong with which value, where it came from, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class LilliputError(Exception):
    """An error caused by input, never by a bug of ours (those are plain assertions).

    Args:
        what: what is wrong, naming the value.
        where: the file, recipe field or command the value came from.
        hint: the next thing to do.
    """

    def __init__(self, what: str, *, where: str, hint: str):
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __reduce__(self) -> tuple[Any, ...]:  # as it comes from another process
        return _remade, (type(self), self.what, self.where, self.hint)

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  hint: {self.hint}"


def _remade(kind: type[LilliputError], what: str, where: str, hint: str) -> LilliputError:
    return kind(what, where=where, hint=hint)


class RecipeError(LilliputError):
    """A recipe, a machine or an override is invalid."""


class DataError(LilliputError):
    """A corpus, a tokenizer or a shard cannot be read, or does not match the rest."""


class RunError(LilliputError):
    """A run folder has another format, is damaged, is in use, or cannot be written."""


class InUseError(RunError):
    """Another process has the run open."""


class DivergenceError(RunError):
    """Training diverged, and would again."""


class ExportError(LilliputError):
    """A model cannot be published: the layout cannot express it, or exported and native logits differ."""


class MachineError(LilliputError):
    """This machine cannot do what was asked of it."""


@contextmanager
def reading(
    where: str | Path, hint: str, what: str = "it cannot be read", *, kind: "type[LilliputError] | None" = None
) -> Iterator[None]:
    """Turn any exception from reading an outside file into a three-part error.

    Such a file may hold anything: JSON of another shape, nested a thousand deep, or numbers out of range. The
    possible failures cannot be listed, so this is the one place that catches every exception. Our own errors pass
    unchanged.

    Args:
        where: the file or folder that is read.
        hint: the next thing to do.
        what: what is wrong, before the reason in parentheses.
        kind: the class of the error; None for `RunError`.

    Raises:
        LilliputError: of that kind, if the file cannot be read.
    """
    try:
        yield
    except (LilliputError, MemoryError):
        raise
    except Exception as error:
        raise (kind or RunError)(f"{what} ({_in_short(error)})", where=str(where), hint=hint) from error
    except BaseException as error:
        if not is_panic(error):
            raise
        raise (kind or RunError)(f"{what} ({_in_short(error)})", where=str(where), hint=hint) from error


def is_panic(error: BaseException) -> bool:
    """Return whether native code panicked, which pyo3 hides from `except Exception`; its class cannot be imported."""
    return type(error).__name__ == "PanicException"


def _in_short(error: BaseException) -> str:
    """Return an error's class and the beginning of its message, on one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__
