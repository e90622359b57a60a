"""Fast attention against its naive form, values and gradients; kernels without a GPU in Triton's interpreter."""

import pytest
import torch

from lilliput.base.errors import MachineError
from lilliput.ops.sdpa import Backend, sdpa

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTH = 32 if torch.cuda.is_available() else 16


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (1, 9), (4, 9)])
def test_fused_attention_equals_naive(queries, keys, segmented):
    if segmented and queries != keys:
        pytest.skip("documents are for rows without a cache")
    q = torch.randn(2, queries, 4, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, keys, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    document_ids = torch.tensor([[0] * 4 + [1] * 5, [0] * 9]) if segmented else None
    results = []
    for backend in (Backend.REFERENCE, Backend.TORCH):
        outputs = sdpa(q, k, v, document_ids, backend=backend)
        results.append((outputs, *torch.autograd.grad(outputs.square().sum(), (q, k, v))))
    for naive, fused in zip(*results, strict=True):
        assert torch.allclose(naive, fused, atol=1e-10)


def test_naive_attention_is_softmax_over_the_own_document():
    q = k = torch.zeros(1, 4, 1, 2)
    v = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 1, 2)
    outputs = sdpa(q, k, v, torch.tensor([[0, 0, 1, 1]]), backend=Backend.REFERENCE)
    assert outputs[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0, 2.5]


def test_a_cap_bends_scores_before_the_softmax():
    q = torch.tensor([1.0, 1.0]).view(1, 2, 1, 1)
    k = torch.tensor([100.0, -100.0]).view(1, 2, 1, 1)
    v = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    outputs = sdpa(q, k, v, softcap=2.0)
    assert outputs[0, 1, 0, 0] == pytest.approx(1 / (1 + torch.tensor(-4.0).exp().item()))
    with pytest.raises(MachineError, match="no soft-cap"):
        sdpa(q, k, v, softcap=2.0, backend=Backend.TORCH)


def draw(length, heads=4, shared=2, width=WIDTH):
    """q, k, v as slices of one projection, in fp64, as numbers that fp16 holds; documents of some 20 positions."""
    generator = torch.Generator().manual_seed(length)
    whole = torch.randn(2, length, heads + 2 * shared, width, generator=generator).bfloat16().double().to(DEVICE)
    begins = torch.rand(2, length, generator=generator) < 0.05
    return whole.split([heads, shared, shared], dim=2), begins.cumsum(1, dtype=torch.int32).to(DEVICE)


def run(backend, inputs, document_ids, cap=None, dtype=torch.float64):
    """Outputs and gradients."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    outputs = sdpa(*leaves, document_ids, cap, backend)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64, device=DEVICE).view_as(outputs)
    return outputs, *torch.autograd.grad((outputs.double() * weights).sum(), leaves)


def furthest(ones, others):
    """The largest ||a - b|| / ||b||."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(ones, others, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in pairs)


LONG = pytest.param(130, True, None, marks=pytest.mark.slow)
TOLERANCES = (
    (torch.float32, 1e-4),
    (torch.float16, 3e-3),
    pytest.param(torch.bfloat16, 2e-2, marks=pytest.mark.gpu),  # the interpreter multiplies its bits as integers
)


@pytest.mark.parametrize(("length", "documents", "cap"), [(2, False, None), LONG, (77, True, 3.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_the_kernels_equal_the_naive_form(length, documents, cap, dtype, tolerance):
    pytest.importorskip("triton")
    inputs, document_ids = draw(length)
    document_ids = document_ids if documents else None
    ones, others = (run(Backend.TRITON, inputs, document_ids, cap, dtype) for _ in range(2))
    assert furthest(ones, run(Backend.REFERENCE, inputs, document_ids, cap)) < tolerance
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize("length", [513, 1024])
def test_the_kernels_at_every_width_on_a_device(width, length):
    inputs, document_ids = draw(length, width=width)
    assert (
        furthest(
            run(Backend.TRITON, inputs, document_ids, dtype=torch.bfloat16),
            run(Backend.REFERENCE, inputs, document_ids),
        )
        < 2e-2
    )


def test_what_does_not_fit_the_kernels_says_so():
    pytest.importorskip("triton")
    inputs, _ = draw(9, width=24)
    with pytest.raises(MachineError, match="heads of 24 channels"):
        run(Backend.TRITON, inputs, None, dtype=torch.float32)
