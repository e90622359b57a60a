"""Text that is shown while it is written, broken between words where a line of the terminal ends."""

import re

from rich.cells import cell_len


class Wrapping:
    """Lines of a width, filled piece by piece; a word waits until it is known where it ends.

    Args:
        width: of a line, in columns.
        column: where the first line begins.
    """

    def __init__(self, width: int, column: int = 0):
        self._width, self._column, self._word = width, column, ""

    def add(self, piece: str) -> str:
        """Return what can be shown with a next piece of the text."""
        *parts, self._word = re.split(r"(\s)", self._word + piece)
        return "".join(self._placed(word, blank) for word, blank in zip(parts[::2], parts[1::2], strict=True))

    def rest(self) -> str:
        """Return what is left at the end of the text."""
        word, self._word = self._word, ""
        return self._placed(word, "")

    def _placed(self, word: str, blank: str) -> str:
        size = cell_len(word)
        newline = "\n" if word and self._column > 0 and self._column + size > self._width else ""
        self._column = size + (0 if newline else self._column)
        if blank == "\n":
            self._column = 0
        elif blank and self._column < self._width:
            self._column += 1
        elif blank:  # a line that is full ends here
            blank, self._column = "\n", 0
        return newline + word + blank
