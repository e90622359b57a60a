"""Objectives against plain cross-entropy, roles, averages, growths."""

from dataclasses import replace

import pytest
import tiny
import torch
import torch.nn.functional as F

from lilliput.base.errors import RecipeError
from lilliput.data.batch import Batch
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.growth import Lineage
from lilliput.growth.use_ema import UseEma
from lilliput.objectives.bags import bags
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.adamw import AdamW
from lilliput.optim.ema import Ema, NoEma
from lilliput.optim.optimizer import load_state_tensors, set_multiplier, state_tensors
from lilliput.optim.roles import Role, roles
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHATML


def batch(rows=3, length=9, weights=None):
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 300, (rows, length), generator=generator)
    weight = torch.ones(rows, length) if weights is None else weights
    return Batch(tokens=tokens, weight=weight, document_ids=torch.zeros(rows, length, dtype=torch.int32))


@pytest.fixture(params=tiny.SPECS)
def model(request):
    return tiny.SPECS[request.param].build(seed=0).double()


def losses(objective, model, one, total=None):
    module = build_objectives([objective], model, seed=0)[0]
    return module(one, total or objective.denominator(one), 0, torch.zeros(()), Noise("cpu"))


def test_a_bag_of_one_is_next_token_cross_entropy(model):
    one = batch()
    ours = losses(NextToken(), model, one).loss
    plain = F.cross_entropy(model(one.tokens[:, :-1]).flatten(0, 1), one.tokens[:, 1:].flatten())
    assert torch.allclose(ours, plain, atol=1e-12)
    parameters = list(model.parameters())
    for a, b in zip(*(torch.autograd.grad(x, parameters) for x in (ours, plain)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_weights_choose_what_is_charged(model):
    weight = torch.zeros(3, 9)
    weight[1, 4] = 1
    one = batch(weights=weight)
    expected = F.cross_entropy(model(one.tokens[:, :-1])[1, 3], one.tokens[1, 4])
    assert torch.allclose(losses(NextToken(), model, one).loss, expected, atol=1e-12)


def test_micro_batches_add_up_to_the_step(model):
    weight = torch.rand(4, 9)
    whole = batch(rows=4, weights=weight)
    objective = NextToken(terms=(CrossEntropy(), ZLoss(weight=1e-2)))
    total = objective.denominator(whole)
    parts = [
        Batch(tokens=whole.tokens[rows], weight=whole.weight[rows], document_ids=whole.document_ids[rows])
        for rows in (slice(0, 1), slice(1, 4))
    ]
    summed = sum(losses(objective, model, part, total).loss for part in parts)
    assert torch.allclose(summed, losses(objective, model, whole, total).loss, atol=1e-12)


def test_z_loss_is_the_mean_squared_log_sum_exp(model):
    one = batch()
    found = losses(NextToken(terms=(CrossEntropy(), ZLoss(weight=0.5))), model, one)
    lse = model(one.tokens[:, :-1]).logsumexp(-1)
    assert torch.allclose(found.terms["z_loss"], lse.square().mean(), atol=1e-12)
    assert torch.allclose(found.loss, found.terms["cross_entropy"] + 0.5 * found.terms["z_loss"], atol=1e-12)


def test_capped_logits_stay_below_their_cap_and_are_what_is_charged():
    spec = replace(tiny.GQA_SPEC, logit_softcap=0.3)
    model, free = spec.build(seed=0).double(), tiny.GQA_SPEC.build(seed=0).double()
    for each in (model, free):
        with torch.no_grad():
            each.norm.weight.mul_(30)
    one = batch()
    logits, plain = model(one.tokens[:, :-1]), free(one.tokens[:, :-1])
    assert plain.abs().max() > 1 and torch.allclose(logits, 0.3 * torch.tanh(plain / 0.3), atol=1e-12)
    for terms in ((CrossEntropy(),), (CrossEntropy(), ZLoss(weight=0.5))):
        expected = F.cross_entropy(logits.flatten(0, 1), one.tokens[:, 1:].flatten())
        expected = expected + 0.5 * logits.logsumexp(-1).square().mean() * (len(terms) - 1)
        assert torch.allclose(losses(NextToken(terms=terms), model, one).loss, expected, atol=1e-12)
    assert "logit_softcap" not in tiny.GQA_SPEC.identity() and spec.identity()["logit_softcap"] == 0.3
    for wrong in (lambda: replace(spec, logit_softcap=0.0), lambda: replace(spec.mixer, softcap=-1.0)):
        with pytest.raises(RecipeError, match="cap cannot be"):
            wrong()


def test_a_bag_of_tokens_is_the_mean_of_its_cross_entropies(model):
    one = batch(length=12)
    inputs, targets = bags(one.tokens, 3)
    assert torch.equal(inputs[0, 1], one.tokens[0, 3:6]) and torch.equal(targets[0, 0], one.tokens[0, 3:6])
    logits = model.logits(model.forward_layers(model.embed(inputs)))
    each = [F.cross_entropy(logits.flatten(0, 1), targets[..., place].flatten()) for place in range(3)]
    assert torch.allclose(losses(NextToken(bag=3), model, one).loss, sum(each) / 3, atol=1e-12)


def test_a_bag_across_two_documents_is_nobodys_target(model):
    one = batch(rows=1, length=8)
    crossing = replace(one, document_ids=torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]]))
    inputs, targets = bags(one.tokens, 2)
    document_ids = torch.tensor([[0, 1, 1]])  # that of each input bag's last token
    inputs = inputs.clone()
    inputs[0, 1, 0] = inputs[0, 1, 1]  # what is read across documents is of the last one alone
    logits = model.logits(model.forward_layers(model.embed(inputs), document_ids=document_ids))
    kept = [F.cross_entropy(logits[0, 1:], targets[0, 1:, place]) for place in range(2)]
    total = NextToken(bag=2).denominator(crossing)
    assert torch.allclose(losses(NextToken(bag=2), model, crossing).loss, sum(kept) / 2 * (4 / total), atol=1e-12)


def test_every_parameter_has_one_role(model):
    found = roles(model)
    names = [name for by_name in found.values() for name in by_name]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert list(found[Role.EMBEDDING]) == ["embedding.weight"]
    assert all(value.ndim == 2 for value in found[Role.MATRIX].values())
    assert {name for name, value in found[Role.VECTOR].items() if value.ndim == 2} <= {"shared.bound_logits"}


def test_adamw_decays_matrices_only_and_its_state_comes_back():
    model = tiny.ODIN_SPEC.build(seed=0)
    optimizer = AdamW(lr=1e-2, embedding_lr=3e-2, weight_decay=0.1).build(model)
    by_role = {group["role"]: group for group in optimizer.param_groups}
    assert by_role["vector"]["weight_decay"] == 0 and by_role["matrix"]["weight_decay"] == 0.1
    set_multiplier(optimizer, 0.5)
    assert by_role["embedding"]["lr"] == 1.5e-2 and by_role["matrix"]["lr"] == 5e-3
    losses(NextToken(), model, batch()).loss.backward()
    optimizer.step()
    saved = {key: value.clone() for key, value in state_tensors(optimizer, model).items()}
    other = AdamW(lr=1e-2).build(model)
    load_state_tensors(other, model, saved)
    assert all(torch.equal(value, saved[key]) for key, value in state_tensors(other, model).items())
    assert len(saved) == 3 * len(list(model.parameters()))


def test_a_rate_that_lies_on_a_device_stays_in_its_place():
    """What was recorded reads it there; the numbers that come of it are those of rates in Python, rounded to fp32."""
    ends = []
    for on_device in (False, True):
        model = tiny.GQA_SPEC.build(seed=0)
        optimizer = AdamW(lr=1e-2).build(model)
        places = []
        if on_device:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
                places.append(group["lr"])
        for multiplier in (0.5, 0.25):
            set_multiplier(optimizer, multiplier)
            losses(NextToken(), model, batch()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert all(group["lr"] is place for group, place in zip(optimizer.param_groups, places, strict=False))
        ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.allclose(*ends, rtol=1e-6, atol=1e-8) and places == [pytest.approx(2.5e-3)] * len(places)


def test_the_average_follows_its_formula():
    model = tiny.GQA_SPEC.build(seed=0)
    average = Ema(decay=0.5).build(model)
    first = model.norm.weight.detach().clone()
    with torch.no_grad():
        model.norm.weight.fill_(3.0)
    average.update(dict(model.named_parameters()), step=1)
    decay = min(0.5, 2 / 11)
    expected = decay * first + (1 - decay) * 3.0
    assert torch.allclose(average.tensors["norm.weight"], expected)
    with average.swapped_in(model):
        assert torch.allclose(model.norm.weight, expected)
    assert torch.equal(model.norm.weight, torch.full_like(first, 3.0))
    average.update(dict(model.named_parameters()), step=1_000)
    assert torch.allclose(average.tensors["norm.weight"], 0.5 * expected + 0.5 * 3.0), "the warm-up is over"
    with NoEma().build(model).swapped_in(model):
        assert torch.equal(model.norm.weight, torch.full_like(first, 3.0))


def line(average=None):
    tokenizer = BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(50)])
    return Lineage(model=tiny.GQA_SPEC.build(seed=0), tokenizer=tokenizer, average=average or {})


def test_new_tokens_leave_the_old_ones_as_they_were():
    before = line()
    text = torch.randint(0, 300, (1, 20))
    expected = before.model(text)
    grown = AddTokens(tokens=CHATML).grow(before, seed=3)
    assert grown.model.spec.vocab == 302 and grown.tokenizer.token_to_id("<|im_end|>") == 301
    assert AddTokens(tokens=CHATML).shape(before.model.spec) == grown.model.spec
    assert torch.equal(grown.model(text)[..., :300], expected)
    new = grown.model.embedding.weight[300:]
    assert not torch.equal(new[0], new[1])
    assert (new - before.model.embedding.weight.mean(0)).abs().max() < before.model.embedding.weight.std()
    again = AddTokens(tokens=CHATML).grow(line(), seed=3)
    assert torch.equal(again.model.embedding.weight, grown.model.embedding.weight)
    assert before.model.embedding.weight.data_ptr() != grown.model.embedding.weight.data_ptr()


def test_use_ema_goes_on_from_the_average():
    averaged = {name: torch.full_like(value, 0.25) for name, value in line().model.named_parameters()}
    grown = UseEma().grow(line(averaged), seed=0)
    assert all(torch.equal(value, averaged[name]) for name, value in grown.model.named_parameters())
    with pytest.raises(RecipeError, match="no averaged weights"):
        UseEma().grow(line(), seed=0)
