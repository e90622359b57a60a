"""`lilliput check` of objectives and routes, and of phases that are interrupted."""

import re
from dataclasses import dataclass, replace

import pytest
import tiny
import torch
import torch.nn.functional as F
from foreign_objective import Halves, HalvesModule
from torch import nn
from train.test_foreign_objective import Pairs, Preference

from lilliput.check.objective import check_objective
from lilliput.check.resume import check_resuming
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import Losses
from lilliput.objectives.stochastic_tokens import StochasticTokens
from lilliput.objectives.targets import MultiToken, PrefixToken, Targets
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.train.phase import Stage
from lilliput.train.spike_detection import NoGuard

SPEC = replace(tiny.GQA_SPEC, vocab=64)


@dataclass(frozen=True, kw_only=True)
class Own(Halves):
    """The tests' own objective, with a mistake if one is named."""

    mistake: str = ""

    def denominator(self, batch):
        return 1.0 if self.mistake == "a mean" else super().denominator(batch)

    def build(self, model, parts):
        return OwnModule(self, model)


class OwnModule(HalvesModule):
    def active(self, variant):
        found = super().active(variant)
        match self.spec.mistake:
            case "forgets":
                return [one for one in found if one is not self.scale]
            case "too many":
                return [*found, self.spare]
        return found

    def __init__(self, spec, model):
        super().__init__(spec, model)
        if spec.mistake == "too many":
            self.spare = nn.Parameter(torch.zeros(3))
        self.calls = 0

    def forward(self, batch, denominator, variant, progress, noise):
        self.calls += 1
        match self.spec.mistake:
            case "its own batch":
                denominator = self.spec.denominator(batch)
            case "another draw":
                noise = Global()
            case "by place":
                batch = replace(batch, row=torch.arange(len(batch.row)))
            case "remembers":
                denominator = denominator / (1 + 0.01 * self.calls)
        losses = super().forward(batch, denominator, variant, progress, noise)
        match self.spec.mistake:
            case "another term":
                return Losses(losses.loss, {"distance": losses.terms["distance"]})
            case "no number":
                return Losses(losses.loss * torch.inf, losses.terms)
            case "raises":
                raise ValueError("no such\nthing")
        return losses

    def evaluate(self, batch):
        total, weight = super().evaluate(batch)
        return (total, -weight) if self.spec.mistake == "weighs less" else (total, weight)


class Global:
    """Draws from PyTorch's generator, as one that knows no better."""

    def normal(self, rows, *shape, stream=0):
        return torch.randn(len(rows), *shape)


def phase_of(objective, **changes):
    return tiny.pretraining(stages=(Stage(share=1.0, objective=objective),), **changes)


def checked(objective, **changes):
    phase = phase_of(objective, **changes)
    return {one.check: one for one in check_objective(phase.stages[0], phase, SPEC)}


def failed(results):
    return [name for name, result in results.items() if result.state == "failed"]


@pytest.mark.parametrize(
    "objective",
    [
        Own(),
        NextToken(),
        NextToken(bag=4),
        NextToken(terms=(CrossEntropy(), ZLoss())),
        NextToken(bag=2, targets=Targets(power=1.0), further=MultiToken(count=2)),
    ],
    ids=["halves", "next token", "bags", "terms", "targets"],
)
def test_those_without_a_mistake_are_well(objective):
    results = checked(objective)
    assert [one.state for one in results.values()] == ["ok"] * 5, results
    assert results["evaluation"].says.startswith(f"{objective.headline} 4.")


def test_an_objective_of_several_tokenizations_is_checked_on_its_own_data_alone():
    results = checked(NextToken(prefix=PrefixToken()))
    assert results["losses"].state == "skipped" and "prefix_tokens" in results["losses"].says
    results = checked(StochasticTokens())
    assert results["losses"].state == "skipped" and "segmentations/ends" in results["losses"].says


def test_what_no_variant_trains_is_told():
    assert (
        checked(Own())["active"].says == "no variant trains embedding.weight, norm.weight, whose gradients are dropped"
    )


MISTAKES = {
    "its own batch": (
        "micro-batches",
        r"^the loss of variant 0 is 4\.\d+ of a step, and 12\.\d+ summed over its 3 micro-batches$",
    ),
    "a mean": ("micro-batches", r"^the denominators of 3 micro-batches add up to 3, that of all their rows is 1$"),
    "another draw": ("noise", r"^the same step of variant 0 has a loss of [\d.]+, and made again of [\d.]+$"),
    "by place": ("noise", r"^the loss of variant 0 is [\d.]+, and [\d.]+ of the same rows in another order$"),
    "forgets": ("build", r"^no variant of the phase's objectives trains objective\.0\.scale$"),
    "too many": ("active", r"^active\(0\) has objective\.0\.spare of \d+ parameters, and no gradient re"),
    "another term": ("losses", r"^the headline 'denoising' is none of the terms distance$"),
    "no number": ("losses", r"^the loss of variant 0 is inf at progress 0\.0$"),
    "raises": ("losses", r"^ValueError: no such thing$"),
    "weighs less": ("evaluation", r"^evaluate returns a sum of [\d.]+ over a weight of -\d+$"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_by_its_check(mistake):
    check, says = MISTAKES[mistake]
    results = checked(Own(mistake=mistake))
    assert check in failed(results) and re.search(says, results[check].says), results
    assert results[check].where and results[check].hint


def test_an_objective_on_rows_of_another_kind_is_left_out():
    """Random rows are of text; which others it takes only its data knows."""
    results = checked(Preference(), data=Pairs())
    assert [(one.state, one.check) for one in results.values()] == [("skipped", "losses")]
    assert "rows of Pairs" in results["losses"].says
    assert {one.state for one in check_resuming(phase_of(Preference(), data=Pairs()), SPEC)} == {"skipped"}


@dataclass(frozen=True, kw_only=True)
class Weighed(NextToken):
    """Reads what batches bring beside tokens."""

    def build(self, model, parts):
        return WeighedModule(model)


class WeighedModule(nn.Module):
    variants = 1

    def __init__(self, model):
        super().__init__()
        self.model = model

    def active(self, variant):
        return self.model.parameters()

    def evaluate(self, batch):
        return None

    def forward(self, batch, denominator, variant, progress, noise):
        loss = F.mse_loss(self.model(batch.tokens), batch.extras["teacher"]) / denominator
        return Losses(loss, {"cross_entropy": loss.detach()})


def test_an_objective_that_reads_extras_is_left_out():
    (result,) = checked(Weighed()).values()
    assert result.state == "skipped" and "batch.extras['teacher']" in result.says


@pytest.mark.parametrize("objective", [Own(), NextToken()], ids=["halves", "next token"])
def test_an_interrupted_phase_ends_in_the_same_bits(objective):
    results = list(check_resuming(phase_of(objective), SPEC))
    assert [(one.check, one.state) for one in results] == [("resuming", "ok"), ("rollback", "ok")], results
    assert results[1].says == "set back at step 3"


def test_what_an_objective_keeps_beside_its_buffers_is_found():
    resuming, _ = check_resuming(phase_of(Own(mistake="remembers")), SPEC)
    assert resuming.state == "failed"
    assert re.search(
        r"^interrupted before step 4 and resumed, \d+ of \d+ tensors end in other bits .*: [\w./]+ is [\d.e-]+ apart$",
        resuming.says,
    )


def test_a_phase_without_a_guard_is_not_set_back():
    _, rollback = check_resuming(phase_of(NextToken(), guard=NoGuard()), SPEC)
    assert (rollback.state, rollback.says) == ("skipped", "its guard is NoGuard")
