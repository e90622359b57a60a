"""Text of tokens as they come, in pieces of whole characters, at a cost that does not grow with the text."""

from tokenizers import Tokenizer

BEFORE = "a"
"""Tokenizers from SentencePiece drop a blank at the beginning of what they decode, so something stands before it."""
WINDOW = 8
"""Tokens that are decoded again beside a new one: bytes of a character, and blanks that depend on a neighbor."""


class Detokenizer:
    """The text of one sequence of tokens.

    Args:
        tokenizer: whose tokens they are.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._window: list[int] = tokenizer.encode(BEFORE, add_special_tokens=False).ids
        self._shown = len(self._decoded())
        """Characters of the window's text that were returned."""

    def add(self, token: int) -> str:
        """Return what can be shown with a next token; nothing while a character lacks some of its bytes."""
        self._window.append(token)
        text = self._decoded()
        if text.endswith("\ufffd"):
            return ""
        piece, self._shown = text[self._shown :], len(text)
        if len(self._window) >= 2 * WINDOW:
            self._window = self._window[-WINDOW:]
            self._shown = len(self._decoded())
        return piece

    def rest(self) -> str:
        """Return what is left at the end of the text: a character without all of its bytes is U+FFFD."""
        text = self._decoded()
        piece, self._shown = text[self._shown :], len(text)
        return piece

    def _decoded(self) -> str:
        return self._tokenizer.decode(self._window, skip_special_tokens=False)
