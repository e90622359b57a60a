"""States stored in 16 bits: half the memory, arithmetic as before, and what that loses over a long text."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch.nn.functional import cross_entropy

from lilliput.base.errors import LilliputError
from lilliput.generate.decode_step import CapturedDecodeStep, DecodeStep
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.generate.states import RowStates
from lilliput.nn.decoding_copy import decoding_copy
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.per_layer import PerLayer

ATTENTION, RECURRENT = GQA(heads=4, kv_heads=2, head_width=8), HGRN2(heads=2)
HYBRID = replace(tiny.HGRN2_SPEC, mixer=PerLayer(pattern=(RECURRENT, ATTENTION)))
SPECS = {"gqa": tiny.GQA_SPEC, "hgrn2": tiny.HGRN2_SPEC, "odin": tiny.ODIN_SPEC, "hybrid": HYBRID}
NARROW = (torch.float16, torch.bfloat16)
GREEDY = Sampling(greedy=True)


@pytest.fixture(scope="module", params=SPECS)
def model(request):
    return SPECS[request.param].build(seed=1).eval()


def prompt(length, seed=0):
    return torch.randint(tiny.VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def logits_step_by_step(model, tokens, dtype, *, compile=False):
    """Logits [B, L, V] of a text that is read one token at a time."""
    rows, length = tokens.shape
    step, states = DecodeStep(decoding_copy(model), compile=compile), RowStates(model, rows, length, dtype)
    positions, lengths = torch.zeros(rows, dtype=torch.int64), torch.ones(rows, dtype=torch.int64)
    found = [step(tokens[:, at].clone(), states, at + 1, positions, lengths) for at in range(length)]
    assert all(one.dtype == dtype for state in states.layers for one in state.values())
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("dtype", NARROW)
def test_16_bits_are_half_the_memory_of_states_and_of_what_is_kept_of_them(model, dtype):
    wide, narrow = (Engine(model, rows=3, state_dtype=one, cache_bytes=1 << 24) for one in (None, dtype))
    prefixes = [engine.read(prompt(40)) for engine in (wide, narrow)]
    assert narrow._states.bytes * 2 == wide._states.bytes
    sizes = [sum(one.nbytes for one in prefix.states.values()) for prefix in prefixes]
    assert sizes[1] * 2 == sizes[0] and {one.dtype for one in prefixes[1].states.values()} == {dtype}
    for engine in (wide, narrow):
        list(engine.tokens([Request(prompt=prompt(40), max_new_tokens=4, sampling=GREEDY)]))
    logits = sum(prefix.logits.nbytes for _, prefix in narrow.cache._entries.items() if prefix.logits is not None)
    assert (narrow.cache.bytes - logits) * 2 == wide.cache.bytes - logits > 0


@pytest.mark.parametrize("dtype", NARROW)
def test_states_grow_join_and_fork_in_their_dtype(model, dtype):
    """More requests than rows, texts beyond the first capacity, and one that continues what another has saved."""
    engine = Engine(model, rows=2, state_dtype=dtype, prefill_tokens=64, cache_bytes=1 << 24)
    requests = [Request(prompt=prompt(100 + n, n), max_new_tokens=60, sampling=GREEDY) for n in range(3)]
    texts = [[] for _ in requests]
    for number, token in engine.generate(requests):
        texts[number].append(token)
    assert {one.dtype for state in engine._states.layers for one in state.values()} == {dtype}
    again = engine.add(requests[0])
    for _ in range(5):
        engine.step()
    saved = engine.save(again)
    assert {one.dtype for one in saved.states.values()} == {dtype}
    continued = [*saved.tokens, texts[0][len(saved.tokens) - len(requests[0].prompt)]]
    fresh = Engine(model, state_dtype=dtype)
    rest = list(fresh.stream(Request(prompt=continued, prefix=saved, max_new_tokens=9, sampling=GREEDY)))
    begin = len(continued) - len(requests[0].prompt)
    assert rest == texts[0][begin : begin + 9], "the same states, so the same text to the bit"


@pytest.mark.parametrize("dtype", NARROW)
def test_attention_and_recurrence_read_what_was_rounded(model, dtype):
    """Near fp32, and not the same: neither a state that stayed wide nor arithmetic that became narrow."""
    tokens = torch.tensor([prompt(30), prompt(30, 1)])
    exact, rounded = (logits_step_by_step(model, tokens, one) for one in (torch.float32, dtype))
    apart = (exact - rounded).abs().amax() / exact.abs().amax()
    assert 0 < apart < 4 * torch.finfo(dtype).eps


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of PyTorch's compiler, in PyTorch
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dtype", NARROW)
def test_a_compiled_step_reads_and_writes_16_bits(name, dtype):
    model, tokens = SPECS[name].build(seed=1).eval(), torch.tensor([prompt(12), prompt(12, 1)])
    exact, eager = (logits_step_by_step(model, tokens, one) for one in (torch.float32, dtype))
    compiled = logits_step_by_step(model, tokens, dtype, compile=True)
    assert (compiled - eager).abs().amax() < 4 * torch.finfo(dtype).eps * exact.abs().amax()
    assert not torch.equal(compiled, exact)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:TensorFloat32")
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", SPECS)
def test_a_graph_writes_what_a_step_alone_writes(name, dtype, compiles):
    """With channels that the kernels take: without them the scan waits for the device, and no graph is captured."""
    wide = {"gqa": ATTENTION, "hgrn2": RECURRENT, "odin": tiny.ODIN_SPEC.mixer, "hybrid": HYBRID.mixer}[name]
    model = replace(SPECS[name], width=128, mixer=wide).build(seed=1).eval().cuda()
    requests = [Request(prompt=prompt(9, seed), max_new_tokens=30, sampling=GREEDY) for seed in range(4)]
    captured, alone = (Engine(model, rows=4, state_dtype=dtype, compile=compiles) for _ in range(2))
    assert isinstance(captured._step, CapturedDecodeStep)
    alone._step = alone._step._step
    assert list(captured.generate(requests)) == list(alone.generate(requests))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn, "fp16"])
def test_other_dtypes_are_refused(model, dtype):
    with pytest.raises(LilliputError, match="states cannot be stored in") as refused:
        Engine(model, state_dtype=dtype)
    assert refused.value.where == "state_dtype" and "torch.float16" in refused.value.hint


TEXT = " ".join(tiny.sentences(number) for number in range(60)).encode()
LENGTH = 1_500


@pytest.fixture(scope="module")
def trained():
    """A recurrence whose channels forget over 2 to 500 bytes, and that has learned the text: seconds on one core."""
    torch.manual_seed(0)
    spec = replace(tiny.HGRN2_SPEC, vocab=256, mixer=HGRN2(heads=2, forget_timescales=(2.0, 500.0)))
    model, text = spec.build(seed=0), torch.tensor(list(TEXT))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        begins = torch.randint(len(text) - 129, (8,))
        rows = torch.stack([text[begin : begin + 129] for begin in begins])
        loss = cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.slow
def test_what_16_bits_lose_over_a_long_text(trained):
    rows = torch.stack([torch.tensor(list(TEXT[begin : begin + LENGTH + 1])) for begin in (0, 4_000)])
    found = {}
    for dtype in (torch.float32, *NARROW):
        logits = logits_step_by_step(trained, rows[:, :-1], dtype)
        bits = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()) / torch.log(torch.tensor(2.0))
        found[dtype] = float(bits), logits
    exact, logits = found[torch.float32]
    assert exact < 2.5, "it has learned: bits per byte"
    lost = {dtype: found[dtype][0] - exact for dtype in NARROW}
    apart = {dtype: float((found[dtype][1] - logits).abs().amax()) for dtype in NARROW}
    assert abs(lost[torch.float16]) < 1e-3 and abs(lost[torch.bfloat16]) < 2e-2, lost
    assert apart[torch.float16] < apart[torch.bfloat16] / 3, apart
