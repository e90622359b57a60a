"""Checks of a mixer that decodes: its states, and that what it gives is what whole rows give."""

import torch

from lilliput.check.compare import check_equal
from lilliput.check.layers import MixerLayer
from lilliput.check.result import CheckFailed, place_of
from lilliput.nn.mixer import State

ROW, ROOM = 20, 27
"""Positions of a row, and those that its state has room for: more, as in an engine."""
PARTS = ((1,) * ROW, (7, 1, 9, 3))
"""Ways to cut a row: step by step, and in chunks."""
UNEQUAL = ((4, 5, 2), (3, 0, 0), (4, 0, 3), (0, 6, 1))
"""Positions that each row of a batch takes of each pass; some pause, one begins later."""
NARROW_TOLERANCE = 0.05
"""Tolerance relative to the largest value for states of 16 bits: bf16 rounds by up to 1/256, again and again."""


@torch.no_grad()
def decodes_parts(layer: MixerLayer) -> str:
    """Decoding step by step, and in chunks, gives what whole rows give."""
    x = layer.stream(2, ROW)
    whole = layer.whole(x)
    for parts in PARTS:
        state, position, found = layer.empty_state(2, ROOM), 0, []
        shapes = _shapes(state)
        for part in x.split(parts, dim=1):
            size = part.shape[1]
            found.append(layer.decode(part, state, [position] * 2, [size] * 2))
            position += size
        how = "step by step" if parts[0] == 1 else f"in chunks of {', '.join(map(str, parts))} positions"
        check_equal(
            torch.cat(found, dim=1),
            whole,
            f"decoding {how}, and whole rows",
            where=layer.where("decode"),
            hint="let the state hold all that later positions need, and change it in place",
        )
        if _shapes(state) != shapes:
            raise CheckFailed(
                f"the state is {_shapes(state)} after {ROW} positions, and {shapes} before the first",
                where=layer.where("decode"),
                hint="change the tensors of empty_state in place: rows are copied between states of one shape",
            )
    return ""


@torch.no_grad()
def decodes_padded_rows(layer: MixerLayer) -> str:
    """Rows that take unlike numbers of positions of a pass are single rows, whatever the padding holds."""
    rows, passes = len(UNEQUAL), len(UNEQUAL[0])
    texts = [layer.stream(1, sum(taken), seed=row)[0] for row, taken in enumerate(UNEQUAL)]
    state, positions = layer.empty_state(rows, ROOM), [0] * rows
    found: list[list[torch.Tensor]] = [[] for _ in range(rows)]
    for number in range(passes):
        lengths = [taken[number] for taken in UNEQUAL]
        x = 5 * layer.stream(rows, max(lengths), seed=90 + number)
        for row, length in enumerate(lengths):
            x[row, :length] = texts[row][positions[row] : positions[row] + length]
        made = layer.decode(x, state, positions, lengths)
        for row, length in enumerate(lengths):
            found[row].append(made[row, :length])
            positions[row] += length
    for row, (text, parts) in enumerate(zip(texts, found, strict=True)):
        check_equal(
            torch.cat(parts),
            layer.whole(text[None])[0],
            f"row {row} of a batch of {rows}, which takes {UNEQUAL[row]} positions of three passes, and the row alone",
            where=layer.where("decode"),
            hint="let what lies at and behind `lengths` of a row leave its state alone, and count from `positions`",
        )
    return ""


@torch.no_grad()
def decodes_narrow_states(layer: MixerLayer) -> str:
    """States that are stored in 16 bits stay so, and give nearly what whole rows give."""
    x, row = layer.stream(2, ROW), layer.whole(layer.stream(2, ROW))
    for dtype in (torch.float16, torch.bfloat16):
        stored = layer.empty_state(2, ROOM)
        state = {name: one.to(dtype) if one.is_floating_point() else one for name, one in stored.items()}
        before, position, found = {name: one.dtype for name, one in state.items()}, 0, []
        for part in x.split(PARTS[1], dim=1):
            found.append(layer.decode(part, state, [position] * 2, [part.shape[1]] * 2))
            position += part.shape[1]
        check_equal(
            torch.cat(found, dim=1),
            row,
            f"decoding with states stored in {dtype}, and whole rows",
            where=layer.where("decode"),
            hint="widen what is read of a state, compute in that, and let `copy_` round what is written",
            tolerance=NARROW_TOLERANCE,
        )
        if (after := {name: one.dtype for name, one in state.items()}) != before:
            raise CheckFailed(
                f"the state has {after} after {ROW} positions, and {before} before the first",
                where=layer.where("decode"),
                hint="change the tensors of the state in place",
            )
    return ""


@torch.no_grad()
def forks(layer: MixerLayer) -> str:
    """A copied row continues as its original; rows used again begin from an empty state."""
    x, other = layer.stream(1, ROW), layer.stream(1, ROW, seed=1)
    state, half = layer.empty_state(3, ROOM), ROW // 2
    for name, tensor in state.items():
        if tensor.ndim < 1 or len(tensor) != 3:
            raise CheckFailed(
                f"the state of 3 rows has {name!r} of shape {list(tensor.shape)}",
                where=layer.where("empty_state"),
                hint="let rows come first: copying, forking and saving a row is the same for every mixer",
            )
    fresh = layer.empty_state(3, ROOM)
    first = torch.cat((x[:, :half], other[:, :half], x[:, :half]))
    layer.decode(first, state, [0] * 3, [half] * 3)
    for name, tensor in state.items():
        tensor[1] = tensor[0]  # a fork
        tensor[2] = fresh[name][2]  # a row that is used again
    going_on = torch.cat((x[:, half:], x[:, half:], other[:, :half]))
    made = layer.decode(going_on, state, [half, half, 0], [ROW - half] * 3)
    expected = torch.cat((layer.whole(x)[:, half:],) * 2 + (layer.whole(other[:, :half]),))
    for row, what in enumerate(("a row", "a fork of a row", "a row that is used again")):
        check_equal(
            made[row],
            expected[row],
            f"what decoding gives of {what}, and whole rows",
            where=layer.where("decode"),
            hint="keep all of a row in its part of the state: nothing beside it, nothing for several rows",
        )
    return ""


def holds_state_entries(layer: MixerLayer) -> str:
    """The spec says as many numbers as a row's state has."""
    for length in (16, 48):
        state = layer.empty_state(2, length)
        held = sum(tensor.numel() for tensor in state.values()) // 2
        said = layer.spec.state_entries(layer.width, length, layer.index)
        if held != said:
            raise CheckFailed(
                f"state_entries says {said:,} numbers after {length} positions at width {layer.width}, and the state "
                f"of a row has {held:,}",
                where=f"{place_of(layer.spec, 'state_entries')}, layer {layer.index}",
                hint="count what empty_state(1, length) holds: plans say the memory of decoding by it",
            )
    return ""


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
