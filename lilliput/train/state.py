"""All that a phase changes while it trains, as named tensors and back."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lilliput.model import copy_weights
from lilliput.optim.ema import Average, NoAverage
from lilliput.optim.optimizer import load_state_tensors, state_tensors
from lilliput.train.precision import Precision
from lilliput.train.spike_detection import NoDetector, SpikeDetector
from lilliput.train.trainable import Trainable


@dataclass(frozen=True, kw_only=True)
class State:
    """What goes on changing; where the data is read and how far the phase has come is `Progress`."""

    trainable: Trainable
    optimizer: torch.optim.Optimizer
    average: Average | NoAverage
    precision: Precision
    guard: SpikeDetector | NoDetector

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """Return it as it lies in memory: whoever keeps the tensors copies them."""
        return {
            "weights": dict(self.trainable.model.named_parameters()),
            "objectives": self.trainable.owned_tensors(),
            "average": self.average.tensors,
            "optimizer": state_tensors(self.optimizer, self.trainable),
            "precision": self.precision.tensors(),
            "guard": self.guard.tensors(),
        }

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Resume from what `tensors` gave; of an optimizer that has not stepped yet."""
        copy_weights(self.trainable.model, tensors["weights"])
        self.trainable.load_owned(tensors.get("objectives", {}))
        load_state_tensors(self.optimizer, self.trainable, dict(tensors["optimizer"]))
        for name, value in self.average.tensors.items():
            value.copy_(tensors["average"][name])
        self.precision.load(dict(tensors.get("precision", {})))
        self.guard.load(dict(tensors.get("guard", {})))
