"""What a noised stream reads of a clean one, against masks and scans written out, values and gradients."""

import pytest
import torch

from lilliput.base.errors import MachineError
from lilliput.ops.dispatch import Backend
from lilliput.ops.gla import gla
from lilliput.ops.hgrn2 import activations, hgrn2
from lilliput.ops.hgrn2.pair import hgrn2_pair
from lilliput.ops.sdpa.pair import pair_mask, sdpa_pair

INPUTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1, 1, 1, 1]])
TARGETS = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1, 2]])
DOCUMENTS = pytest.mark.parametrize("documents", [(None, None), (INPUTS, TARGETS)], ids=["one", "several"])


def drawn(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def assert_alike(ones, others, leaves):
    """Values, and gradients of what weighs each of them differently."""
    weights = torch.linspace(-1, 1, ones.numel(), dtype=ones.dtype).view_as(ones)
    gradients = [torch.autograd.grad((outputs * weights).sum(), leaves) for outputs in (ones, others)]
    for one, other in zip((ones, *gradients[0]), (others, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_mask_is_the_past_of_the_targets_document_and_itself():
    mask = pair_mask(4, torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 2]]), INPUTS.device)
    assert mask.int().tolist() == [
        [
            [
                [1, 0, 0, 0, 1, 0, 0, 0],
                [0, 0, 0, 0, 0, 1, 0, 0],
                [0, 0, 1, 0, 0, 0, 1, 0],
                [0, 0, 0, 0, 0, 0, 0, 1],
            ]
        ]
    ]
    assert pair_mask(2, None, None, INPUTS.device).int().tolist() == [[1, 0, 1, 0], [1, 1, 0, 1]]


@pytest.mark.parametrize("shared", [1, 2, 4])
@DOCUMENTS
def test_fused_attention_equals_naive(documents, shared):
    leaves = q, past_k, past_v, k, v = drawn((2, 9, 4, 8), *[(2, 9, shared, 8)] * 4)
    fused, naive = (
        sdpa_pair(q, (past_k, past_v), (k, v), *documents, backend=backend)
        for backend in (Backend.TORCH, Backend.REFERENCE)
    )
    assert_alike(fused, naive, leaves)


@DOCUMENTS
def test_naive_attention_is_one_softmax_over_the_past_and_itself(documents):
    q, past_k, past_v, k, v = drawn(*[(2, 9, 2, 8)] * 5)
    cap = 0.8
    outputs = torch.zeros_like(q)
    for row, at, head in ((row, at, head) for row in range(2) for at in range(9) for head in range(2)):
        sees = [i for i in range(at + 1) if documents[0] is None or documents[0][row, i] == documents[1][row, at]]
        keys = torch.cat((past_k[row, sees, head], k[row, at, head][None]))
        values = torch.cat((past_v[row, sees, head], v[row, at, head][None]))
        scores = cap * torch.tanh(keys @ q[row, at, head] * 8**-0.5 / cap)
        outputs[row, at, head] = scores.softmax(0) @ values
    found = sdpa_pair(q, (past_k, past_v), (k, v), *documents, softcap=cap)
    assert_alike(found, outputs, (q, past_k, past_v, k, v))


def test_fused_attention_has_no_cap():
    q, k = drawn((1, 2, 1, 4), (1, 2, 1, 4))
    with pytest.raises(MachineError, match="no soft-cap"):
        sdpa_pair(q, (k, k), (k, k), softcap=1.0, backend=Backend.TORCH)
    with pytest.raises(MachineError, match="sdpa_pair has no backend 'triton'"):
        sdpa_pair(q, (k, k), (k, k), backend=Backend.TRITON)


def by_turns(clean, noisy, heads, documents, bias, **rotation):
    """The scan over clean_0, noisy_0, clean_1, ..., in which noised steps leave the state as it is."""
    q, k, v, log_decay = activations(clean, heads, bias, **rotation, document_ids=documents[0])
    own_q, own_k, own_v, forget = activations(noisy, heads, bias, **rotation, first=1)
    nothing = torch.zeros_like(k)
    turns = (q, own_q * forget.exp()), (k, nothing), (v, nothing), (log_decay, nothing)
    outputs, _ = gla(*(torch.stack(pair, dim=2).flatten(1, 2) for pair in turns), backend=Backend.REFERENCE)
    read, past = outputs[:, 0::2], outputs[:, 1::2]
    if documents[0] is not None:
        past = past * (documents[0] == documents[1])[..., None, None]
    own = (own_q * own_k).sum(-1, keepdim=True) * own_v * own_q.shape[-1] ** -0.5
    return torch.stack((read, past + own)).flatten(-2)


@pytest.mark.parametrize("rotation", [{}, {"theta": 100.0, "layout": "interleaved", "tie": True}], ids=["", "turning"])
@DOCUMENTS
def test_the_pair_is_one_scan_by_turns(documents, rotation):
    leaves = clean, noisy, bias = drawn((2, 9, 3 * 16), (2, 9, 3 * 16), (16,))
    settings = {"bias": bias} | rotation
    found = hgrn2_pair(clean, noisy, 2, **settings, document_ids=documents[0], target_document_ids=documents[1])
    assert torch.equal(found[0], hgrn2(clean, 2, **settings, document_ids=documents[0]))
    assert_alike(torch.stack(found), by_turns(clean, noisy, 2, documents, **settings), leaves)


@pytest.mark.parametrize("forget", [-60.0, 0.0, 60.0])
def test_gates_that_are_shut_or_open_leave_numbers(forget):
    clean, noisy = drawn((1, 40, 3 * 16), (1, 40, 3 * 16))
    with torch.no_grad():
        noisy[..., 16:32] += forget
    found = hgrn2_pair(clean, noisy, 2)
    assert_alike(torch.stack(found), by_turns(clean, noisy, 2, (None, None), None), (clean, noisy))
