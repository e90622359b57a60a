"""The end of a phase whose blocks were trained by several ranks: each of them ends with the same merged checkpoints.

A merged checkpoint has an empty kind of tensors, `merged`: a rank that is killed here and resumes asks for nothing that
it has. What a rank hands out stays in the store as long as another one may need it.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from lilliput.data.batch import Cursor
from lilliput.train import checkpoint
from lilliput.train.checkpoint import Checkpoint, Progress
from lilliput.train.merge import BY_PARAMETER, merged
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.phase import StepPlan
from lilliput.train.ranks import METRICS, Ranks
from lilliput.train.trainable import Trainable

MERGED = "merged"
"""Kind of tensors, of which there are none, that tells a merged checkpoint from one of a rank."""
HEAD = "head"
"""Name of the tensor of bytes with what is no tensor: the progress, and the parameters that the rank owns."""


def places_to_merge(
    plan: StepPlan, folder: Path, before_decay: Path | None, kept: Path | None
) -> list[tuple[Path, int]]:
    """Return the folders and steps of the checkpoints of a phase that outlive it; that of its end comes first.

    Args:
        plan: of the phase.
        folder: of its checkpoints.
        before_decay: the folder of the one before the decay; None for none.
        kept: the folder of those that it keeps; None for none.
    """
    places = [(folder, plan.steps)]
    if before_decay is not None and plan.stable_until is not None:
        places.append((before_decay, plan.stable_until))
    return places if kept is None else places + [(kept, step) for step in plan.kept_steps]


def gather(
    ranks: Ranks, phase: str, trainable: Trainable, places: Sequence[tuple[Path, int]], logger: MetricsLogger
) -> Checkpoint:
    """Merge checkpoints of a phase, and its metrics, with those of the other ranks.

    Args:
        ranks: of the phase.
        phase: its name.
        trainable: what it trains.
        places: each folder of checkpoints, and the step of the one in it; the end of the phase comes first.
        logger: whose lines are merged.

    Returns:
        the merged checkpoint of the end of the phase.
    """
    owned = {name for each in trainable.variants if ranks.owns(*each) for name in trainable.active(*each)}
    last = checkpoint.load(checkpoint.at_step(*places[0]))
    if MERGED in last.tensors:
        return last
    logger.merge(ranks.gather(f"{phase}/{METRICS}", logger.lines()), ranks.rank)
    for number, (folder, step) in reversed(list(enumerate(places))):  # the end comes last: with it all is done
        last = checkpoint.load(checkpoint.at_step(folder, step))
        if MERGED not in last.tensors:
            own = to_bytes(last, owned, trainable.owned_buffers().keys())
            parts = ranks.gather(f"{phase}/{number}/{step}", own)
            last = over(last, [from_bytes(part) for part in parts])
            checkpoint.save(folder, last, kept=None)
    return last


def over(own: Checkpoint, parts: Sequence[tuple[Checkpoint, Collection[str]]]) -> Checkpoint:
    """Return the merge of the parts of all ranks; what none of them trains is this rank's own, and equal everywhere."""
    found = merged([part for part, _ in parts], [names for _, names in parts])
    tensors = {kind: dict(own.tensors[kind]) | dict(found.tensors.get(kind, {})) for kind in own.tensors}
    for kind in ("precision", "guard"):
        tensors[kind] = dict(found.tensors.get(kind, {}))
    return Checkpoint(progress=found.progress, tensors=tensors | {MERGED: {}})


def to_bytes(own: Checkpoint, owned: Collection[str], buffers: Collection[str] = ()) -> bytes:
    """Return the part of a rank's checkpoint that others lack.

    Args:
        own: the checkpoint.
        owned: names of the parameters that the rank trains.
        buffers: names of what is no parameter and changes in training.
    """
    progress = own.progress
    head = {
        "step": progress.step,
        "cursor": progress.cursor.to_plain(),
        "tokens": progress.tokens,
        "before": progress.before,
        "owned": sorted(owned),
    }
    tensors = {
        f"{kind}/{key}": value.contiguous()
        for kind, its in own.tensors.items()
        for key, value in its.items()
        if kind not in BY_PARAMETER or _parameter(kind, key) in {*owned, *buffers}
    }
    return save(tensors | {HEAD: torch.frombuffer(bytearray(json.dumps(head).encode()), dtype=torch.uint8)})


def from_bytes(payload: bytes) -> tuple[Checkpoint, Collection[str]]:
    """Return what `to_bytes` was given: a part of a checkpoint, and the parameters that its rank owns."""
    flat = load(payload)
    head = json.loads(flat.pop(HEAD).numpy().tobytes())
    tensors: dict[str, dict[str, Tensor]] = {kind: {} for kind in BY_PARAMETER}
    for key, value in flat.items():
        kind, _, name = key.partition("/")
        tensors.setdefault(kind, {})[name] = value
    cursor = Cursor.from_plain(head["cursor"])
    progress = Progress(step=head["step"], cursor=cursor, tokens=head["tokens"], before=head["before"])
    return Checkpoint(progress=progress, tensors=tensors), set(head["owned"])


def _parameter(kind: str, key: str) -> str:
    """Return the name of the parameter that a tensor belongs to."""
    return key.rpartition("/")[0] if kind == "optimizer" else key
