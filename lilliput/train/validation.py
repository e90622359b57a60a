"""Held-out numbers during training: an objective's headline, which for language modeling is bits per byte of text and
nats per answer token of conversations."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import numpy as np
import torch

from lilliput.base.errors import DataError
from lilliput.data.batch import Batch, document_ids_of
from lilliput.data.chat_rows import PackedChats
from lilliput.data.shards import Shards
from lilliput.objectives.objective import CROSS_ENTROPY, ObjectiveModule
from lilliput.optim.ema import Average, NoAverage
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import LIVE
from lilliput.train.trainable import Trainable

Measure = Callable[[ObjectiveModule, str], dict[str, float | None]]
"""Held-out numbers by corpus from an objective and the name of its headline; None where it has none."""

MAX_POSITIONS = 65_536
"""Positions measured of each corpus, always the same ones: a glance during training, not the released score."""


def make_validator(
    tokens: Mapping[str, Shards | PackedChats], length: int, machine: Machine, positions: int = MAX_POSITIONS
) -> Measure:
    """Return a function that measures an objective on the held-out side of each corpus, by name.

    Args:
        tokens: opened token files by corpus.
        length: positions of a row of text.
        machine: whose precision and batches.
        positions: measured of each corpus at most.

    Raises:
        DataError: a corpus holds nothing out.
    """
    for name, opened in tokens.items():
        side = opened.index["sides"]["heldout"]
        if not side.get("bytes", side.get("conversations")):
            raise DataError(
                f"nothing of {name!r} is held out",
                where=str(opened.folder),
                hint="hold out more (--set split.share=0.2), or other documents (--set split.salt=2)",
            )

    def measure(objective: ObjectiveModule, headline: str) -> dict[str, float | None]:
        return {
            name: heldout_headline(objective, headline, opened, length, machine, positions)
            for name, opened in tokens.items()
        }

    return measure


def validate_ema_and_live(
    measure: Callable[[], dict[str, float | None]], trainable: Trainable, average: Average | NoAverage
) -> dict[str, float | None]:
    """Return numbers of the averaged weights, and of live ones as `<corpus>/live`; alone where there is no average."""
    live = {f"{name}{LIVE}": value for name, value in measure().items()} if average.tensors else {}
    with average.swapped_in(trainable):
        return measure() | live


def heldout_headline(
    objective: ObjectiveModule,
    headline: str,
    opened: Shards | PackedChats,
    length: int,
    machine: Machine,
    positions: int = MAX_POSITIONS,
) -> float | None:
    """Return the headline's mean over held-out targets; for cross-entropy on text, its bits per byte.

    Every token is predicted once, from the tokens of its own document that its row of `length` positions holds.
    """
    if isinstance(opened, PackedChats):
        total = total_headline(objective, _chat_batches(opened, machine, positions), machine)
    else:
        rows = islice(opened.rows("heldout", length), max(1, positions // length))
        total = total_headline(objective, _row_batches(rows, machine.held_out_rows(length), opened.end), machine)
    if total is None:
        return None
    value, weight = total
    if headline != CROSS_ENTROPY or isinstance(opened, PackedChats):
        return value / weight
    side = opened.index["sides"]["heldout"]
    # In proportion, where not all bytes are measured. The first token of the stream has nothing before it: no target.
    return value / math.log(2) / (side["bytes"] * weight / (side["tokens"] - 1))


def _chat_batches(chats: PackedChats, machine: Machine, positions: int) -> Iterator[Batch]:
    rows = range(min(chats.count("heldout"), max(1, positions // chats.length)))
    size = machine.held_out_rows(chats.length)
    return (chats.take("heldout", list(rows[start : start + size])) for start in range(0, len(rows), size))


def _row_batches(rows: Iterator[tuple[np.ndarray, np.ndarray]], size: int, end: int) -> Iterator[Batch]:
    while part := list(islice(rows, size)):
        tokens = np.stack([row for row, _ in part])
        weight = np.stack([row for _, row in part])
        yield Batch(
            tokens=torch.from_numpy(tokens),
            weight=torch.from_numpy(weight),
            document_ids=torch.from_numpy(document_ids_of(tokens, end)),
        )


def total_headline(
    objective: ObjectiveModule, batches: Iterator[Batch], machine: Machine
) -> tuple[float, float] | None:
    """Return the headline summed over all targets, and their weight; None where the objective defines none."""
    total = weight = 0.0
    for batch in batches:
        # Eager: compiling layers again for other shapes would take longer than measuring.
        with torch.no_grad(), machine.cast(), torch.compiler.set_stance("force_eager"):
            found = objective.evaluate(batch.to(machine.device))
        if found is None:
            return None
        total += float(found[0])
        weight += float(found[1])
    return total, weight
