"""Superposition of tokenizations: slots against sets of borders, the loss against plain sums, and training on it."""

from dataclasses import replace

import pytest
import tiny
import torch
import torch.nn.functional as F
from train.test_loop import same, train

from lilliput.base.errors import DataError, RecipeError
from lilliput.data.batch import Cursor
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.segmentations import ENDS, IDS, MOST, Segmentations
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.objectives.slots import slots_of
from lilliput.objectives.stochastic_tokens import StochasticTokens
from lilliput.tokenizer.bpe import BPE
from lilliput.train.phase import Stage

DATA = Mixture(weights={"texts": 1.0}, segmentations=Segmentations(count=4, dropout=0.3))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    texts, _ = tiny.write_corpora(folder)
    tokenizer = BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(50)])
    write_shards(TextFiles(paths=(str(texts),)), tokenizer, Split(share=0.1), folder / "texts")
    opened = Shards(folder / "texts")
    opened.tokenizer = tokenizer
    return {"texts": opened}


@pytest.fixture(scope="module")
def batch(shards):
    return DATA.open(shards).read(Cursor(), 6, 41)[0]


def segmentation(batch, row, number):
    """Ids and ends of one tokenization of a row."""
    ends = batch.extras[ENDS][row, number]
    count = int((ends < 2**30).sum())
    ids = batch.extras[IDS][row, number - 1] if number else batch.tokens[row]
    return ids[:count].tolist(), ends[:count].tolist()


def slots_by_sets(batch, row, count):
    """For each slot, the tokens of each tokenization in it; and its first token in the text's own."""
    found = [segmentation(batch, row, number) for number in range(count)]
    common = sorted(set(found[0][1]).intersection(*(ends for _, ends in found)))
    slots, begin = [], 0
    for border in common:
        inside = [[one for one, end in zip(*each, strict=True) if begin < end <= border] for each in found]
        slots.append((inside, next(place for place, end in enumerate(found[0][1]) if end > begin)))
        begin = border
    return slots


def losses(objective, model, batch):
    (module,) = build_objectives([objective], model, seed=0)
    return module(batch, objective.denominator(batch), 0, torch.zeros(()), Noise("cpu"))


def test_every_tokenization_is_of_the_same_text(shards, batch):
    tokenizer, differ = shards["texts"].tokenizer, 0
    for row in range(len(batch.tokens)):
        texts = []
        for number in range(4):
            ids, _ = segmentation(batch, row, number)
            texts.append("".join(map(tokenizer.id_to_token, ids)))
            differ += ids != batch.tokens[row].tolist()
        assert len(set(texts)) == 1
    assert differ > 6, "most of them are other ones"


def test_what_is_drawn_is_a_function_of_the_place_in_the_text(shards):
    reader = DATA.open(shards)
    whole, after = reader.read(Cursor(), 5, 41)
    first, middle = reader.read(Cursor(), 2, 41)
    second, end = DATA.open(shards).read(middle, 3, 41)
    assert end == after
    for name, one in whole.tensors().items():
        if name != "row":
            assert torch.equal(one, torch.cat([first.tensors()[name], second.tensors()[name]]))
    other = replace(DATA, segmentations=replace(DATA.segmentations, seed=1)).open(shards).read(Cursor(), 5, 41)[0]
    assert torch.equal(other.tokens, whole.tokens) and not torch.equal(other.extras[IDS], whole.extras[IDS])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_slots_reach_from_one_border_of_all_to_the_next(batch, count):
    slots = slots_of(batch, count)
    for row in range(len(batch.tokens)):
        expected = slots_by_sets(batch, row, count)
        assert int((slots.shares[row].sum(dim=-1) > 0).sum()) == len(expected) <= batch.tokens.shape[1]
        for place, (inside, first) in enumerate(expected):
            shares = {}
            for ids in inside:
                assert 1 <= len(ids) <= MOST
                for one in ids:
                    shares[one] = shares.get(one, 0) + 1 / count / len(ids)
            found = {}
            for one, share in zip(slots.tokens[row, place].tolist(), slots.shares[row, place].tolist(), strict=True):
                found[one] = found.get(one, 0) + share
            assert {one: share for one, share in found.items() if share} == pytest.approx(shares)
            assert slots.document_ids[row, place] == batch.document_ids[row, first]
        assert not slots.weight[row, len(expected) :].any() and not slots.shares[row, len(expected) :].any()


def test_the_loss_is_the_mean_over_slots_of_cross_entropy_by_shares(batch):
    model = tiny.GQA_SPEC.build(seed=0).double()
    batch = replace(batch, document_ids=torch.zeros_like(batch.document_ids))
    total, count = 0.0, 0
    for row in range(len(batch.tokens)):
        slots, embedding = slots_by_sets(batch, row, 4), model.embedding.weight
        means = [torch.stack([embedding[ids].mean(dim=0) for ids in inside]).mean(dim=0) for inside, _ in slots]
        log = model.logits(model.forward_layers(torch.stack(means)[None]))[0].log_softmax(-1)
        for place, (inside, first) in enumerate(slots[1:]):
            total -= batch.weight[row, first] * sum(log[place, ids].mean() for ids in inside) / 4
            count += float(batch.weight[row, first])
    found = losses(StochasticTokens(segmentations=4), model, batch)
    assert torch.allclose(found.loss, total / count, atol=1e-6)
    for ours, plain in zip(
        *(torch.autograd.grad(one, list(model.parameters())) for one in (found.loss, total / count)), strict=True
    ):
        assert torch.allclose(ours, plain, atol=1e-6)


def test_one_tokenization_is_ordinary_training_to_the_bit(batch):
    model = tiny.GQA_SPEC.build(seed=0)
    one, ordinary = losses(StochasticTokens(segmentations=1), model, batch), losses(NextToken(), model, batch)
    assert one.loss.equal(ordinary.loss)
    assert all(
        a.equal(b)
        for a, b in zip(*(torch.autograd.grad(x.loss, list(model.parameters())) for x in (one, ordinary)), strict=True)
    )


def test_without_dropout_slots_are_tokens(shards):
    reader = replace(DATA, segmentations=Segmentations(count=3, dropout=0.0)).open(shards)
    batch, model = reader.read(Cursor(), 4, 33)[0], tiny.GQA_SPEC.build(seed=0).double()
    one, ordinary = losses(StochasticTokens(segmentations=3), model, batch), losses(NextToken(), model, batch)
    assert torch.allclose(one.loss, ordinary.loss, atol=1e-6)


def test_tokens_evaluated_are_single_ones(batch):
    model = tiny.GQA_SPEC.build(seed=0)
    (one, other) = build_objectives([StochasticTokens(), NextToken()], model, seed=0)
    with torch.no_grad():
        assert one.evaluate(batch)[0] == other.evaluate(batch)[0]
        plain = F.cross_entropy(model(batch.tokens[:, :-1]).mT, batch.tokens[:, 1:], reduction="none")
        documents = build_objectives([NextToken()], model, seed=0)[0].evaluate(
            replace(batch, document_ids=torch.zeros_like(batch.document_ids), weight=torch.ones_like(batch.weight))
        )
    assert documents[0] == pytest.approx(float(plain.sum()), rel=1e-5)


@pytest.mark.parametrize("stop", [3, 5, 9])
def test_four_two_one_resumes_to_the_bit_across_each_switch(shards, tmp_path, stop):
    stages = tuple(Stage(share=1 / 3, objective=StochasticTokens(segmentations=count)) for count in (4, 2, 1))
    settings = {"spec": tiny.GQA_SPEC, "phase": tiny.pretraining(data=DATA, stages=stages)}
    straight, _, metrics = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", stop=stop, **settings)
    resumed, _, others = train(shards, tmp_path / "resumed", **settings)
    assert same(straight, resumed)
    assert [line.get("cross_entropy") for line in metrics] == [line.get("cross_entropy") for line in others]


def test_what_is_missing_is_named(shards, batch):
    ordinary = Mixture(weights={"texts": 1.0}).open(shards).read(Cursor(), 2, 33)[0]
    for count, rows in ((2, ordinary), (5, batch)):
        with pytest.raises(RecipeError, match=f"does not have {count} tokenizations"):
            StochasticTokens(segmentations=count).denominator(rows)
    with pytest.raises(DataError, match="without their tokenizer"):
        DATA.open({"texts": Shards(shards["texts"].folder)})
