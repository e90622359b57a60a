"""Fast attention against its naive form, values and gradients."""

import pytest
import torch

from lilliput.ops.attend import Backend, attend


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (1, 9), (4, 9)])
def test_fused_attention_equals_naive(queries, keys, segmented):
    if segmented and queries != keys:
        pytest.skip("documents are for rows without a cache")
    q = torch.randn(2, queries, 4, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, keys, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    segments = torch.tensor([[0] * 4 + [1] * 5, [0] * 9]) if segmented else None
    results = []
    for backend in (Backend.NAIVE, Backend.SDPA):
        outputs = attend(q, k, v, segments, backend)
        results.append((outputs, *torch.autograd.grad(outputs.square().sum(), (q, k, v))))
    for naive, fused in zip(*results, strict=True):
        assert torch.allclose(naive, fused, atol=1e-10)


def test_naive_attention_is_softmax_over_the_own_document():
    q = k = torch.zeros(1, 4, 1, 2)
    v = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 1, 2)
    outputs = attend(q, k, v, torch.tensor([[0, 0, 1, 1]]), Backend.NAIVE)
    assert outputs[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0, 2.5]
