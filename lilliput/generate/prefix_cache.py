"""States after the beginnings of texts, kept by content: a text that begins like an earlier one is not read again.

What attention keeps of a text holds what it keeps of each beginning of it, so an entry serves at any length. A
recurrent state serves at its own place alone. Entries are sorted by their tokens: what begins as a text does stands
beside the place where the text would be.
"""

from bisect import bisect, insort
from collections import OrderedDict
from collections.abc import Sequence

from lilliput.generate.request import Prefix
from lilliput.generate.shared_prefixes import Row, common_length


class PrefixCache:
    """Prefixes within a number of bytes; the least recently used one goes first.

    Args:
        most_bytes: of all states together.
        can_be_cut: see `RowStates.can_be_cut`.
    """

    def __init__(self, most_bytes: int, *, can_be_cut: bool):
        self._most, self.can_be_cut = most_bytes, can_be_cut
        self._entries: OrderedDict[Row, Prefix] = OrderedDict()
        self._sorted: list[Row] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tokens: Sequence[int]) -> tuple[Prefix, int] | None:
        """Return the longest prefix that a text can continue from, and how many of its tokens serve."""
        text = tuple(tokens)
        known = self._entries.get(text)
        if known is None or known.logits is None:
            text = text[:-1]  # one token has to be read to know what follows
        key = self._nearest(text) if self.can_be_cut else self._beginning(text)
        if not key or not (common := common_length(key, text)):
            return None
        self._entries.move_to_end(key)
        return self._entries[key], common

    def __contains__(self, tokens: Sequence[int]) -> bool:
        """Return whether the states after all of these tokens are kept."""
        text = tuple(tokens)
        return text in self._entries or (self.can_be_cut and self._nearest(text)[: len(text)] == text)

    def add(self, prefix: Prefix) -> None:
        """Keep a prefix, in the place of those that it holds."""
        size, text = _bytes(prefix), tuple(prefix.tokens)
        if size > self._most or not text:
            return
        if text in self._entries:
            self._remove(text)
        while self.can_be_cut and (held := self._beginning(text)):
            self._remove(held)
        self._entries[text] = prefix
        insort(self._sorted, text)
        self.bytes += size
        while self.bytes > self._most:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: Row) -> None:
        self.bytes -= _bytes(self._entries.pop(key))
        del self._sorted[bisect(self._sorted, key) - 1]

    def _nearest(self, text: Row) -> Row:
        """Return the entry that has most of a text's beginning, itself if it can be; an empty one if there is none."""
        place = bisect(self._sorted, text)
        beside = self._sorted[max(0, place - 1) : place + 1]
        return max(beside, key=lambda key: common_length(key, text), default=())

    def _beginning(self, text: Row) -> Row:
        """Return the longest entry that a text begins with; an empty one if there is none."""
        while place := bisect(self._sorted, text):
            before = self._sorted[place - 1]
            common = common_length(before, text)
            if common == len(before):
                return before
            text = text[:common]  # it begins with whatever entry the text begins with, as it stands between the two
        return ()


def _bytes(prefix: Prefix) -> int:
    tensors = [*prefix.states.values(), *([] if prefix.logits is None else [prefix.logits])]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
