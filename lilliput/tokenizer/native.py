"""Calls into the tokenizers library, whose native code panics where it meets what it did not expect."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lilliput.base.errors import DataError, is_panic


@contextmanager
def native(where: str) -> Iterator[None]:
    """Make a panic an error like any other: as it comes, `except Exception` does not see it.

    Raises:
        DataError: the library panicked.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise DataError(
            f"the rules of the tokenizer fail ({error!s:.300})",
            where=where,
            hint="use another tokenizer, or fix this one: one of its regular expressions may take too long",
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing on the terminal meanwhile: native code reports a panic there, with pages of addresses.

    It takes the whole process's standard error, so only for moments.
    """
    try:
        terminal = os.dup(2)
    except OSError:  # closed, so nothing can be said
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        with suppress(OSError):
            os.close(terminal)
