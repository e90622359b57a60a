"""Steps that are launched before the tokens of the one before are known: texts are those of an engine that waits."""

from dataclasses import replace

import pytest
import tiny
from generate.test_engine import GREEDY, SPECS, compare_with_full_passes, greedy_by_full_passes, prompt, written_by

from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling

DRAWN = Sampling(temperature=1.5, top_p=0.95, repetition_penalty=1.2, frequency_penalty=0.1)


@pytest.fixture(scope="module", params=SPECS)
def model(request):
    return SPECS[request.param].build(seed=1).eval()


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_greedy_text_is_that_of_full_passes_with_joins_and_leaves_at_random_moments(model, rows):
    compare_with_full_passes(model, Engine(model, rows=rows, prefill_tokens=16, run_ahead=True), rows, requests=10)


@pytest.mark.parametrize("rows", [1, 3])
def test_texts_that_are_drawn_and_stopped_are_those_of_an_engine_that_waits(model, rows):
    requests = [
        Request(
            prompt=prompt(5 + 3 * seed, seed),
            max_new_tokens=10,
            sampling=DRAWN,
            seed=seed,
            stop_token_ids=frozenset(range(0, tiny.VOCAB, 23)),
            log_probabilities=seed % 2 == 0,
        )
        for seed in range(6)
    ]
    found = [list(Engine(model, rows=rows, run_ahead=ahead).tokens(requests)) for ahead in (False, True)]
    texts = [[[token for number, token in one if number == index] for index in range(len(requests))] for one in found]
    for waited, ahead in zip(*texts, strict=True):
        assert [(one.token, one.ended) for one in ahead] == [(one.token, one.ended) for one in waited]
        for one, other in zip(ahead, waited, strict=True):
            assert (one.log_probability is None) == (other.log_probability is None)
            assert one.log_probability is None or one.log_probability == pytest.approx(other.log_probability, abs=1e-5)
    assert {text[-1].ended for text in texts[0]} == {"stop", "length"}, "both ends occur"


def test_the_next_step_is_launched_before_the_tokens_of_one_are_returned(model):
    engine = Engine(model, run_ahead=True)
    engine.add(Request(prompt=prompt(4), max_new_tokens=5, sampling=GREEDY))
    launched = []
    while not engine.is_idle:
        engine.step()
        launched.append(engine._launched is not None)
    assert launched == [False, True, True, True, False], "not at first, as it begins, and not beyond its length"


def test_a_text_that_is_stopped_is_read_to_its_last_token_and_continued(model):
    asked = Request(prompt=prompt(9), max_new_tokens=20, sampling=Sampling(temperature=2.0), seed=3)
    text = list(Engine(model).stream(asked))
    end = next(place for place in range(2, 18) if text[place] not in text[:place])
    request = replace(asked, stop_token_ids=frozenset({text[end]}))
    engine = Engine(model, run_ahead=True)
    number, said = engine.add(request), []
    while not engine.is_idle:
        said += [token.token for token in engine.step()]
    saved = engine.save(number)
    assert said == text[: end + 1] and list(saved.tokens) == [*request.prompt, *said]
    more = [*request.prompt, *said, *prompt(3, 1)]
    continued = Request(prompt=more, max_new_tokens=4, sampling=GREEDY, prefix=saved)
    assert list(engine.stream(continued)) == greedy_by_full_passes(model, more, 4)


def test_a_row_that_is_cancelled_and_given_away_writes_the_new_text_alone(model):
    engine = Engine(model, rows=2, run_ahead=True)
    kept, left, new = (Request(prompt=prompt(6, seed), max_new_tokens=9, sampling=GREEDY) for seed in range(3))
    numbers, found = [engine.add(kept), engine.add(left)], {}
    for _ in range(4):
        for token in engine.step():
            found.setdefault(token.number, []).append(token.token)
    engine.cancel(numbers[1])
    numbers.append(engine.add(new))
    for number, tokens in written_by(engine).items():
        found.setdefault(number, []).extend(tokens)
    for number, request in zip((numbers[0], numbers[2]), (kept, new), strict=True):
        assert found[number] == greedy_by_full_passes(model, request.prompt, 9)


@pytest.mark.parametrize("beyond", ["refuse", "slide"])
def test_a_context_that_fills_ends_or_slides_as_without(beyond):
    model = tiny.GQA_SPEC.build(seed=1).eval()
    request = Request(prompt=prompt(10), max_new_tokens=40, sampling=GREEDY)
    texts = [
        [
            (token.token, token.ended)
            for _, token in Engine(model, context=16, beyond=beyond, run_ahead=ahead).tokens([request])
        ]
        for ahead in (False, True)
    ]
    assert texts[0] == texts[1] and len(texts[0]) == (7 if beyond == "refuse" else 40)
