"""`lilliput check` of optimizers: ours are well, and each mistake is found by the check meant for it."""

import re
from dataclasses import dataclass, field, replace

import pytest
import tiny
import torch
from foreign_objective import Halves

from lilliput.check.optimizer import check_optimizer
from lilliput.optim.adamw import AdamW
from lilliput.optim.muon import Muon
from lilliput.optim.normuon import NorMuon
from lilliput.train.phase import Stage


class Momentum(torch.optim.Optimizer):
    """SGD with momentum and decay, as somebody might write it, with a mistake if one is named."""

    def __init__(self, parameters, lr, mistake):
        group = {"params": parameters, "lr": lr, "peak": lr}
        if mistake == "no peak":
            del group["peak"]
        super().__init__([group], {"lr": lr})
        self.mistake, self.beside = mistake, {}

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            rate = group["lr"]
            for one in group["params"]:
                state = self.beside if self.mistake == "keeps beside" else self.state[one]
                key = one if self.mistake == "keeps beside" else "momentum"
                if self.mistake == "decays" or (self.mistake == "decays at no rate" and one.grad is not None):
                    one.mul_(1 - (0.01 if self.mistake == "decays at no rate" else rate))
                if one.grad is None:
                    if self.mistake == "goes on" and key in state:
                        one.sub_(rate * state[key])
                    continue
                if self.mistake == "leaves vectors" and one.ndim == 1:
                    continue
                state[key] = 0.9 * state.get(key, 0.0) + one.grad
                if self.mistake == "counts":
                    state["steps"] = state.get("steps", 0) + 1
                one.sub_(rate * state[key])


@dataclass(frozen=True, kw_only=True)
class SGD:
    mistake: str = ""
    betas: tuple = field(default=())

    def build(self, model):
        parameters = [one for _, one in model.named_parameters()]
        return Momentum(parameters[1:] if self.mistake == "leaves one out" else parameters, 0.01, self.mistake)


def checked(spec, **changes):
    phase = tiny.pretraining(optimizer=spec, **changes)
    return {one.check: one for one in check_optimizer(phase, tiny.GQA_SPEC)}


def failed(results):
    return [name for name, result in results.items() if result.state == "failed"]


HALVES = (Stage(share=1.0, objective=Halves()),)


@pytest.mark.parametrize(
    "spec",
    [SGD(), AdamW(lr=1e-3), AdamW(lr=1e-3, cautious=True), Muon(lr=1e-2, adam_lr=1e-3), NorMuon(lr=1e-2, adam_lr=1e-3)],
    ids=lambda spec: type(spec).__name__,
)
def test_those_without_a_mistake_are_well(spec):
    for stages in (tiny.pretraining().stages, HALVES):
        results = checked(spec, stages=stages)
        assert not failed(results), results
        assert [one.state for one in results.values()] == ["ok"] * 5


MISTAKES = {
    "decays": (
        "leaves what has none",
        r"^embedding\.weight has no gradient in a step, and moved by [\d.e-]+, its weights times -0\.01: by decay$",
    ),
    "goes on": ("leaves what has none", r"has no gradient in a step, and moved by [\d.e-]+: by momentum$"),
    "decays at no rate": ("a rate of 0", r"after a step at a learning rate of 0, and before: [\d.e-]+ apart at \["),
    "keeps beside": ("state", r"two steps after its state was loaded, and without that: [\d.e-]+ apart"),
    "counts": ("state", r"^the state embedding\.weight/steps is a int$"),
    "no peak": ("groups", r"^group 0 of 1, of \d+ parameters, has no `peak`$"),
    "leaves one out": ("groups", r"^embedding\.weight is in 0 groups$"),
    "leaves vectors": ("moves what has a gradient", r"norm\.weight has a gradient, and stays as it is for 3 steps$"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_by_its_check(mistake):
    check, says = MISTAKES[mistake]
    results = checked(SGD(mistake=mistake))
    assert check in failed(results) and re.search(says, results[check].says), results
    assert "test_optimizers.py:" in results[check].where and results[check].hint


def test_it_is_given_what_objectives_own():
    owned = replace(tiny.pretraining(), stages=HALVES, optimizer=SGD(mistake="decays"))
    found = {one.check: one for one in check_optimizer(owned, tiny.GQA_SPEC)}
    assert failed(found) == ["leaves what has none"]
