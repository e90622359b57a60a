"""Held-out numbers during training: an objective's headline, which for language modeling is in the unit of each corpus:
bits per byte of text, nats per answer token of conversations."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from lilliput.base.errors import DataError
from lilliput.data.batch import Batch
from lilliput.data.corpus_format import TokenFiles
from lilliput.objectives.objective import CROSS_ENTROPY, ObjectiveModule
from lilliput.optim.ema import Average, NoAverage
from lilliput.train.machine import Machine
from lilliput.train.memory import ran_out
from lilliput.train.metrics_file import LIVE
from lilliput.train.samples import Samples, WriteSamples, try_samples
from lilliput.train.trainable import Trainable

Measure = Callable[[ObjectiveModule, str], dict[str, float | None]]
"""Held-out numbers by corpus from an objective and the name of its headline; None where it has none."""

MAX_POSITIONS = 65_536
"""Positions measured of each corpus, always the same ones: a glance during training, not the released score."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Findings about a model at one moment of its training."""

    heldout: dict[str, float | None]
    """Held-out numbers by corpus."""
    samples: Samples = Samples()
    """Texts of the weights that these numbers are of; beside an average, live weights write nothing."""


def make_validator(
    tokens: Mapping[str, TokenFiles], length: int, machine: Machine, positions: int = MAX_POSITIONS
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
        if not opened.heldout_size:
            raise DataError(
                f"nothing of {name!r} is held out",
                where=str(opened.folder),
                hint="hold out a larger share (--set split.share=0.2), or other documents (--set split.salt=2)",
            )

    def measure(objective: ObjectiveModule, headline: str) -> dict[str, float | None]:
        return {
            name: heldout_headline(objective, headline, opened, length, machine, positions)
            for name, opened in tokens.items()
        }

    return measure


def validate_ema_and_live(
    measure: Callable[[], dict[str, float | None]],
    write: WriteSamples | None,
    trainable: Trainable,
    average: Average | NoAverage,
    make_room: Callable[[], None],
) -> Measurement:
    """Return numbers of the averaged weights, and of live ones as `<corpus>/live`; alone where there is no average.

    Args:
        measure: the model as it is.
        write: lets the model write, where held-out numbers are defined: a pass through all layers says nothing
            otherwise. None for no samples.
        trainable: the model and its objectives.
        average: of its weights.
        make_room: releases memory; called where it runs out, and then measured again.
    """
    try:
        return _averaged_and_live(measure, write, trainable, average)
    except RuntimeError as error:
        if not ran_out(error):
            raise
    make_room()
    return _averaged_and_live(measure, write, trainable, average)


def _averaged_and_live(
    measure: Callable[[], dict[str, float | None]],
    write: WriteSamples | None,
    trainable: Trainable,
    average: Average | NoAverage,
) -> Measurement:
    live = {f"{name}{LIVE}": value for name, value in measure().items()} if average.tensors else {}
    with average.swapped_in(trainable):
        numbers = measure()
        is_defined = any(value is not None for value in numbers.values())
        samples = try_samples(write, trainable.model) if write is not None and is_defined else Samples()
        return Measurement(heldout=numbers | live, samples=samples)


def heldout_headline(
    objective: ObjectiveModule,
    headline: str,
    opened: TokenFiles,
    length: int,
    machine: Machine,
    positions: int = MAX_POSITIONS,
) -> float | None:
    """Return the headline's mean over held-out targets; for cross-entropy, in the unit of the corpus's format.

    Every token is predicted once, from the tokens of its own document that its row of `length` positions holds.

    Args:
        objective: the built objective.
        headline: name of its headline.
        opened: token files of the corpus.
        length: positions of a row.
        machine: the machine, resolved.
        positions: most positions of a batch.
    """
    batches = opened.heldout_batches(length, positions, machine.held_out_rows)
    total = total_headline(objective, batches, machine)
    if total is None:
        return None
    return opened.heldout_loss(*total) if headline == CROSS_ENTROPY else total[0] / total[1]


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
