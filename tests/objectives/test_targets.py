"""Bags and their targets: token superposition, patch-level training and multi-token prediction, against plain sums."""

from dataclasses import replace

import pytest
import tiny
import torch
import torch.nn.functional as F

from lilliput.base.errors import RecipeError
from lilliput.base.spec import to_plain
from lilliput.data.batch import Batch
from lilliput.objectives.bags import bags, of_one_document, target_mask
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.objectives.targets import MultiToken, Targets
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.ops.fused_linear_cross_entropy import fused_linear_cross_entropy

LENGTH = 5
"""Positions of a row."""
MODES = {
    "both sides": NextToken(bag=4),
    "inputs": NextToken(bag=4, targets=Targets(count=1)),
    "outputs": NextToken(targets=Targets(count=4)),
    "a prefix of the bag": NextToken(bag=4, targets=Targets(count=2)),
    "power law": NextToken(bag=3, targets=Targets(power=1.0)),
    "multi-token": NextToken(further=MultiToken(count=2, weight=0.4)),
    "bags and multi-token": NextToken(bag=2, targets=Targets(power=1.0), further=MultiToken(count=3, weight=0.4)),
}
modes = pytest.mark.parametrize("objective", MODES.values(), ids=MODES)


@pytest.fixture
def model():
    return tiny.GQA_SPEC.build(seed=0).double()


def batch_of(objective, rows=3, **changes):
    length = objective.row_length(LENGTH)
    tokens = torch.randint(0, 300, (rows, length), generator=torch.Generator().manual_seed(5))
    document_ids = torch.zeros(rows, length, dtype=torch.int32)
    return Batch(**{"tokens": tokens, "weight": torch.ones(rows, length), "document_ids": document_ids} | changes)


def losses(objective, model, batch, progress=0.0):
    (module,) = build_objectives([objective], model, seed=0)
    return module(batch, objective.denominator(batch), 0, torch.tensor(progress), Noise("cpu"))


def logits_of(model, tokens, bag):
    """Of rows of whole bags, by an embedding and a mean."""
    x = F.embedding(tokens.unflatten(1, (-1, bag)), model.embedding.weight).mean(dim=-2)
    return model.logits(model.forward_layers(x))


def weights_of(objective, progress):
    """The weights of the targets of a position, by the definition."""
    near = [1 / (place + 1) ** objective.targets.power for place in range(objective.targets.count or objective.bag)]
    near = [weight / sum(near) for weight in near]
    further = objective.further
    if further is None:
        return near
    fallen = further.weight * max(0.0, 1 - progress / further.until)
    return [weight / (1 + fallen) for weight in [*near, *further.count * [fallen / further.count]]]


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
@modes
def test_the_loss_is_the_weighted_mean_of_ordinary_cross_entropies(model, objective, progress):
    batch = batch_of(objective)
    bag, weights = objective.bag, weights_of(objective, progress)
    assert sum(weights) == pytest.approx(1)
    logits = logits_of(model, batch.tokens[:, : LENGTH * bag], bag)
    each = []
    for place in range(len(weights)):
        targets = batch.tokens[:, bag + place :][:, ::bag][:, :LENGTH]
        each.append(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    expected = sum(weight * one for weight, one in zip(weights, each, strict=True))
    found = losses(objective, model, batch, progress)
    assert torch.allclose(found.loss, expected, atol=1e-6)
    near = weights_of(replace(objective, further=None), progress)
    headline = sum(weight * one for weight, one in zip(near, each, strict=False))
    assert torch.allclose(found.terms["cross_entropy"], headline, atol=1e-6), "of the targets, not of those after them"
    parameters = list(model.parameters())
    for ours, plain in zip(*(torch.autograd.grad(one, parameters) for one in (found.loss, expected)), strict=True):
        assert torch.allclose(ours, plain, atol=1e-6)


def test_a_bag_of_one_is_ordinary_training_to_the_bit():
    model, objective = tiny.GQA_SPEC.build(seed=0), NextToken()
    batch = batch_of(objective)
    targets, weight = batch.tokens[:, 1:, None], batch.weight[:, 1:, None]
    hidden = model.norm(model.forward_layers(model.embed(batch.tokens[:, :-1, None]), document_ids=None))
    plain = fused_linear_cross_entropy(hidden, model.head_weight, targets, weight).total * (1 / float(weight.sum()))
    assert plain.equal(losses(objective, model, batch).loss)
    ended = NextToken(further=MultiToken(count=2, weight=0.4, until=0.5))
    batch = batch_of(ended)
    ordinary = replace(batch, **{name: getattr(batch, name)[:, :-2] for name in ("tokens", "weight", "document_ids")})
    assert losses(ended, model, batch, progress=0.5).loss.equal(losses(objective, model, ordinary).loss)


def test_a_bag_of_one_has_the_plain_form_that_it_had():
    assert to_plain(NextToken()).keys() == {"type", "bag", "route", "terms"}
    assert {"targets", "further"} <= to_plain(MODES["bags and multi-token"]).keys()


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_gradient_of_a_logit_is_its_probability_less_the_weights_of_its_targets(power):
    shares = torch.tensor(Targets(count=4, power=power).shares(1), dtype=torch.float64) / 4
    logits = torch.randn(1, 6, 9, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 9, (1, 6, 4))
    targets[0, 0] = 3  # as often as it is there its weights add up
    total = fused_linear_cross_entropy(logits, torch.eye(9, dtype=torch.float64), targets, shares.expand(1, 6, 4)).total
    (found,) = torch.autograd.grad(total, logits)
    hot = (F.one_hot(targets, 9) * shares[:, None]).sum(dim=-2)
    assert torch.allclose(found, logits.softmax(-1) - hot, atol=1e-12)


def test_bag_j_of_counted_tokens_is_charged_for_those_after_it():
    row = torch.arange(20)[None]
    inputs, targets = bags(row, 4)
    assert inputs.tolist() == [[[4 * j + i for i in range(4)] for j in range(4)]]
    assert targets.tolist() == [[[4 * (j + 1) + i for i in range(4)] for j in range(4)]]
    inputs, targets = bags(row[:, :15], 4, 3)  # three bags and the three tokens ahead
    assert targets.tolist() == [[[4, 5, 6], [8, 9, 10], [12, 13, 14]]] and inputs.shape == (1, 3, 4)


@modes
def test_rows_that_overlap_by_what_is_ahead_charge_every_position_once(objective):
    """A row reads on where the positions of the one before end; tokens a position are those of its bag."""
    length = objective.row_length(LENGTH)
    overlap = length - LENGTH * objective.tokens_per_position
    assert overlap == objective.ahead
    text, read = torch.arange(100), []
    for row in range(3):
        begin = row * (length - overlap)
        inputs, targets = bags(text[None, begin : begin + length], objective.bag, objective.ahead)
        assert (targets[..., 0] == inputs[..., -1] + 1).all()
        read += inputs.flatten().tolist()
    assert read == list(range(3 * LENGTH * objective.tokens_per_position))


def test_no_bag_is_of_two_documents():
    document_ids = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3]])
    tokens = torch.arange(16)[None]
    (inputs, _), (documents, target_documents) = bags(tokens, 4), bags(document_ids, 4)
    read = of_one_document(inputs, documents)
    assert read.tolist() == [[[0, 1, 2, 3], [6, 6, 6, 7], [11, 11, 11, 11]]], "filled up with a document's beginning"
    assert target_mask(target_documents, 4)[0, :, 0].tolist() == [False, False, True]
    both = target_mask(torch.tensor([[[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]]]), 2)
    assert both.int().tolist() == [[[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]], "further targets count one by one"


@modes
def test_what_another_document_says_changes_nothing(model, objective):
    """Neither in a bag that it ends in, nor as a target beside those of the next one."""
    batch = batch_of(objective, rows=1)
    length = batch.tokens.shape[1]
    begin = 2 * objective.bag + objective.bag // 2
    document_ids = (torch.arange(length)[None] >= begin).int()
    batch = replace(batch, document_ids=document_ids)
    changed = batch.tokens.clone()
    changed[:, 2 * objective.bag : begin] += 1  # the end of the first document, in a bag with the next one's beginning
    (module,) = build_objectives([objective], model, seed=0)
    noise, denominator, late = Noise("cpu"), objective.denominator(batch), torch.zeros_like(batch.weight)
    late[:, begin + objective.bag :] = 1
    one, other = (
        module(replace(batch, tokens=tokens, weight=late), denominator, 0, torch.zeros(()), noise).loss
        for tokens in (batch.tokens, changed % 300)
    )
    assert one > 0 and one.equal(other)


@modes
def test_micro_batches_add_up_and_weights_leave_tokens_out(model, objective):
    objective = replace(objective, terms=(CrossEntropy(), ZLoss(weight=1e-2)))
    length = objective.row_length(LENGTH)
    whole = batch_of(objective, rows=4, weight=torch.rand(4, length, generator=torch.Generator().manual_seed(1)))
    (module,) = build_objectives([objective], model, seed=0)
    total, progress = objective.denominator(whole), torch.tensor(0.3)

    def loss(rows):
        part = whole.map(lambda one: one[rows])
        return module(part, total, 0, progress, Noise("cpu")).loss, objective.denominator(part)

    parts = [loss(slice(0, 1)), loss(slice(1, 4))]
    assert torch.allclose(sum(part for part, _ in parts), loss(slice(0, 4))[0], atol=1e-12)
    assert sum(one for _, one in parts) == pytest.approx(total)


@modes
@torch.no_grad()
def test_held_out_text_is_measured_token_by_token(model, objective):
    (module,), batch = build_objectives([objective], model, seed=0), batch_of(NextToken())
    total, weight = module.evaluate(batch)
    plain = F.cross_entropy(model(batch.tokens[:, :-1]).flatten(0, 1), batch.tokens[:, 1:].flatten())
    assert total / weight == pytest.approx(float(plain), abs=1e-6)


def test_what_cannot_be_is_refused():
    for wrong in (
        lambda: NextToken(bag=0),
        lambda: Targets(count=0),
        lambda: Targets(power=-1.0),
        lambda: MultiToken(count=0),
        lambda: MultiToken(until=0.0),
    ):
        with pytest.raises(RecipeError, match="cannot be"):
            wrong()
