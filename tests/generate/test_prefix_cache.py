"""States kept by content: texts that begin alike are read once, and written as without the cache."""

from dataclasses import replace
from random import Random

import pytest
import tiny
import torch

from lilliput.generate.engine import Engine
from lilliput.generate.prefix_cache import PrefixCache
from lilliput.generate.request import Prefix, Request
from lilliput.generate.sampling import Sampling
from lilliput.generate.shared_prefixes import common_length
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.per_layer import PerLayer

HYBRID = replace(
    tiny.HGRN2_SPEC,
    layers=2,
    mixer=PerLayer(pattern=(HGRN2(heads=2), GQA(heads=4, kv_heads=2, head_width=8))),
)
SPECS = {"gqa": tiny.GQA_SPEC, "hgrn2": tiny.HGRN2_SPEC, "hybrid": HYBRID}
GREEDY = Sampling(greedy=True)
BYTES = 1 << 24


@pytest.fixture(scope="module", params=SPECS)
def model(request):
    return SPECS[request.param].build(seed=1).eval()


def prompt(length, seed=0):
    return torch.randint(tiny.VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def answer(engine, tokens, **about):
    """The tokens of a text, and how many of its prompt were not read."""
    found = [token for _, token in engine.tokens([Request(prompt=tokens, max_new_tokens=6, sampling=GREEDY, **about)])]
    return [token.token for token in found], found[0].cached_tokens


def alone(model, tokens):
    return answer(Engine(model), tokens)[0]


def test_a_next_turn_reads_what_is_new(model):
    engine = Engine(model, rows=2, cache_bytes=BYTES)
    first = prompt(70)
    said, cached = answer(engine, first)
    assert (said, cached) == (alone(model, first), 0)
    second = [*first, *said, *prompt(9, 1)]
    assert answer(engine, second) == (alone(model, second), 75), "all but the last token, which no row has read"


def test_a_turn_whose_answer_was_encoded_otherwise_resumes_after_its_prompt(model):
    engine = Engine(model, rows=2, cache_bytes=BYTES)
    first = prompt(70)
    said, _ = answer(engine, first)
    other = [*first, (said[0] + 1) % tiny.VOCAB, *prompt(9, 1)]
    assert answer(engine, other) == (alone(model, other), 70)


def test_the_same_prompt_again_is_not_read(model):
    engine = Engine(model, rows=3, cache_bytes=BYTES)
    expected = alone(model, prompt(70))
    assert answer(engine, prompt(70)) == (expected, 0)
    again = [Request(prompt=prompt(70), max_new_tokens=6, sampling=GREEDY)] * 3
    found = [[], [], []]
    for index, token in engine.tokens(again):
        assert token.cached_tokens >= 69
        found[index].append(token.token)
    assert found == [expected] * 3


def test_a_beginning_that_prompts_share_is_kept_where_it_ends(model):
    engine = Engine(model, rows=2, cache_bytes=BYTES)
    shared = prompt(50)
    one, other = [*shared, *prompt(20, 1)], [*shared, *prompt(20, 2)]
    assert answer(engine, one, shared_tokens=50) == (alone(model, one), 0)
    assert answer(engine, other, shared_tokens=50) == (alone(model, other), 50)


def test_attention_serves_at_any_length_and_a_recurrence_at_its_own(model):
    engine = Engine(model, cache_bytes=BYTES)
    answer(engine, prompt(70))
    other = [*prompt(70)[:40], *prompt(20, 3)]
    assert answer(engine, other) == (alone(model, other), 40 if model.spec is tiny.GQA_SPEC else 0)


def test_states_stay_within_their_bytes(model):
    engine = Engine(model, cache_bytes=60_000)
    for seed in range(30):
        answer(engine, prompt(60, seed))
        assert engine.cache.bytes <= 60_000
    assert 0 < len(engine.cache) < 30
    empty = Engine(model)
    answer(empty, prompt(60))
    assert len(empty.cache) == empty.cache.bytes == 0


def test_a_window_that_slid_is_not_kept():
    engine = Engine(tiny.GQA_SPEC.build(seed=1).eval(), context=20, beyond="slide", cache_bytes=BYTES)
    answer(engine, prompt(35))
    assert len(engine.cache) == 0


def kept(tokens, size=100, logits=None):
    return Prefix(tokens=tokens, states={"0/x": torch.zeros(size)}, logits=logits)


def test_the_least_recently_used_one_goes_first():
    cache = PrefixCache(1200, can_be_cut=False)
    for first in range(3):
        cache.add(kept([first, 5]))
    assert cache.find([0, 5, 6])
    cache.add(kept([3, 5]))
    assert [cache.find([first, 5, 6]) is not None for first in range(4)] == [True, False, True, True]
    cache.add(kept([4, 5], size=1000))
    assert len(cache) == 3 and [4, 5] not in cache


def test_a_longer_text_takes_the_place_of_its_beginnings_where_states_can_be_cut():
    cache = PrefixCache(10_000, can_be_cut=True)
    text = [*range(160)]
    cache.add(kept(text[:3]))
    cache.add(kept([*text[:32], 7, 7]))
    cache.add(kept(text[:67]))
    cache.add(kept(text))
    assert len(cache) == 2 and text[:96] in cache
    assert cache.find([*text[:101], 1])[1] == 101
    assert cache.find(text)[1] == len(text) - 1, "without logits one token has to be read"


@pytest.mark.parametrize("can_be_cut", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_as_much_is_found_as_any_entry_could_serve(seed, can_be_cut):
    source = Random(seed)

    def text():
        return [source.randrange(2) for _ in range(source.randrange(1, 12))]

    cache, entries = PrefixCache(10_000, can_be_cut=can_be_cut), []
    for logits in (None, torch.zeros(1)) * 8:
        added, asked = kept(text(), size=10, logits=logits), text()
        cache.add(added)
        held = [added.tokens[:length] for length in range(1, 12)] if can_be_cut else [added.tokens]
        entries = [one for one in entries if one.tokens not in held]
        entries.append(added)
        served = [0]
        for one in entries:
            is_known = one.tokens == asked and one.logits is not None
            common = common_length(tuple(one.tokens), tuple(asked if is_known else asked[:-1]))
            served.append(common if can_be_cut or common == len(one.tokens) else 0)
        found = cache.find(asked)
        assert (found[1] if found else 0) == max(served)
        assert (asked in cache) == any(one.tokens[: len(asked) if can_be_cut else None] == asked for one in entries)


def test_equal_lengths_of_other_tokens_are_not_found():
    cache = PrefixCache(10_000, can_be_cut=False)
    cache.add(kept([1, 2, 3], logits=torch.zeros(5)))
    assert cache.find([1, 2, 4]) is None and cache.find([1, 2]) is None
    assert cache.find([1, 2, 3])[1] == 3 and cache.find([1, 2, 3, 4])[1] == 3
