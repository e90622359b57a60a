"""The engine: rows that join and leave at any time write what each would alone, and what full passes say."""

from dataclasses import replace

import pytest
import tiny
import torch

from lilliput.base.errors import LilliputError
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.generate.states import SLOTS, RowStates
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.per_layer import PerLayer

HYBRID = replace(
    tiny.HGRN2_SPEC,
    layers=3,
    mixer=PerLayer(pattern=(HGRN2(heads=2), HGRN2(heads=2), GQA(heads=4, kv_heads=2, head_width=8))),
)
SPECS = {"gqa": tiny.GQA_SPEC, "hgrn2": tiny.HGRN2_SPEC, "odin": tiny.ODIN_SPEC, "hybrid": HYBRID}
GREEDY = Sampling(greedy=True)


@pytest.fixture(scope="module", params=SPECS)
def model(request):
    return SPECS[request.param].build(seed=1).eval()


@pytest.fixture(scope="module", params=["gqa", "hybrid"])
def attentive(request):
    return SPECS[request.param].build(seed=1).eval()


def prompt(length, seed=0):
    return torch.randint(tiny.VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def greedy_by_full_passes(model, text, count):
    text = list(text)
    with torch.inference_mode():
        for _ in range(count):
            text.append(int(model(torch.tensor([text], device=model.head_weight.device))[0, -1].argmax()))
    return text[-count:]


def written_by(engine):
    """Step until there is nothing left to do."""
    found = {}
    while not engine.is_idle:
        for token in engine.step():
            found.setdefault(token.number, []).append(token.token)
    return found


def decoded(monkeypatch, model):
    """Shapes [B, L] of what a model decodes from now on."""
    shapes, decode = [], type(model).decode

    def watched(self, x, *rest):
        shapes.append(tuple(x.shape[:2]))
        return decode(self, x, *rest)

    monkeypatch.setattr(type(model), "decode", watched)
    return shapes


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_greedy_text_is_that_of_full_passes_with_joins_and_leaves_at_random_moments(model, rows):
    compare_with_full_passes(model, Engine(model, rows=rows, prefill_tokens=16), rows, requests=10)


def test_greedy_text_is_that_of_full_passes_where_64_rows_write_at_once(model):
    engine = Engine(model, rows=64, prefill_tokens=4096)
    compare_with_full_passes(model, engine, 64, requests=66, pause=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of PyTorch's compiler, in PyTorch
@pytest.mark.parametrize("name", SPECS)
def test_a_compiled_step_writes_what_full_passes_say(name):
    model = SPECS[name].build(seed=1).eval()
    compare_with_full_passes(model, Engine(model, rows=3, prefill_tokens=16, compile=True), 3, requests=10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of PyTorch's compiler, in PyTorch
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SPECS)
def test_a_compiled_step_of_16_bits_writes_what_is_all_but_the_likeliest(name, dtype):
    """By fp32 of the same rounded weights, one row and several: both are sums, with weights in 16 bits."""
    narrow = SPECS[name].build(seed=1).eval().to(dtype)
    exact = SPECS[name].build(seed=1).eval()
    exact.load_state_dict(narrow.state_dict())
    for rows in (1, 3):
        asked = [Request(prompt=prompt(20, seed), max_new_tokens=24, sampling=GREEDY) for seed in range(rows)]
        texts = [list(one.prompt) for one in asked]
        for index, token in Engine(narrow, rows=rows, compile=True).generate(asked):
            texts[index].append(token)
        with torch.inference_mode():
            logits = exact(torch.tensor(texts))[:, 19:-1]
        chosen = torch.tensor(texts)[:, 20:, None]
        assert (logits.amax(dim=-1) - logits.gather(-1, chosen)[..., 0]).max() < 0.05


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_one_program_serves_every_part_of_a_cache_and_one_all_of_it():
    engine = Engine(tiny.GQA_SPEC.build(seed=1).eval(), compile=True)
    engine.add(Request(prompt=prompt(3), max_new_tokens=400, sampling=GREEDY))
    compiled = []
    while not engine.is_idle:
        engine.step()
        compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    first = compiled[1]
    assert 0 < first == compiled[380] and compiled[-1] == first + 1


@pytest.mark.parametrize("positions", [1, 128, 129, 1000, 1025, 1281, 40_000])
def test_caches_have_few_slots_more_than_they_need(positions):
    slots = RowStates.rounded(positions)
    assert positions <= slots <= max(positions + SLOTS - 1, 1.25 * positions)
    assert RowStates.rounded(slots) == slots and slots % SLOTS == 0


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:TensorFloat32")
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("name", SPECS)
def test_graphs_write_what_full_passes_say(name, rows, compiles):
    model = SPECS[name].build(seed=1).eval().cuda()
    engine = Engine(model, rows=rows, prefill_tokens=16, compile=compiles)
    compare_with_full_passes(model, engine, rows, requests=10 if rows < 64 else 80, pause=5 if rows < 64 else 0)


def compare_with_full_passes(model, engine, seed, *, requests, pause=5):
    """Compare the texts of requests that join up to `pause` steps after each other; with 0, as rows become free."""
    draw = torch.Generator().manual_seed(seed)
    asked, found = {}, {}
    for seed in range(requests):
        size, most = (int(torch.randint(1, high, (), generator=draw)) for high in (40, 14))
        request = Request(prompt=prompt(size, seed), max_new_tokens=most, sampling=GREEDY)
        asked[engine.add(request)] = request
        for _ in range(int(torch.randint(pause + 1, (), generator=draw))):
            for token in engine.step():
                found.setdefault(token.number, []).append(token.token)
        if seed == 5:
            engine.cancel(max(asked))
            asked.pop(max(asked))
    while not engine.is_idle:
        for token in engine.step():
            found.setdefault(token.number, []).append(token.token)
    for number, request in asked.items():
        assert found[number] == greedy_by_full_passes(model, request.prompt, request.max_new_tokens)


@pytest.mark.parametrize("rows", [4, 64])
def test_the_same_seed_gives_the_same_text_whatever_the_batch(model, rows):
    compare_alone_and_in_a_batch(model, rows)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32")
@pytest.mark.parametrize("rows", [4, 64])
@pytest.mark.parametrize("name", SPECS)
def test_graphs_give_a_seed_the_same_text_whatever_the_batch(name, rows):
    compare_alone_and_in_a_batch(SPECS[name].build(seed=1).eval().cuda(), rows)


def compare_alone_and_in_a_batch(model, rows):
    """Compare the texts of sampled requests, more than there are rows, with what each is alone."""
    sampling = Sampling(temperature=1.3, top_p=0.95, repetition_penalty=1.1, frequency_penalty=0.1)
    request = Request(prompt=prompt(9), max_new_tokens=30, sampling=sampling, seed=-5)
    sizes = [(5 + seed % 17, 4 + seed % 5) for seed in range(rows + rows // 4)]
    others = [
        replace(request, prompt=prompt(size, seed), max_new_tokens=most, seed=seed)
        for seed, (size, most) in enumerate(sizes)
    ]
    engine = Engine(model, rows=rows, prefill_tokens=4096)
    asked = {engine.add(one): one for one in others[: rows - 1]}
    steps = [engine.step()]
    asked |= {engine.add(one): one for one in (request, *others[rows - 1 :])}
    while not engine.is_idle:
        steps.append(engine.step())
    assert max(map(len, steps)) == rows, "all rows write at once"
    found = {number: [token.token for step in steps for token in step if token.number == number] for number in asked}
    single = Engine(model)
    assert found == {number: list(single.stream(one)) for number, one in asked.items()}
    assert list(single.stream(replace(request, seed=6))) != found[rows]


def test_a_prompt_in_chunks_is_the_whole_prompt_and_keeps_no_row_waiting(model):
    long = Request(prompt=prompt(150), max_new_tokens=4, sampling=GREEDY)
    whole = list(Engine(model, prefill_tokens=1000).stream(long))
    engine = Engine(model, rows=2, prefill_tokens=20)
    first = engine.add(Request(prompt=prompt(3, 1), max_new_tokens=30, sampling=GREEDY))
    assert [token.number for token in engine.step()] == [first]
    engine.add(long)
    steps = [[token.number for token in engine.step()] for _ in range(8)]
    assert steps == [[first]] * 7 + [[first, first + 1]], "150 tokens are 8 chunks of 20"
    assert [first + 1, whole[1]] in [[token.number, token.token] for token in engine.step()]


def test_prompts_are_read_together_within_the_budget(model, monkeypatch):
    shapes, decode = [], type(model).decode
    monkeypatch.setattr(
        type(model), "decode", lambda self, x, *rest: shapes.append(x.shape[:2]) or decode(self, x, *rest)
    )
    engine = Engine(model, rows=4, prefill_tokens=32)
    for size in (10, 8, 9, 30):
        engine.add(Request(prompt=prompt(size), max_new_tokens=1, sampling=GREEDY))
    written_by(engine)
    assert shapes == [(3, 10), (1, 30)]


def test_log_probabilities_are_those_of_full_passes(model):
    request = Request(prompt=prompt(6), max_new_tokens=5, sampling=Sampling(top_k=3), log_probabilities=True)
    text = list(request.prompt)
    for _, token in Engine(model, rows=2).tokens([request]):
        with torch.inference_mode():
            expected = model(torch.tensor([text]))[0, -1].log_softmax(dim=0)[token.token]
        assert token.log_probability == pytest.approx(float(expected), abs=1e-4)
        text.append(token.token)


def test_the_likeliest_tokens_are_those_of_full_passes(model):
    asked = Request(
        prompt=prompt(6), max_new_tokens=5, sampling=GREEDY, log_probabilities=True, top_log_probabilities=3
    )
    other = replace(asked, top_log_probabilities=0, log_probabilities=False)
    text = list(asked.prompt)
    for index, token in Engine(model, rows=2).tokens([asked, other]):
        if index:
            assert token.top == [] and token.log_probability is not None
            continue
        with torch.inference_mode():
            expected = model(torch.tensor([text]))[0, -1].log_softmax(dim=0).topk(3)
        assert [one for one, _ in token.top] == expected.indices.tolist()
        assert [score for _, score in token.top] == pytest.approx(expected.values.tolist(), abs=1e-4)
        text.append(token.token)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_write_nearly_the_same(model, dtype):
    text = Request(prompt=prompt(20), max_new_tokens=1, sampling=GREEDY, log_probabilities=True)
    narrow = model.spec.build(seed=1).eval().to(dtype)
    (_, exact), (_, rounded) = (next(Engine(one).tokens([text])) for one in (model, narrow))
    assert rounded.log_probability == pytest.approx(exact.log_probability, abs=0.05)


def test_a_shared_prefix_is_read_once_and_forked(model, monkeypatch):
    shared = prompt(40)
    engine = Engine(model, rows=3)
    prefix = engine.read(shared)
    asked = [shared, shared, [*shared, 5, 7]]
    requests = [Request(prompt=one, max_new_tokens=6, seed=seed) for seed, one in enumerate(asked)]
    plain = [list(Engine(model).stream(request)) for request in requests]
    shapes = decoded(monkeypatch, model)
    forked = [replace(request, prefix=prefix) for request in requests]
    found = [[], [], []]
    for index, token in engine.generate(forked):
        found[index].append(token)
    assert found == plain and max(size for _, size in shapes) == 2
    with pytest.raises(LilliputError, match="does not continue the 40 tokens"):
        engine.add(Request(prompt=shared[1:], max_new_tokens=1, prefix=prefix))


def test_a_conversation_resumes_without_reading_it_again(model, monkeypatch):
    engine = Engine(model, rows=2)
    first = Request(prompt=prompt(30), max_new_tokens=5, sampling=GREEDY)
    number, said = engine.add(first), []
    while len(said) < 5:
        said += [token.token for token in engine.step()]
    saved = engine.save(number)
    assert list(saved.tokens) == [*first.prompt, *said[:-1]]
    more = [*first.prompt, *said, *prompt(4, 1)]
    expected = greedy_by_full_passes(model, more, 6)
    shapes = decoded(monkeypatch, model)
    resumed = replace(first, prompt=more, max_new_tokens=6, prefix=saved)
    assert list(Engine(model).stream(resumed)) == expected and max(size for _, size in shapes) == 5
    engine.step()
    with pytest.raises(LilliputError, match="has no states"):
        engine.save(number)


def test_attention_refuses_what_its_context_does_not_hold_and_ends_where_it_is_full(attentive):
    engine = Engine(attentive, context=20)
    with pytest.raises(LilliputError, match="has 21 tokens, and the model's attention reads 20"):
        engine.add(Request(prompt=prompt(21), max_new_tokens=1))
    request = Request(prompt=prompt(15), max_new_tokens=50, sampling=GREEDY)
    tokens = [token for _, token in engine.tokens([request])]
    assert [token.ended for token in tokens] == [None] * 5 + ["context"]
    assert [token.token for token in tokens] == greedy_by_full_passes(attentive, request.prompt, 6)


def test_a_window_that_slides_reads_the_last_part_as_if_it_were_the_text(attentive):
    engine = Engine(attentive, rows=2, context=20, beyond="slide", prefill_tokens=6)
    request = Request(prompt=prompt(35), max_new_tokens=30, sampling=GREEDY)
    text, window = list(request.prompt), request.prompt[-10:]
    other = Request(prompt=prompt(4, 1), max_new_tokens=12, sampling=GREEDY)
    found = [[], []]
    for index, token in engine.generate([request, other]):
        found[index].append(token)
    assert found[1] == greedy_by_full_passes(attentive, other.prompt, 12)
    for count, token in enumerate(found[0]):
        if len(window) == 21:
            left = 30 - count
            window = window[-(20 - min(left, 10)) :]
        assert token == greedy_by_full_passes(attentive, window, 1)[0]
        window, text = [*window, token], [*text, token]
    assert len(found[0]) == 30


def test_a_recurrence_continues_beyond_any_context():
    model = tiny.ODIN_SPEC.build(seed=1).eval()
    request = Request(prompt=prompt(30), max_new_tokens=10, sampling=GREEDY)
    assert list(Engine(model, context=20).stream(request)) == greedy_by_full_passes(model, request.prompt, 10)


def test_stop_strings_need_a_tokenizer():
    engine = Engine(tiny.HGRN2_SPEC.build(seed=1))
    with pytest.raises(LilliputError, match="need the text"):
        engine.add(Request(prompt=[1], max_new_tokens=1, stop_strings=("x",)))
    for wrong in ([""], [3]):
        with pytest.raises(LilliputError, match="cannot end a text"):
            Request(prompt=[1], max_new_tokens=1, stop_strings=wrong)  # type: ignore[arg-type]
