"""Files of somebody's own that a purpose reads, looked at before anybody waits for a probe."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.readers.paths import files_of
from lilliput.start.purposes import Purpose


def readable(purpose: Purpose, name: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Paths from wherever commands will be typed, after their first document or conversation was read.

    Args:
        purpose: that reads them.
        name: of its corpus.
        paths: files, folders and glob patterns.

    Raises:
        DataError: one stands for no file, or for one that holds something else.
    """
    absolute = tuple(os.path.abspath(os.path.expanduser(path)) for path in paths)
    option = f"--{name} {' '.join(paths)}"
    if not files_of(absolute, option):
        raise DataError(f"no path is given for the {name}", where=option, hint="give a file or a folder")
    corpus: Any = replace(purpose.base().corpora[name], paths=absolute)  # type: ignore[type-var]
    next(corpus.conversations() if hasattr(corpus, "conversations") else corpus.documents(), None)
    return absolute
