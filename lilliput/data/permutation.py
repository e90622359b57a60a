"""A random order of many things without a table of it: any part can be computed by itself, in constant memory.

A Feistel network, in which either half of a number's bits is changed in turn by what the other one says, is a
permutation whatever it says (Luby and Rackoff, SIAM Journal on Computing 17(2), 1988). A number that is led out of
range is led on until it is back within it ("cycle walking", Black and Rogaway, CT-RSA 2002): any count has one.
"""

import hashlib

import numpy as np

from lilliput.data.splitmix64 import mixed

_ROUNDS = 6
"""Four make it hard to tell from a random permutation; two more, since the round function is no cipher."""


class Permutation:
    """Permutation of the numbers from 0 to before `count`, decided by a key.

    Args:
        count: N, at least 1 and at most 2**62.
        key: any text; another one gives another order.
    """

    def __init__(self, count: int, key: str):
        assert 1 <= count <= 2**62
        self._count = count
        bits = (count - 1).bit_length()  # of which all numbers are less than twice as many as `count`
        self._low = np.uint64(bits // 2)
        self._masks = np.uint64((1 << bits - bits // 2) - 1), np.uint64((1 << bits // 2) - 1)
        digest = hashlib.shake_256(key.encode()).digest(8 * _ROUNDS)
        self._keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    def __len__(self) -> int:
        return self._count

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers at these positions of the order.

        Args:
            positions: [N'] integers, each from 0 to before `count`.

        Returns:
            [N'] int64.
        """
        numbers = self._moved(positions.astype(np.uint64))
        outside = np.flatnonzero(numbers >= self._count)
        while len(outside):
            numbers[outside] = self._moved(numbers[outside])
            outside = outside[numbers[outside] >= self._count]
        return numbers.astype(np.int64)

    def _moved(self, numbers: np.ndarray) -> np.ndarray:
        high, low = numbers >> self._low, numbers & self._masks[1]
        for one, other in zip(self._keys[::2], self._keys[1::2], strict=True):
            high = high ^ (mixed(low ^ one) & self._masks[0])
            low = low ^ (mixed(high ^ other) & self._masks[1])
        return high << self._low | low
