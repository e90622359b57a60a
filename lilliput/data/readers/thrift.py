"""Structs in the compact protocol of Thrift, in which Parquet files say what they hold.

Arrow's own reader of these ends the process where a footer contradicts itself.
"""

import struct
from typing import Any

_DEEPEST = 16
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


class Reader:
    """Reads structs out of bytes.

    Args:
        data: the bytes.
        offset: where to begin.
    """

    def __init__(self, data: bytes, offset: int = 0):
        self.data, self.offset = data, offset

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The values of the next struct by the numbers of their fields; structs are dicts, lists and sets are lists.

        Raises:
            IndexError: it does not end.
            ValueError: it is no struct.
        """
        if depth > _DEEPEST:
            raise ValueError("a struct of structs without end")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if _BYTE < kind < _DOUBLE:
            return self._signed()
        if kind == _DOUBLE:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 0x0F, depth + 1) for _ in range(count)]
        if kind == _MAP and not self._varint():
            return {}
        raise ValueError(f"a value of kind {kind}")

    def _byte(self) -> int:
        self.offset += 1
        return self.data[self.offset - 1]

    def _bytes(self, count: int) -> bytes:
        self.offset += count
        if self.offset > len(self.data):
            raise IndexError("the bytes end in a value")
        return self.data[self.offset - count : self.offset]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            if (shift := shift + 7) > 63:
                raise ValueError("a number of more than 64 bits")

    def _signed(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
