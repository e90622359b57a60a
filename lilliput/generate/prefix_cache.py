"""States after the beginnings of texts, kept by content: a text that begins like an earlier one is not read again.

What attention keeps of a text holds what it keeps of each beginning of it, so an entry serves at any length. A
recurrent state serves at its own place alone. Entries are found by a hash of their tokens, which are then compared.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from lilliput.generate.request import Prefix
from lilliput.generate.shared_prefixes import common_length

STRIDE = 32
"""Lengths at which the beginning of an entry that can be cut is found are multiples of it."""


class PrefixCache:
    """Prefixes within a number of bytes; the least recently used one goes first.

    Args:
        most_bytes: of all states together.
        can_be_cut: see `RowStates.can_be_cut`.
    """

    def __init__(self, most_bytes: int, *, can_be_cut: bool):
        self._most, self.can_be_cut = most_bytes, can_be_cut
        self._entries: OrderedDict[bytes, Prefix] = OrderedDict()
        self._places: dict[bytes, dict[bytes, None]] = {}
        """Keys of entries by the hash of their beginnings at which they are found."""
        self._lengths: dict[int, int] = {}
        """Number of entries of each length, where they cannot be cut."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tokens: Sequence[int]) -> tuple[Prefix, int] | None:
        """Return the longest prefix that a text can continue from, and how many of its tokens serve."""
        for key in self._candidates(tokens):
            prefix = self._entries[key]
            common = common_length(tuple(prefix.tokens), tuple(tokens[: len(prefix.tokens)]))
            whole = common == len(prefix.tokens)
            if common == len(tokens) and (prefix.logits is None or not whole):
                common -= 1  # one token has to be read to know what follows
                whole = False
            if common and (whole or self.can_be_cut):
                self._entries.move_to_end(key)
                return prefix, common
        return None

    def __contains__(self, tokens: Sequence[int]) -> bool:
        """Return whether the states after all of these tokens are kept."""
        return any(self._common(key, tokens) == len(tokens) for key in self._candidates(tokens))

    def add(self, prefix: Prefix) -> None:
        """Keep a prefix, in the place of those that it holds."""
        size = _bytes(prefix)
        if size > self._most or not prefix.tokens:
            return
        if self.can_be_cut:
            for key in {*self._candidates(prefix.tokens)}:
                if self._common(key, prefix.tokens) == len(self._entries[key].tokens):
                    self._remove(key)
        places = self._places_of(prefix.tokens)
        key = places[-1]
        if key in self._entries:
            self._remove(key)
        self._entries[key] = prefix
        self.bytes += size
        for place in places if self.can_be_cut else (key,):
            self._places.setdefault(place, {})[key] = None
        self._lengths[len(prefix.tokens)] = self._lengths.get(len(prefix.tokens), 0) + 1
        while self.bytes > self._most:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: bytes) -> None:
        prefix = self._entries.pop(key)
        self.bytes -= _bytes(prefix)
        places = self._places_of(prefix.tokens)
        for place in places if self.can_be_cut else (key,):
            del self._places[place][key]
            if not self._places[place]:
                del self._places[place]
        length = len(prefix.tokens)
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]

    def _candidates(self, tokens: Sequence[int]) -> Iterator[bytes]:
        """Yield the keys of entries that seem to begin a text, or to begin as it does; the longest first."""
        for place in reversed(self._places_of(tokens)):
            if place in self._places:
                yield next(reversed(self._places[place]))

    def _common(self, key: bytes, tokens: Sequence[int]) -> int:
        kept = self._entries[key].tokens
        return common_length(tuple(kept), tuple(tokens[: len(kept)]))

    def _places_of(self, tokens: Sequence[int]) -> list[bytes]:
        """Return hashes of the beginnings of a text at the lengths where entries are found, and of all of it last."""
        if self.can_be_cut:
            lengths = [*range(STRIDE, len(tokens), STRIDE), len(tokens)]
        else:
            lengths = [*sorted(length for length in self._lengths if length < len(tokens)), len(tokens)]
        numbers, hashed, found, begin = array("q", tokens), blake2b(digest_size=16), [], 0
        for end in lengths:
            hashed.update(numbers[begin:end].tobytes())
            found.append(hashed.digest())
            begin = end
        return found


def _bytes(prefix: Prefix) -> int:
    tensors = [*prefix.states.values(), *([] if prefix.logits is None else [prefix.logits])]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
