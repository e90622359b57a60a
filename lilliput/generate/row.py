"""A request that is being answered: its text, and how much of it the states have seen."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from torch import Tensor

from lilliput.generate.detokenizer import Detokenizer
from lilliput.generate.request import End, Request, Token
from lilliput.generate.stop_strings import StopStrings


class Row:
    """The text of one request, prompt and what was written.

    Args:
        number: of the request.
        request: what was asked for.
        tokenizer: makes text of tokens; None for none.
        context: positions that its states have room for; None for any number.
    """

    def __init__(self, number: int, request: Request, tokenizer: Tokenizer | None, context: int | None):
        self.number, self.request, self._context = number, request, context
        self.tokens = list(request.prompt)
        self.start = 0
        """Index of the token at position 0 of the states; more than 0 where the window slid."""
        self.read = 0
        """Positions that the states have seen."""
        self.written = 0
        self.cached_tokens = 0
        """Tokens of the prompt that were not read, because the states after them were kept."""
        self.logits: Tensor | None = None
        """After what was read, [V], as long as nothing was read since."""
        self.is_reading = True
        """True while its prompt, or what a window that slid begins with, is read."""
        self.ended: End | None = None
        self._detokenizer = None if tokenizer is None else Detokenizer(tokenizer)
        self._stops = StopStrings(request.stop_strings)
        if context is not None and len(self.tokens) > context:
            self._slide(context)

    @property
    def is_writing(self) -> bool:
        """Return whether all but the last token is read, and that was chosen here."""
        return not self.is_reading and self.ended is None

    @property
    def can_run_ahead(self) -> bool:
        """Return whether a token may be chosen before the one that is on its way is known: neither fills a length."""
        has_room = self._context is None or self.read + 2 < self._context
        return self.is_writing and self.written + 1 < self.request.max_new_tokens and has_room

    @property
    def unread(self) -> int:
        """Tokens that the states have not seen."""
        return len(self.tokens) - self.start - self.read

    @property
    def read_tokens(self) -> list[int]:
        """Tokens that the states have seen."""
        return self.tokens[self.start : self.start + self.read]

    @property
    def is_whole(self) -> bool:
        """Return whether the window has not slid: the states are those of the text from its beginning."""
        return self.start == 0

    def next_tokens(self, count: int) -> list[int]:
        """Return the first of those that the states have not seen."""
        begin = self.start + self.read
        return self.tokens[begin : begin + count]

    def write(
        self, token: int, log_probability: float | None, top: Sequence[tuple[int, float]] = (), *, slides: bool
    ) -> Token:
        """Add a token to the text, and say whether that ends it.

        Args:
            token: that was chosen.
            log_probability: of the token, if it was asked for.
            top: the likeliest tokens, if they were asked for.
            slides: True if a text may be longer than the context.
        """
        self.tokens.append(token)
        self.written += 1
        self.is_reading = False
        text, stopped = "", token in self.request.stop_token_ids
        if self._detokenizer is not None and not stopped:
            text, stopped = self._stops.add(self._detokenizer.add(token))
        full = self.read == self._context
        if stopped:
            self.ended = "stop"
        elif self.written == self.request.max_new_tokens:
            self.ended = "length"
        elif full and not slides:
            self.ended = "context"
        elif full and self._context is not None:
            self._slide(self._context)
        if self.ended and self._detokenizer is not None:
            text += self._rest(by_token=token in self.request.stop_token_ids, stopped=stopped)
        return Token(self.number, token, text, self.ended, log_probability, top, self.cached_tokens)

    def _rest(self, *, by_token: bool, stopped: bool) -> str:
        """Return the text that was held back, at the end; nothing behind a stop string."""
        assert self._detokenizer is not None
        if stopped and not by_token:
            return ""
        text, ended = self._stops.add(self._detokenizer.rest())
        return text if ended else text + self._stops.rest()

    def _slide(self, context: int) -> None:
        """Forget all but the last part of the text, which is read again; half of the context is free then, or as much
        as is still to be written.
        """
        left = self.request.max_new_tokens - self.written
        kept = max(1, context - min(left, context // 2))
        self.start, self.read, self.is_reading = len(self.tokens) - kept, 0, True
