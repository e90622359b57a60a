"""Decoding: rows of different lengths in one batch are single rows, in every mixer, hybrids and mixers from outside."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from lilliput.base.errors import RecipeError
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.generate.states import RowStates
from lilliput.growth.growth import Lineage
from lilliput.growth.stack import Stack
from lilliput.nn.decoding_copy import Int8Linear, decoding_copy
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.per_layer import PerLayer
from lilliput.recipe import load_recipe

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "extend.md"
ATTENTION = GQA(heads=4, kv_heads=2, head_width=8, qk_norm=True)
HYBRID = PerLayer(pattern=(HGRN2(heads=2, lower_bounds=True), HGRN2(heads=2, lower_bounds=True), ATTENTION))
CAPPED = replace(tiny.GQA_SPEC, mixer=replace(ATTENTION, softcap=20.0))


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    file = tmp_path_factory.mktemp("guide") / "averaging.py"
    file.write_text(re.findall(r"```python\n(# averaging\.py\n.*?)```", GUIDE.read_text(), flags=re.S)[0])
    own = load_recipe(str(file)).model.mixer
    hybrid = replace(tiny.HGRN2_SPEC, layers=6, mixer=HYBRID)
    with_own = PerLayer(pattern=(own, ATTENTION, HGRN2(heads=2)))
    more = {"hybrid": hybrid, "own": replace(tiny.GQA_SPEC, mixer=own), "capped": CAPPED}
    return tiny.SPECS | more | {"hybrid with own": replace(hybrid, layers=3, mixer=with_own)}


NAMES = [*tiny.SPECS, "hybrid", "own", "capped", "hybrid with own"]


def prompts(*lengths):
    draw = torch.Generator().manual_seed(4)
    return [torch.randint(300, (length,), generator=draw).tolist() for length in lengths]


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_different_lengths_are_single_rows(specs, name):
    """Read in two parts each, padded to the longer one, then one position of some rows alone."""
    model = specs[name].build(seed=1)
    texts = prompts(11, 3, 7)
    parts = [[text[:4], text[4:9], text[9:]] for text in texts]
    states, found = model.empty_states(3, 16), [[], [], []]
    positions = [0, 0, 0]
    with torch.inference_mode():
        for part in zip(*parts, strict=True):
            lengths = [len(one) for one in part]
            tokens = torch.full((3, max(lengths)), 7)
            for row, one in zip(tokens, part, strict=True):
                row[: len(one)] = torch.tensor(one, dtype=torch.int64)
            x = model.decode(model.embed(tokens[..., None]), states, torch.tensor(positions), torch.tensor(lengths))
            for row, length, seen in zip(model.logits(x), lengths, found, strict=True):
                seen.append(row[:length])
            positions = [position + length for position, length in zip(positions, lengths, strict=True)]
        for text, seen in zip(texts, found, strict=True):
            whole = model(torch.tensor([text]))[0]
            assert (torch.cat(seen) - whole).abs().max() < 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_answers_several_as_it_answers_one(specs, name):
    """Requests of different lengths and settings, more of them than rows, so that rows are used again."""
    model = specs[name].build(seed=1)
    settings = [Sampling(greedy=True), Sampling(temperature=0.8, top_k=20), Sampling(repetition_penalty=1.3, top_p=0.9)]
    requests = [
        Request(prompt=prompt, sampling=settings[number % 3], max_new_tokens=3 + 4 * (number % 4), seed=number)
        for number, prompt in enumerate(prompts(5, 12, 1, 40, 8, 3, 9))
    ]
    alone = [list(Engine(model).stream(request)) for request in requests]
    assert [len(text) for text in alone] == [request.max_new_tokens for request in requests]
    together = [[] for _ in requests]
    for number, token in Engine(model, rows=3).generate(requests):
        together[number].append(token)
    assert together == alone


def test_a_row_that_stops_makes_room(specs):
    model = specs["gqa"].build(seed=1)
    (text,) = prompts(6)
    whole = list(Engine(model).stream(Request(prompt=text, sampling=Sampling(greedy=True), max_new_tokens=9)))
    stops = Request(prompt=text, sampling=Sampling(greedy=True), max_new_tokens=9, stop_token_ids={whole[3]})
    found = [[], [], []]
    for number, token in Engine(model, rows=2).generate([stops, replace(stops, stop_token_ids=()), stops]):
        found[number].append(token)
    end = whole.index(whole[3]) + 1
    assert found == [whole[:end], whole, whole[:end]]
    assert list(Engine(model, rows=2).generate([replace(stops, max_new_tokens=0)])) == []


@pytest.mark.parametrize("name", ["hgrn2", "gqa", "hybrid"])
def test_texts_beyond_the_first_capacity_are_written_as_by_whole_passes(specs, name):
    model = specs[name].build(seed=1)
    (text,) = prompts(120)
    for token in Engine(model).stream(Request(prompt=text, sampling=Sampling(greedy=True), max_new_tokens=20)):
        assert token == int(model(torch.tensor([text]))[0, -1].argmax())
        text.append(token)


@pytest.mark.parametrize("name", ["hgrn2", "gqa", "hybrid"])
def test_a_row_is_saved_and_forked(specs, name):
    model = specs[name].build(seed=1)
    states = RowStates(model, 3, 10)
    texts = torch.tensor(prompts(6)).expand(3, -1)
    with torch.inference_mode():
        model.decode(
            model.embed(texts[..., None]), states.layers, torch.zeros(3, dtype=torch.int64), torch.tensor([6, 0, 3])
        )
    saved = states.row(0)
    states.copy_rows([1], states, [0])
    states.load_row(2, saved)
    for tensors in (states.row(1), states.row(2)):
        assert tensors.keys() == saved.keys() and all(torch.equal(one, saved[key]) for key, one in tensors.items())


def test_a_hybrid_is_counted_layer_by_layer(specs):
    spec = specs["hybrid"]
    recurrent, attention = HYBRID.pattern[0], ATTENTION
    assert spec.state_entries(50) == 4 * recurrent.state_entries(32, 50, 0) + 2 * attention.state_entries(32, 50, 0)
    alike = [replace(spec, mixer=mixer).flops(64) for mixer in (recurrent, attention)]
    assert spec.flops(64) == (2 * alike[0] + alike[1]) // 3
    model = spec.build(seed=0)
    rows = model.shared()
    assert [row is None for row in rows] == [False, False, True] * 2
    assert rows[0].abs().max() == 0 and rows[4].min() > rows[1].min() > 0, (
        "bounds rise from one recurrent layer to the next"
    )


@pytest.mark.parametrize("order", ["stack", "zero"])
def test_a_hybrid_is_stacked_by_whole_patterns(specs, order):
    spec = replace(specs["hybrid"], layers=3)
    model = spec.build(seed=0)
    grown = Stack(times=2, order=order).grow(Lineage(model=model, tokenizer=None, average={}), seed=0).model
    assert grown.spec.layers == 6 and type(grown.layers[5].mixer) is type(model.layers[2].mixer)
    text = torch.tensor(prompts(9))
    if order == "zero":
        torch.testing.assert_close(grown(text), model(text))
    with pytest.raises(RecipeError, match="layer 1 would be a copy of layer 0, and mixes in another way"):
        Stack(times=2, order="interleaved").shape(replace(spec, mixer=replace(HYBRID, pattern=HYBRID.pattern[1:])))


@pytest.mark.parametrize("form", ["bf16", "fp16", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_narrow_weights_write_nearly_the_same_whatever_the_mixer(specs, name, form):
    """A mixer of somebody's own reads the stream in the precision of its weights, and keeps them in 8 bits' place."""
    model, narrow = specs[name].build(seed=1), specs[name].build(seed=1)
    if form != "int8":
        narrow = narrow.to({"bf16": torch.bfloat16, "fp16": torch.float16}[form])
    request = Request(prompt=prompts(9)[0], max_new_tokens=4, sampling=Sampling(greedy=True), log_probabilities=True)
    engines = Engine(model), Engine(narrow, int8=form == "int8")
    exact, rounded = ([token for _, token in engine.tokens([request])] for engine in engines)
    assert len(rounded) == 4
    assert rounded[0].log_probability == pytest.approx(exact[0].log_probability, abs=0.05)


def test_a_mixer_of_ones_own_keeps_its_weights_in_an_8_bit_copy(specs):
    copied = decoding_copy(specs["own"].build(seed=1), int8=True)
    assert all(isinstance(layer.mixer.value, torch.nn.Linear) for layer in copied.layers)
    assert all(isinstance(layer.ffn.in_linear, Int8Linear) for layer in copied.layers)
