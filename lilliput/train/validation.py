"""Held-out numbers during training: bits per byte of text, nats per answer token of conversations."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import numpy as np
import torch

from lilliput.base.errors import DataError
from lilliput.data.batch import Batch, document_ids_of
from lilliput.data.chat_rows import PackedChats
from lilliput.data.shards import Shards
from lilliput.model import LanguageModel
from lilliput.ops.fused_linear_cross_entropy import fused_linear_cross_entropy
from lilliput.optim.ema import Average, NoAverage
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import LIVE

Measure = Callable[[LanguageModel], dict[str, float]]

MOST = 65_536
"""Positions measured of each corpus, always the same ones: a glance during training, not the released score."""


def make_validator(tokens: Mapping[str, Shards | PackedChats], length: int, machine: Machine) -> Measure:
    """A function that measures a model on the held-out side of each corpus, by name.

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

    def measure(model: LanguageModel) -> dict[str, float]:
        return {
            name: nats_per_answer_token(model, opened, machine)
            if isinstance(opened, PackedChats)
            else bits_per_byte(model, opened, length, machine)
            for name, opened in tokens.items()
        }

    return measure


def validate_ema_and_live(measure: Measure, model: LanguageModel, average: Average | NoAverage) -> dict[str, float]:
    """Numbers of the averaged weights, and those of live ones as `<corpus>/live`; alone where there is no average."""
    live = {f"{name}{LIVE}": value for name, value in measure(model).items()} if average.tensors else {}
    with average.swapped_in(model):
        return measure(model) | live


def bits_per_byte(model: LanguageModel, shards: Shards, length: int, machine: Machine, most: int = MOST) -> float:
    """Nats of every held-out token over ln 2, over the text's UTF-8 bytes (in proportion, where not all are measured).

    Every token is predicted once, from the tokens of its own document that its row of `length` positions holds.
    """
    side = shards.index["sides"]["heldout"]
    rows = islice(shards.rows("heldout", length), max(1, most // length))
    nats, tokens = total_loss(model, _row_batches(rows, machine.held_out_rows(length), shards.end), machine)
    # The very first token of the stream has nothing before it and is no target.
    return nats / math.log(2) / (side["bytes"] * tokens / (side["tokens"] - 1))


def nats_per_answer_token(model: LanguageModel, chats: PackedChats, machine: Machine) -> float:
    """Mean cross-entropy of the tokens that the assistant answers for."""
    rows = range(min(chats.count("heldout"), max(1, MOST // chats.length)))
    size = machine.held_out_rows(chats.length)
    batches = (chats.take("heldout", list(rows[start : start + size])) for start in range(0, len(rows), size))
    nats, tokens = total_loss(model, batches, machine)
    return nats / tokens


def _row_batches(rows: Iterator[tuple[np.ndarray, np.ndarray]], size: int, end: int) -> Iterator[Batch]:
    while part := list(islice(rows, size)):
        tokens = np.stack([row for row, _ in part])
        weight = np.stack([row for _, row in part])
        yield Batch(
            tokens=torch.from_numpy(tokens),
            weight=torch.from_numpy(weight),
            document_ids=torch.from_numpy(document_ids_of(tokens, end)),
        )


def total_loss(model: LanguageModel, batches: Iterator[Batch], machine: Machine) -> tuple[float, float]:
    """Summed cross-entropy in nats, and summed weight, of all targets."""
    nats = tokens = 0.0
    for batch in batches:
        here = batch.to(machine.device)
        # Eager: compiling layers again for other shapes would take longer than measuring.
        with torch.no_grad(), machine.cast(), torch.compiler.set_stance("force_eager"):
            x = model.embed(here.tokens[:, :-1, None])
            hidden = model.forward_layers(x, document_ids=here.document_ids[:, :-1])
            charges = fused_linear_cross_entropy(
                model.norm(hidden),
                model.head_weight,
                here.tokens[:, 1:, None],
                here.weight[:, 1:, None],
                softcap=model.spec.logit_softcap,
            )
        nats += float(charges.loss.cpu().double().sum())  # MPS has no fp64
        tokens += float(batch.weight[:, 1:].sum())
    return nats, tokens
