"""A growing set of 64-bit hashes in one array: 14 to 27 bytes a key, where a set of Python's takes some seventy."""

import numpy as np

_CHUNK = 1 << 20
"""Keys that move at a time when the table grows."""


class KeySet:
    """Hashes, by open addressing; they have to be well mixed, as their low bits say where they lie."""

    def __init__(self) -> None:
        self._slots = np.zeros(1 << 12, dtype=np.uint64)  # 0 is an empty slot
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, keys: np.ndarray) -> bool:
        """Take in keys, and return whether any of them was there."""
        if 5 * (self._count + len(keys)) > 3 * len(self._slots):
            self._grow()
        return self._insert(np.maximum(keys, np.uint64(1)))

    def _insert(self, keys: np.ndarray) -> bool:
        slots, mask = self._slots, np.uint64(len(self._slots) - 1)
        places, was_there = keys & mask, False
        while len(keys):
            found = slots[places]
            was_there = was_there or bool((found == keys).any())
            empty = found == 0
            slots[places[empty]] = keys[empty]
            left = slots[places] != keys  # another key was there, or came to the same slot just now
            self._count += int(np.count_nonzero(empty & ~left))
            keys, places = keys[left], (places[left] + np.uint64(1)) & mask
        return was_there

    def _grow(self) -> None:
        before = self._slots
        self._slots, self._count = np.zeros(2 * len(before), dtype=np.uint64), 0
        for start in range(0, len(before), _CHUNK):
            part = before[start : start + _CHUNK]
            self._insert(part[part != 0])
