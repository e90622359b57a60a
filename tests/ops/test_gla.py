"""The chunked recurrence against the naive one, values and gradients, at any decay, length and document border."""

import importlib

import pytest
import torch
import torch.nn.functional as F

from lilliput.ops.gla import RESET, Backend, gla, reset_at_documents
from lilliput.ops.gla.step import gla_next

chunked_module = importlib.import_module("lilliput.ops.gla.chunk")  # the package exports the function


def draw(length, steepness, dtype, *, rows=2, heads=2, width=24, value=20):
    generator = torch.Generator().manual_seed(length)
    shapes = [(rows, length, heads, width)] * 2 + [(rows, length, heads, value), (rows, length, heads, width)]
    q, k, v, z = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    state = torch.randn(rows, heads, width, value, generator=generator, dtype=dtype)
    return [x.requires_grad_() for x in (q, k, v, z * steepness, state)]


def run(backend, inputs, document_ids=None):
    q, k, v, z, state = inputs
    log_decay = F.logsigmoid(z)
    if document_ids is not None:
        log_decay = reset_at_documents(log_decay, document_ids)
    outputs, after = gla(q, k, v, log_decay, state, backend)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    gradients = torch.autograd.grad((outputs * weights).sum() + after.square().sum(), inputs)
    return outputs, after, *gradients


def furthest(ones, others):
    pairs = [(a.detach(), b.detach()) for a, b in zip(ones, others, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


@pytest.mark.parametrize("steepness", [1, 5, 20, 200])
@pytest.mark.parametrize("length", [1, 16, 64, 77, 150])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_chunked_equals_naive(length, steepness, dtype, tolerance):
    inputs = draw(length, steepness, dtype)
    # At a steepness of 200 log decays reach -1,000, where fp32 itself rounds by 1e-4.
    assert furthest(run(Backend.CHUNK, inputs), run(Backend.REFERENCE, inputs)) < tolerance * (
        5 if steepness > 20 else 1
    )


@pytest.mark.parametrize("length", chunked_module.LENGTHS)
def test_every_chunk_length_is_taken_and_exact(length, monkeypatch):
    inputs = draw(130, 1, torch.float64)
    taken = []
    monkeypatch.setattr(chunked_module, "LENGTHS", (length,))
    monkeypatch.setattr(chunked_module, "_chunks", spy(chunked_module._chunks, taken))
    assert furthest(run(Backend.CHUNK, inputs), run(Backend.REFERENCE, inputs)) < 1e-10
    assert set(taken) == {length}


def spy(function, seen):
    def wrapped(x, length, padding):
        seen.append(length)
        return function(x, length, padding)

    return wrapped


def test_strong_decay_leaves_only_the_position_itself():
    q, k, v = (torch.randn(1, 40, 1, 8) for _ in range(3))
    log_decay = torch.full((1, 40, 1, 8), -20.0, requires_grad=True)
    outputs, _ = gla(q, k, v, log_decay, None, Backend.CHUNK)
    alone = 8**-0.5 * (q * k).sum(-1, keepdim=True) * v
    assert torch.allclose(outputs, alone, atol=1e-6)
    outputs.sum().backward()
    assert log_decay.grad is not None and log_decay.grad.isfinite().all()


def test_documents_in_a_row_equal_documents_in_rows():
    inputs = draw(77, 1, torch.float64)
    document_ids = torch.tensor([[0] * 30 + [1] * 47] * 2)
    for backend in (Backend.REFERENCE, Backend.CHUNK):
        packed = run(backend, inputs, document_ids)[0]
        q, k, v, z, _ = (x[:, 30:] if x.dim() == 4 and x.shape[1] == 77 else x for x in inputs)
        alone, _ = gla(q, k, v, F.logsigmoid(z), None, backend)
        assert torch.allclose(packed[:, 30:], alone, atol=1e-12)
    assert torch.exp(torch.tensor(RESET)) < 1e-17


def test_a_position_does_not_see_later_ones():
    q, k, v, z, state = (x.detach() for x in draw(100, 1, torch.float32))
    before, _ = gla(q, k, v, F.logsigmoid(z), state, Backend.CHUNK)
    k[:, 60], v[:, 60], q[:, 60] = 9.0, 9.0, 9.0
    after, _ = gla(q, k, v, F.logsigmoid(z), state, Backend.CHUNK)
    assert torch.equal(before[:, :60], after[:, :60]) and not torch.equal(before[:, 60:], after[:, 60:])


def test_naive_gradients_are_those_of_finite_differences():
    inputs = draw(5, 1, torch.float64, rows=1, heads=1, width=3, value=2)
    assert torch.autograd.gradcheck(lambda q, k, v, z, s: gla(q, k, v, F.logsigmoid(z), s, Backend.REFERENCE), inputs)


def test_half_precision_stays_near_fp32():
    q, k, v, z, state = (x.detach() for x in draw(128, 1, torch.float32))
    exact, _ = gla(q, k, v, F.logsigmoid(z), state, Backend.REFERENCE)
    for dtype in (torch.bfloat16, torch.float16):
        near, after = gla(*(x.to(dtype) for x in (q, k, v)), F.logsigmoid(z), state, Backend.CHUNK)
        assert near.dtype == dtype and after.dtype == torch.float32
        assert float((near.float() - exact).abs().max() / exact.abs().max()) < 2e-2


def test_short_rows_take_the_naive_form():
    q, k, v, z, state = (x.detach() for x in draw(3, 1, torch.float32))
    auto = gla(q, k, v, F.logsigmoid(z), state)
    naive = gla(q, k, v, F.logsigmoid(z), state, Backend.REFERENCE)
    assert torch.equal(auto[0], naive[0]) and torch.equal(auto[1], naive[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_next_positions_change_the_state_in_place_as_the_specification_says(dtype):
    draw = torch.Generator().manual_seed(0)
    q, k, v, z = (torch.randn(3, 4, 2, 8, generator=draw, dtype=dtype) for _ in range(4))
    log_decay, lengths = torch.nn.functional.logsigmoid(z), torch.tensor([4, 0, 2])
    state = torch.randn(3, 2, 8, 8, generator=draw, dtype=dtype)
    whole, single = state.clone(), state.clone()
    out = gla_next(q, k, v, log_decay, whole, lengths)
    for t in range(4):
        step = slice(t, t + 1)
        one = gla_next(q[:, step], k[:, step], v[:, step], log_decay[:, step], single, (lengths > t).long())
        for row in (row for row in range(3) if t < lengths[row]):
            assert torch.allclose(one[row, 0], out[row, t], atol=1e-5)
    for row, length in enumerate(lengths.tolist()):
        parts = (x[row : row + 1, :length] for x in (q, k, v, log_decay))
        expected = gla(*parts, state[row : row + 1], Backend.REFERENCE)[1] if length else state[row : row + 1]
        assert torch.allclose(whole[row], expected[0], atol=1e-5)
        assert torch.allclose(single[row], expected[0], atol=1e-5)


@pytest.mark.parametrize("positions", [1, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_state_of_16_bits_is_read_computed_in_fp32_and_rounded(dtype, positions):
    draw = torch.Generator().manual_seed(0)
    q, k, v, z = (torch.randn(3, positions, 2, 16, generator=draw) for _ in range(4))
    log_decay, lengths = torch.nn.functional.logsigmoid(z), torch.tensor([positions, 0, positions])
    state = torch.randn(3, 2, 16, 16, generator=draw).to(dtype)
    expected, after = gla(q, k, v, log_decay, state.float(), Backend.REFERENCE)
    changed = state.clone()
    found = gla_next(q, k, v, log_decay, changed, lengths)
    assert changed.dtype == dtype and torch.equal(changed[1], state[1])
    for row in (0, 2):
        torch.testing.assert_close(found[row], expected[row], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(changed[row], after[row].to(dtype), atol=1e-4, rtol=torch.finfo(dtype).eps)
