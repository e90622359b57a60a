"""Prefix-token prediction against a plain sum over targets, and training on it."""

from dataclasses import replace

import pytest
import tiny
import torch
from data.test_prefix_tokens import DATA, shards, tokenizer  # noqa: F401, fixtures
from train.test_loop import same, train

from lilliput.base.errors import RecipeError
from lilliput.base.spec import to_plain
from lilliput.data.batch import Batch
from lilliput.data.prefix_tokens import NO_PREFIX, PREFIX_TOKENS
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.objectives.targets import MultiToken, PrefixToken, Targets
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.train.metrics_file import measured_of, steps_of
from lilliput.train.phase import Stage

LENGTH = 5
"""Positions of a row."""
PREFIX = PrefixToken(weight=0.4, until=0.5)
OBJECTIVES = {
    "tokens": NextToken(prefix=PREFIX),
    "bags": NextToken(bag=4, prefix=PREFIX),
    "power law": NextToken(bag=3, targets=Targets(power=1.0), prefix=PREFIX),
    "inputs": NextToken(bag=4, targets=Targets(count=1), prefix=PREFIX),
    "outputs": NextToken(targets=Targets(count=3), prefix=PREFIX),
    "multi-token": NextToken(further=MultiToken(count=2, weight=0.3), prefix=PREFIX),
    "bags and multi-token": NextToken(bag=2, further=MultiToken(count=3, weight=0.3, until=0.8), prefix=PREFIX),
}
objectives = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
FADING = {"prefix": PrefixToken(until=0.8), "further": MultiToken(count=2, until=0.9)}


@pytest.fixture
def model():
    return tiny.GQA_SPEC.build(seed=0).double()


def batch_of(objective, rows=3):
    """Random rows of several documents and weights, in which a third of the tokens has no prefix token."""
    draw = torch.Generator().manual_seed(5)
    shape = rows, objective.row_length(LENGTH)
    tokens = torch.randint(0, tiny.VOCAB, shape, generator=draw)
    prefixes = torch.randint(0, tiny.VOCAB, (tiny.VOCAB,), generator=draw).int()
    prefixes[torch.rand(tiny.VOCAB, generator=draw) < 1 / 3] = NO_PREFIX
    begins = torch.rand(shape, generator=draw) < 0.1
    return Batch(
        tokens=tokens,
        weight=torch.rand(shape, generator=draw),
        document_ids=begins.cumsum(dim=1).int(),
        extras={PREFIX_TOKENS: prefixes[tokens]},
    )


def losses(objective, model, batch, progress=0.0):
    (module,) = build_objectives([objective], model, seed=0)
    return module(batch, objective.denominator(batch), 0, torch.tensor(progress), Noise("cpu"))


def naive(objective, model, batch, progress):
    """The sum over targets, further ones and prefix tokens, each a cross-entropy of its own; and that of targets."""
    bag, near, further = objective.bag, objective.near, objective.further
    shares = [(place + 1) ** -objective.targets.power for place in range(near)]
    shares = [share / sum(shares) for share in shares]
    later = further.weight * max(0.0, 1 - progress / further.until) if further else 0.0
    of_prefix = PREFIX.weight * max(0.0, 1 - progress / PREFIX.until)
    total = headline = denominator = 0.0
    for row in range(len(batch.tokens)):
        tokens, documents = batch.tokens[row].tolist(), batch.document_ids[row].tolist()
        prefixes, weights = batch.extras[PREFIX_TOKENS][row].tolist(), batch.weight[row].tolist()
        read, numbers = [], []
        for place in range(LENGTH):
            inside = range(place * bag, place * bag + bag)
            last = documents[inside[-1]]
            begin = next(tokens[one] for one in inside if documents[one] == last)
            kept = [tokens[one] if documents[one] == last else begin for one in inside]
            read.append(model.embedding.weight[kept].mean(dim=0))
            numbers.append(last)
        predicted = model.logits(model.forward_layers(torch.stack(read)[None], document_ids=torch.tensor([numbers])))
        predicted = predicted[0].log_softmax(dim=-1)
        for place in range(LENGTH):
            first = place * bag + bag
            of = documents[first]
            if any(documents[first + index] != of for index in range(near)):
                continue
            for index in range(objective.ahead):
                target = first + index
                if documents[target] != of:
                    continue
                loss = -predicted[place, tokens[target]] * weights[target]
                if index >= near:
                    total = total + later / further.count * loss
                    continue
                total, headline = total + shares[index] * loss, headline + shares[index] * loss
                denominator += shares[index] * weights[target]
                if prefixes[target] != NO_PREFIX:
                    loss = -predicted[place, prefixes[target]] * weights[target]
                    total = total + of_prefix * shares[index] * loss
    return total / denominator / (1 + later + of_prefix), headline / denominator


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
@objectives
def test_the_loss_is_a_sum_of_ordinary_cross_entropies(model, objective, progress):
    batch = batch_of(objective)
    found, (expected, headline) = losses(objective, model, batch, progress), naive(objective, model, batch, progress)
    assert torch.allclose(found.loss, expected, rtol=1e-6)
    assert torch.allclose(found.terms["cross_entropy"], headline, rtol=1e-6), "of the true tokens alone"
    parameters = list(model.parameters())
    for ours, plain in zip(*(torch.autograd.grad(one, parameters) for one in (found.loss, expected)), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.4), (0.125, 0.3), (0.25, 0.2), (0.5, 0.0), (1.0, 0.0)])
def test_the_weight_falls_in_a_straight_line_until_it_is_nothing(model, progress, weight):
    batch = batch_of(NextToken())
    batch = replace(batch, document_ids=torch.zeros_like(batch.document_ids))
    found = losses(OBJECTIVES["tokens"], model, batch, progress)
    prefixes, charged = batch.extras[PREFIX_TOKENS][:, 1:], batch.weight[:, 1:]
    predicted = model(batch.tokens[:, :-1]).log_softmax(dim=-1)
    loss = -predicted.gather(-1, prefixes.clamp(min=0).long()[..., None])[..., 0]
    of_prefix = (loss * charged * (prefixes != NO_PREFIX)).sum() / charged.sum()
    added = found.loss * (1 + weight) - found.terms["cross_entropy"]
    assert added.item() == pytest.approx(weight * of_prefix.item(), abs=1e-6)


@objectives
def test_once_it_weighs_nothing_training_is_as_without(model, objective):
    batch, without = batch_of(objective), replace(objective, prefix=None)
    one, other = (losses(each, model, batch, progress=0.6) for each in (objective, without))
    assert torch.allclose(one.loss, other.loss, rtol=1e-12) and one.terms.keys() == other.terms.keys()


@objectives
def test_micro_batches_add_up_and_the_denominator_is_that_of_true_tokens(model, objective):
    objective = replace(objective, terms=(CrossEntropy(), ZLoss(weight=1e-2)))
    batch = batch_of(objective, rows=4)
    total = objective.denominator(batch)
    assert total == replace(objective, prefix=None).denominator(replace(batch, extras={}))
    (module,) = build_objectives([objective], model, seed=0)

    def loss(rows):
        return module(batch.map(lambda one: one[rows]), total, 0, torch.tensor(0.1), Noise("cpu")).loss

    assert torch.allclose(loss(slice(0, 1)) + loss(slice(1, 4)), loss(slice(0, 4)), rtol=1e-12)


@objectives
@torch.no_grad()
def test_held_out_text_is_measured_in_true_tokens(model, objective):
    one, other = build_objectives([objective, NextToken()], model, seed=0)
    batch = replace(batch_of(NextToken()), extras={})
    assert [float(value) for value in one.evaluate(batch)] == [float(value) for value in other.evaluate(batch)]


def test_data_without_them_is_named(model):
    batch = replace(batch_of(NextToken()), extras={})
    with pytest.raises(RecipeError, match="does not have the prefix tokens") as refused:
        losses(NextToken(prefix=PREFIX), model, batch)
    assert "Mixture(prefix_tokens=True" in str(refused.value.hint)


def test_a_recipe_without_it_has_the_plain_form_that_it_had():
    assert "prefix" not in to_plain(NextToken()) and "prefix" in to_plain(NextToken(prefix=PREFIX))
    assert "prefix_tokens" not in to_plain(replace(DATA, prefix_tokens=False))


def test_what_cannot_be_is_refused():
    for wrong in ({"weight": -0.1}, {"until": 0.0}, {"until": 1.5}):
        with pytest.raises(RecipeError, match="cannot be"):
            PrefixToken(**wrong)


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_training_resumes_to_the_bit(shards, tmp_path, stop):  # noqa: F811
    stages = tuple(Stage(share=0.5, objective=NextToken(bag=bag, **FADING)) for bag in (2, 1))
    spec = replace(tiny.GQA_SPEC, vocab=400)
    settings = {"spec": spec, "phase": tiny.pretraining(data=DATA, stages=stages)}
    straight, average, metrics = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", stop=stop, **settings)
    resumed, other, others = train(shards, tmp_path / "resumed", **settings)
    assert same(straight, resumed) and all(torch.equal(average[name], other[name]) for name in average)
    for of in (steps_of, measured_of):
        one, two = (
            [{key: line[key] for key in line if "second" not in key} for line in of(all)] for all in (metrics, others)
        )
        assert one == two
    without = tuple(replace(stage, objective=replace(stage.objective, prefix=None)) for stage in stages)
    plain, _, _ = train(
        shards, tmp_path / "without", **(settings | {"phase": tiny.pretraining(data=DATA, stages=without)})
    )
    assert not same(straight, plain), "they are trained on"
