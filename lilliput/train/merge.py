"""One ordinary checkpoint from those of ranks that own different parameters."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from lilliput.base.errors import RunError
from lilliput.train.checkpoint import Checkpoint

BY_PARAMETER = ("weights", "objectives", "average", "optimizer")
"""Kinds of tensors that belong to a parameter, by its name; those of the optimizer as `<name>/<entry>`."""


AVERAGED = ("weights", "objectives", "average")
"""Kinds of which the mean over ranks means something; moments of several ranks are none of any weights."""


def merged(checkpoints: Sequence[Checkpoint], owned: Sequence[Collection[str]]) -> Checkpoint:
    """Take each parameter, with its average and moments, from the rank that owns it.

    One that several ranks train is the mean of theirs, with the moments of the first rank. What no rank owns, the data
    position, the loss scale and the guard are those of the first rank: a phase that resumes here reads on from there,
    and one that has ended needs none of them.

    Args:
        checkpoints: of each rank, of one phase and after as many steps.
        owned: names of the parameters that each rank owns, as of `Trainable.active` of its variants.

    Raises:
        RunError: the checkpoints are of different steps.
    """
    steps = [one.progress.step for one in checkpoints]
    if len(set(steps)) > 1:
        raise RunError(
            f"the ranks are at steps {', '.join(map(str, steps))}",
            where="the checkpoints to be merged",
            hint="let the slower ones catch up, or merge checkpoints of one step",
        )
    owners = {name: sum(name in names for names in owned) for name in {name for names in owned for name in names}}
    tensors: dict[str, dict[str, Tensor]] = {kind: dict(its) for kind, its in checkpoints[0].tensors.items()}
    for checkpoint, names in zip(checkpoints[1:], owned[1:], strict=True):
        alone = {name for name in names if owners[name] == 1}
        for kind in BY_PARAMETER:
            for key, value in checkpoint.tensors.get(kind, {}).items():
                if (key.rpartition("/")[0] if kind == "optimizer" else key) in alone:
                    tensors[kind][key] = value
    for name in (name for name, count in owners.items() if count > 1):
        for kind in (kind for kind in AVERAGED if name in tensors[kind]):
            each = [one.tensors[kind][name] for one, names in zip(checkpoints, owned, strict=True) if name in names]
            tensors[kind][name] = torch.stack(each).mean(0)
    return Checkpoint(progress=checkpoints[0].progress, tensors=tensors)
