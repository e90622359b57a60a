"""Strings that end a text, wherever the borders of tokens lie in them."""

from collections.abc import Sequence


class StopStrings:
    """Holds back what may be the beginning of a stop string, until it is known.

    Args:
        strings: any of them ends the text, and is not part of it.
    """

    def __init__(self, strings: Sequence[str]):
        self._strings = strings
        self._longest = max(map(len, strings), default=0)
        self._held = ""

    def add(self, piece: str) -> tuple[str, bool]:
        """Return what can be shown with a next piece, and whether the text has ended."""
        text = self._held + piece
        found = [(place + len(one), place) for one in self._strings if (place := text.find(one)) >= 0]
        if found:  # the one that is complete first, however the text was cut into pieces
            self._held = ""
            return text[: min(found)[1]], True
        held = self._beginning(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def rest(self) -> str:
        """Return what was held back, at the end of a text."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Return how many of the last characters are the beginning of a stop string, at most."""
        sizes = range(min(self._longest - 1, len(text)), 0, -1)
        return next((size for size in sizes if any(one.startswith(text[-size:]) for one in self._strings)), 0)
