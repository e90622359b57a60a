"""Distillation from a teacher's likeliest tokens against the KL divergence as it is written down."""

from dataclasses import replace

import pytest
import tiny
import torch

from lilliput.base.errors import RecipeError
from lilliput.base.spec import to_plain
from lilliput.data.batch import Batch
from lilliput.data.soft_targets import PROBABILITIES, TOKENS
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.objectives.soft_targets import SoftTargets
from lilliput.objectives.targets import MultiToken
from lilliput.objectives.terms import CrossEntropy, ZLoss

LENGTH, COUNT = 6, 5
SOFT = SoftTargets(share=0.8, until=0.5, count=4)
OBJECTIVE = NextToken(soft=SOFT)


@pytest.fixture
def model():
    return tiny.GQA_SPEC.build(seed=0).double()


def batch_of(objective, rows=3, missing=0.25):
    """Random rows of several documents and weights; a quarter of the tokens has no predictions."""
    draw = torch.Generator().manual_seed(5)
    shape = rows, objective.row_length(LENGTH)
    tokens = torch.randint(0, tiny.VOCAB, shape, generator=draw)
    likeliest = torch.rand(*shape, tiny.VOCAB, generator=draw).softmax(dim=-1).topk(COUNT)
    probabilities = likeliest.values * (torch.rand(shape, generator=draw) >= missing)[..., None]
    return Batch(
        tokens=tokens,
        weight=torch.rand(shape, generator=draw),
        document_ids=(torch.rand(shape, generator=draw) < 0.1).cumsum(dim=1).int(),
        extras={TOKENS: likeliest.indices.int(), PROBABILITIES: probabilities.float()},
    )


def losses(objective, model, batch, progress=0.0):
    (module,) = build_objectives([objective], model, seed=0)
    return module(batch, objective.denominator(batch), 0, torch.tensor(progress), Noise("cpu"))


def naive(model, batch, share):
    """(1 - a) CE + a (KL(q || model) + H(q)), q the `count` likeliest tokens of the teacher, as a full distribution."""
    ids = batch.document_ids
    hidden = model.forward_layers(model.embed(batch.tokens[:, :-1, None]), document_ids=ids[:, :-1])
    predicted = model.logits(hidden).log_softmax(dim=-1)
    true = -predicted.gather(-1, batch.tokens[:, 1:, None])[..., 0]
    teacher = torch.zeros_like(predicted)
    kept = batch.extras[PROBABILITIES][:, 1:, : SOFT.count].double()
    teacher.scatter_(-1, batch.extras[TOKENS][:, 1:, : SOFT.count].long(), kept)
    together = teacher.sum(dim=-1, keepdim=True)
    q = teacher / together.clamp(min=1e-20)
    entropy = -torch.xlogy(q, q).sum(dim=-1)
    divergence = (torch.xlogy(q, q) - q * predicted).sum(dim=-1)
    soft = torch.where(together[..., 0] > 0, divergence + entropy, true)
    weight = batch.weight[:, 1:]
    return (weight * ((1 - share) * true + share * soft)).sum() / weight.sum(), (weight * true).sum() / weight.sum()


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.8), (0.125, 0.6), (0.25, 0.4), (0.5, 0.0), (1.0, 0.0)])
def test_the_loss_is_cross_entropy_and_the_divergence_from_the_truncated_teacher(model, progress, share):
    batch = batch_of(OBJECTIVE)
    found, (expected, true) = losses(OBJECTIVE, model, batch, progress), naive(model, batch, share)
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert found.terms["cross_entropy"].item() == pytest.approx(true.item(), rel=1e-6), "of the true tokens alone"
    parameters = list(model.parameters())
    for ours, plain in zip(*(torch.autograd.grad(one, parameters) for one in (found.loss, expected)), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-5, atol=1e-7)


def test_without_any_predictions_training_is_as_without_a_teacher(model):
    batch = batch_of(OBJECTIVE, missing=1.0)
    one, other = losses(OBJECTIVE, model, batch, 0.1), losses(NextToken(), model, batch, 0.1)
    assert torch.allclose(one.loss, other.loss, rtol=1e-6)


def test_once_the_share_is_nothing_training_is_as_without_a_teacher(model):
    batch = batch_of(OBJECTIVE)
    one, other = losses(OBJECTIVE, model, batch, 0.6), losses(NextToken(), model, batch, 0.6)
    assert torch.allclose(one.loss, other.loss, rtol=1e-12)


def test_micro_batches_add_up_beside_further_tokens_and_z_loss(model):
    terms = (CrossEntropy(), ZLoss(weight=1e-2))
    objective = NextToken(soft=SOFT, further=MultiToken(count=2), terms=terms)
    batch = batch_of(objective, rows=4)
    total = objective.denominator(batch)
    assert total == replace(objective, soft=None).denominator(batch)
    (module,) = build_objectives([objective], model, seed=0)

    def loss(rows):
        return module(batch.map(lambda one: one[rows]), total, 0, torch.tensor(0.1), Noise("cpu")).loss

    assert torch.allclose(loss(slice(0, 1)) + loss(slice(1, 4)), loss(slice(0, 4)), rtol=1e-9)


def test_data_without_predictions_or_with_fewer_is_named(model):
    batch = batch_of(OBJECTIVE)
    for extras, says in (
        ({}, "none of 4"),
        ({name: one[..., :3] for name, one in batch.extras.items()}, "only 3 of 4"),
    ):
        with pytest.raises(RecipeError, match=says) as refused:
            losses(OBJECTIVE, model, replace(batch, extras=extras))
        assert "Mixture(soft_targets=" in str(refused.value.hint)


def test_what_cannot_be_is_refused():
    for wrong in ({"share": 1.0}, {"share": -0.1}, {"until": 0.0}, {"count": 0}):
        with pytest.raises(RecipeError, match="cannot be|must be|is"):
            SoftTargets(**wrong)
    with pytest.raises(RecipeError, match="predictions are of one token"):
        NextToken(bag=2, soft=SOFT)


def test_a_recipe_without_a_teacher_has_the_plain_form_that_it_had():
    assert "soft" not in to_plain(NextToken()) and "soft" in to_plain(OBJECTIVE)
