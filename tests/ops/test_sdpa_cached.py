"""Attention to a cache: every backend says what the masked softmax says, and none reads behind a query's slot."""

import pytest
import torch

from lilliput.ops.sdpa.cached import Backend, sdpa_cached


def drawn(queries, slots=12, rows=3, heads=4, groups=2, width=8):
    generator = torch.Generator().manual_seed(queries)
    q = torch.randn(rows, queries, heads, width, generator=generator)
    k, v = (torch.randn(rows, groups, slots, width, generator=generator) for _ in range(2))
    index = torch.tensor([[0], [5], [slots - queries]]) + torch.arange(queries)
    return q, k, v, index


def expected_of(q, k, v, index, cap):
    """Row by row and head by head, over the slots that a query sees."""
    rows, queries, heads, width = q.shape
    out = torch.empty_like(q)
    for row in range(rows):
        for at in range(queries):
            for head in range(heads):
                group, seen = head // (heads // k.shape[1]), int(index[row, at]) + 1
                scores = k[row, group, :seen] @ q[row, at, head] * width**-0.5
                scores = scores if cap is None else cap * torch.tanh(scores / cap)
                out[row, at, head] = scores.softmax(0) @ v[row, group, :seen]
    return out


@pytest.mark.parametrize(
    ("backend", "queries", "cap"),
    [
        (Backend.REFERENCE, 1, None),
        (Backend.REFERENCE, 3, 1.5),
        (Backend.TORCH, 1, None),
        (Backend.TORCH, 3, None),
        (Backend.SUM, 1, None),
        (Backend.SUM, 1, 1.5),
        (Backend.AUTO, 1, 1.5),
        (Backend.AUTO, 3, None),
    ],
)
def test_backends_agree(backend, queries, cap):
    q, k, v, index = drawn(queries)
    found = sdpa_cached(q, k, v, index, cap, backend)
    torch.testing.assert_close(found, expected_of(q, k, v, index, cap), rtol=1e-5, atol=1e-5)
    k[0, :, 3:], v[0, :, 3:] = 99.0, 99.0  # of a row whose queries are before
    assert torch.equal(found[0], sdpa_cached(q, k, v, index, cap, backend)[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of PyTorch's compiler, in PyTorch
def test_compiled_it_says_the_same_over_any_number_of_slots():
    compiled = torch.compile(sdpa_cached, fullgraph=True, dynamic=True)
    for slots in (6, 12, 40):
        given = drawn(1, slots=slots)
        torch.testing.assert_close(compiled(*given), expected_of(*given, None), rtol=1e-5, atol=1e-5)
