"""Packing: which items share a row, so that few rows hold all of them."""

from collections.abc import Sequence


def pack(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Best fit, longest first: each item goes into the fullest row with room for it, else into a new one.

    Args:
        sizes: of the items, each in [1, length].
        length: room of a row.

    Returns:
        Places of the items, by row.
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # rows by the room that they have left
    rooms = 0  # bit r: some row has exactly r left; the lowest bit from `size` up is the best fit
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        size = sizes[item]
        assert 1 <= size <= length
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            rooms ^= 0 if with_room[room] else 1 << room
        else:
            room, row = length, len(rows)
            rows.append([])
        rows[row].append(item)
        with_room.setdefault(room - size, []).append(row)
        rooms |= 1 << (room - size)
    return rows
