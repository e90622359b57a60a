"""A queue that turns texts into ids: in this process as long as there are few, then in several."""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from tokenizers import Tokenizer

from lilliput.base.background import run_in_background
from lilliput.base.errors import LilliputError
from lilliput.data.documents import Document, bytes_of
from lilliput.data.encoding_processes import EncodingProcesses
from lilliput.data.resumable import Item, Offset
from lilliput.data.token_files import Side
from lilliput.tokenizer.encoder import Encoder

FEW = 32_000_000
"""Characters that this process encodes in the time that others would take to start, about."""
MOST = 16
"""Processes that one process can feed: it reads a corpus, and writes token files, no faster."""
_TEXTS, _CHARACTERS = 1_024, 4_000_000
"""Texts that wait here at most: enough to keep every core busy, few enough to fit in memory."""
_TOKENS = 1 << 16
"""Tokens that this process encodes at a time, at least."""
_ITEMS, _ALL_CHARACTERS = 16_384, 16_000_000
"""Items that are read ahead at most, those that are not to be encoded too."""


class EncodedText(NamedTuple):
    """A text as ids."""

    ids: "array[int]"
    size: int
    """UTF-8 bytes of the text."""
    side: Side
    """Side of the token files that it was encoded for."""


class EncodingQueue:
    """Encodes texts, whose ids are taken in the order in which they were put. A context manager.

    Args:
        tokenizer: whose ids are asked for, without the spelling of special tokens; it is not to change any more.
        where: the texts come from, for errors.
        code: type of the arrays of ids, as `array` names it.
        processes: that encode once there is much; with one, this process does.
    """

    def __init__(self, tokenizer: Tokenizer, where: str, code: str, processes: int):
        self._encoder = Encoder(tokenizer, where, code=code)
        self._begin = partial(EncodingProcesses, tokenizer, where, code, min(processes, MOST))
        self._most, self._stack = FEW if processes > 1 else float("inf"), ExitStack()
        self._others: EncodingProcesses | None = None
        self._texts: deque[str] = deque()
        self._sizes: deque[int] = deque()
        """Characters of each text that is or was to be encoded here, and was not taken."""
        self._held = self._seen = 0
        self._stream = self._ids()
        self._found: deque[array[int]] = deque()

    def __enter__(self) -> "EncodingQueue":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def encode(
        self, items: Iterable[tuple[Item, Offset]], side_of: Callable[[Document, int], Side | None], first: int
    ) -> Iterator[tuple[Item, Offset, EncodedText | None]]:
        """Yield the items of a corpus in their order, with the ids of the wanted ones; others are read meanwhile.

        Args:
            items: each with the mark after it.
            side_of: tells for which side the document at an index of the corpus is to be encoded; None: it is not.
            first: index of the first item.

        Raises:
            LilliputError: reading met it; all items before it have come by then.
            DataError: a wanted document is no text, or as for `take`.
            MachineError: as for `take`.
        """
        waiting: deque[tuple[Item, Offset, tuple[int, Side] | None]] = deque()
        characters = 0
        read, failure = enumerate(items, first), None
        while True:
            try:
                index, (item, mark) = next(read)
            except StopIteration:
                break
            except LilliputError as error:  # it comes after what was read before it
                failure = error
                break
            facts = None
            if not isinstance(item, str):
                characters += len(item.text)
                if side := side_of(item, index):
                    facts = bytes_of(item), side
                    self.put(item.text)
            waiting.append((item, mark, facts))
            del item  # a long text is not to be kept while the next one is read
            while waiting and (
                waiting[0][2] is None or self.is_full or len(waiting) >= _ITEMS or characters >= _ALL_CHARACTERS
            ):
                characters -= 0 if isinstance(waiting[0][0], str) else len(waiting[0][0].text)
                yield self._with_ids(*waiting.popleft())
        while waiting:
            yield self._with_ids(*waiting.popleft())
        if failure is not None:
            raise failure

    def _with_ids(
        self, item: Item, mark: Offset, facts: tuple[int, Side] | None
    ) -> tuple[Item, Offset, EncodedText | None]:
        return item, mark, None if facts is None else EncodedText(self.take(), *facts)

    @property
    def is_full(self) -> bool:
        """Return whether texts have to be taken before others are put."""
        if self._others is not None:
            return self._others.is_full
        return self._held >= _CHARACTERS or len(self._sizes) >= _TEXTS

    def put(self, text: str) -> None:
        """Give a text to be encoded."""
        if self._others is None and self._seen >= self._most:
            self._others = self._stack.enter_context(self._begin())
        if self._others is not None:
            self._others.put(text)
            return
        self._texts.append(text)
        self._sizes.append(len(text))
        self._held, self._seen = self._held + len(text), self._seen + len(text)

    def take(self) -> "array[int]":
        """The ids of the text that was put first among those that were not taken.

        Raises:
            DataError: it has to be encoded at once and is too long for that, or encoders disagree.
            MachineError: a process cannot be started, or has died.
        """
        if not self._sizes:
            assert self._others is not None, "a text is put before it is taken"
            return self._others.take()
        while not self._found:
            self._found = run_in_background(_some, self._stream)
            if not self._found:  # it met the end of what had been put by then
                self._stream = self._ids()
        self._held -= self._sizes.popleft()
        return self._found.popleft()

    def _ids(self) -> Iterator["array[int]"]:
        return self._encoder.stream(self._waiting(), add_special_tokens=True)

    def _waiting(self) -> Iterator[str]:
        while self._texts:
            yield self._texts.popleft()


def _some(encoded: Iterator["array[int]"]) -> deque["array[int]"]:
    """The ids of a few texts: a thread for each would take longer than they do."""
    some, count = deque(), 0
    for ids in encoded:
        some.append(ids)
        count += len(ids)
        if count >= _TOKENS:
            break
    return some
