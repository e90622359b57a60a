"""Growths: what stacked copies compute, where a copy would not be one, and tokenizers without a model."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import GQA_SPEC, HGRN2_SPEC, ODIN_SPEC, SPECS, VOCAB, sentences
from tokenizers import Tokenizer, models

from lilliput.base.errors import RecipeError
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.growth import Lineage
from lilliput.growth.stack import Stack
from lilliput.growth.use_ema import UseEma
from lilliput.nn.gqa import GQA
from lilliput.nn.rope import NoPE
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHATML

ROWS = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(5))


def line_of(model):
    return Lineage(model=model, tokenizer=Tokenizer(models.BPE()), average={"norm.weight": torch.zeros(32)})


@pytest.fixture(params=SPECS)
def model(request):
    return SPECS[request.param].build(seed=1)


def grown(model, **settings):
    return Stack(**settings).grow(line_of(model), seed=0).model


def layer(model, place):
    return dict(model.layers[place].named_parameters())


@pytest.mark.parametrize(
    ("order", "originals"), [("stack", [0, 1, 0, 1, 0, 1]), ("interleaved", [0, 0, 0, 1, 1, 1]), ("zero", [0, 1] * 3)]
)
def test_every_order_puts_its_copies_where_it_says(order, originals):
    base = HGRN2_SPEC.build(seed=1)
    stacked = grown(base, times=3, order=order)
    assert stacked.spec == replace(HGRN2_SPEC, layers=6)
    for place, original in enumerate(originals):
        for name, value in layer(stacked, place).items():
            silent = order == "zero" and place >= 2 and name in ("mixer.output.weight", "ffn.down.weight")
            expected = torch.zeros_like(value) if silent else layer(base, original)[name]
            assert torch.equal(value, expected), (place, name)
    for name in ("embedding.weight", "norm.weight"):
        assert torch.equal(stacked.get_parameter(name), base.get_parameter(name))


def test_copies_have_storage_of_their_own(model):
    stacked = grown(model, times=2)
    before = {name: value.clone() for name, value in layer(stacked, 0).items()}
    with torch.no_grad():
        for value in (*model.parameters(), *stacked.layers[2].parameters()):
            value.add_(1.0)
    for name, value in layer(stacked, 0).items():
        assert torch.equal(value, before[name]), name
    places = [value.data_ptr() for value in (*model.parameters(), *stacked.parameters())]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", ["gqa", "hgrn2", "odin", "horizons"])
def test_a_stack_is_the_trunk_run_twice(name):
    model = SPECS[name].build(seed=1)
    x = model.embed(ROWS[..., None])
    twice = model.forward_layers(model.forward_layers(x))
    assert torch.equal(grown(model, times=2)(ROWS), model.logits(twice))


@pytest.mark.parametrize(("order", "originals"), [("stack", [0, 1, 0, 1]), ("interleaved", [0, 0, 1, 1])])
def test_lower_bounds_rise_over_the_new_depth(order, originals):
    spec = replace(HGRN2_SPEC, mixer=replace(HGRN2_SPEC.mixer, lower_bounds=True))
    base = spec.build(seed=1)
    torch.nn.init.normal_(base.shared.bound_logits)
    stacked = grown(base, times=2, order=order).shared
    assert torch.equal(stacked.bound_logits, base.shared.bound_logits[originals])
    share = base.shared.bound_logits.softmax(dim=0)[originals] / 2
    assert torch.allclose(stacked(), share.cumsum(dim=0) - share[0])
    assert (stacked().diff(dim=0) > 0).all()


def test_silent_copies_compute_what_the_model_computed(model):
    if model.shared is not None:
        torch.nn.init.normal_(model.shared.bound_logits)
    assert torch.allclose(grown(model, times=3, order="zero")(ROWS), model(ROWS), atol=1e-6)


def test_silent_copies_learn(model):
    stacked = grown(model, times=2, order="zero")
    F.cross_entropy(stacked(ROWS[:, :-1]).flatten(0, 1), ROWS[:, 1:].flatten()).backward()
    assert stacked.layers[-1].ffn.down.weight.grad.norm() > 0


def test_once_is_the_identity(model):
    line = line_of(model)
    assert Stack(times=1).grow(line, seed=0) == line
    assert Stack(times=1).shape(model.spec) == model.spec


def test_averages_end_and_the_tokenizer_stays(model):
    line = line_of(model)
    after = Stack().grow(line, seed=0)
    assert after.average == {} and after.tokenizer is line.tokenizer


def test_a_copy_that_would_turn_unlike_its_original_is_refused():
    odd = replace(ODIN_SPEC, layers=3)
    with pytest.raises(RecipeError, match="layer 3 would be a copy of layer 0, and RoPE") as error:
        Stack().shape(odd)
    assert "of 3 layers" in str(error.value)
    with pytest.raises(RecipeError, match="layer 1 would be a copy of layer 0"):
        Stack(order="interleaved").shape(ODIN_SPEC)
    assert Stack().shape(ODIN_SPEC).layers == 4
    nowhere = replace(odd, mixer=replace(odd.mixer, rope=NoPE()))
    assert Stack().shape(nowhere).layers == Stack(order="interleaved").shape(replace(GQA_SPEC, layers=3)).layers == 6


def test_the_tokenizer_of_a_growth_is_known_without_its_model():
    tokenizer = BPE(vocab=VOCAB).train(sentences(number) for number in range(50))
    line = Lineage(model=GQA_SPEC.build(seed=1), tokenizer=tokenizer, average={})
    added = AddTokens(tokens=CHATML)
    assert added.retokenize(tokenizer).to_str() == added.grow(line, seed=0).tokenizer.to_str() != tokenizer.to_str()
    for growth in (UseEma(), Stack()):
        assert growth.retokenize(tokenizer) is tokenizer


@pytest.mark.parametrize(
    ("times", "drop", "originals"),
    [(2, 1, [0, 1, 2, 1, 2, 3]), (2, 2, [0, 1, 2, 3]), (3, 1, [0, 1, 2, 1, 2, 1, 2, 3]), (2, 3, [0, 3])],
)
def test_copies_leave_out_layers_at_their_seams(times, drop, originals):
    base = replace(GQA_SPEC, layers=4).build(seed=1)
    stacked = grown(base, times=times, drop=drop)
    assert stacked.spec.layers == len(originals) == times * 4 - 2 * drop * (times - 1)
    for place, original in enumerate(originals):
        assert all(torch.equal(value, layer(base, original)[name]) for name, value in layer(stacked, place).items())


def test_a_copy_of_which_nothing_is_left_is_refused():
    with pytest.raises(RecipeError, match="drop=4 leaves nothing"):
        Stack(drop=4).shape(replace(GQA_SPEC, layers=4))
    with pytest.raises(RecipeError, match="drop=2 leaves nothing"):
        Stack(times=3, drop=2).shape(replace(GQA_SPEC, layers=4))


@pytest.mark.parametrize(
    "settings",
    [{"times": 0}, {"order": "shuffled"}, {"drop": 1, "order": "zero"}, {"drop": -1}, {"optimizer": "halved"}],
)
def test_impossible_stacks_are_refused(settings):
    with pytest.raises(RecipeError):
        Stack(**settings)


def test_after_training_a_stack_still_knows_what_the_base_learned():
    """Above the base's loss, far below that of first weights, and below guessing evenly."""
    spec = replace(GQA_SPEC, mixer=GQA(heads=4, kv_heads=4, head_width=8))
    base = spec.build(seed=1)
    rows = torch.arange(32).repeat(4, 2)
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(base, rows).backward()
        optimizer.step()
    learned, stacked = loss_of(base, rows).item(), loss_of(grown(base, times=2), rows).item()
    fresh = loss_of(replace(spec, layers=4).build(seed=1), rows).item()
    assert learned < stacked < fresh / 2


def loss_of(model, rows):
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
