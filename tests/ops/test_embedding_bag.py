"""Embeddings of bags: kernels against the naive form, values and gradients, and one order of every sum."""

import pytest
import torch
from ops.test_sdpa import DEVICE

from lilliput.ops.embedding_bag import Backend, embedding_bag

pytest.importorskip("triton")

TOLERANCES = (
    (torch.float32, 2e-6),
    (torch.float16, 1e-3),
    pytest.param(torch.bfloat16, 8e-3, marks=pytest.mark.gpu),  # the interpreter multiplies its bits as integers
)


def draw(positions, bag, vocab, width):
    """Bags in which some tokens are frequent and others are nowhere, embeddings, and a gradient of the means."""
    generator = torch.Generator().manual_seed(positions)
    tokens = (vocab * torch.rand(3, positions, bag, generator=generator) ** 4).long()
    weight = torch.randn(vocab, width, generator=generator)
    return tokens.to(DEVICE), weight.to(DEVICE), torch.randn(3, positions, width, generator=generator).to(DEVICE)


def run(backend, tokens, weight, grad, dtype, shares=None):
    weight = weight.clone().requires_grad_()
    means = embedding_bag(tokens, weight, dtype, shares=shares, backend=backend)
    return means, *torch.autograd.grad(means, weight, grad.to(dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
# Runs that are in one piece, in two, and in several, with and without the end of a piece between them.
@pytest.mark.parametrize(("positions", "bag", "vocab", "width"), [(1, 1, 5, 16), (220, 1, 7, 96), (40, 4, 90, 70)])
@pytest.mark.parametrize("shared", [False, True], ids=["means", "shares"])
def test_kernels_equal_the_naive_form(positions, bag, vocab, width, dtype, tolerance, shared):
    tokens, weight, grad = draw(positions, bag, vocab, width)
    shares = (
        torch.rand(tokens.shape, device=DEVICE) * (torch.rand(tokens.shape, device=DEVICE) < 0.8) if shared else None
    )
    exact = run(Backend.REFERENCE, tokens, weight.double(), grad.double(), torch.float64, shares)
    for found, right in zip(run(Backend.TRITON, tokens, weight, grad, dtype, shares), exact, strict=True):
        assert found.shape == right.shape
        assert (found.double() - right).norm() <= tolerance * right.norm()


def test_shares_are_weights_of_a_sum():
    tokens, weight = torch.tensor([[[1, 2, 2]]]), torch.randn(3, 4)
    found = embedding_bag(tokens, weight, shares=torch.tensor([[[0.5, 0.25, 0.25]]]))
    assert torch.allclose(found, (weight[1] + weight[2]) / 2)


def test_precisions_are_those_that_were_asked_for():
    tokens, weight, grad = draw(9, 2, 7, 16)
    means, of_weight = run(Backend.TRITON, tokens, weight, grad, torch.float16)
    assert (means.dtype, of_weight.dtype) == (torch.float16, torch.float32)
    assert embedding_bag(tokens, weight).dtype == torch.float32


def test_a_token_that_is_nowhere_has_no_gradient():
    tokens, weight, grad = draw(9, 2, 7, 16)
    _, of_weight = run(Backend.TRITON, tokens.clamp(max=3), weight, grad, torch.float32)
    assert (of_weight[4:] == 0).all() and (of_weight[0] != 0).any()


def test_what_is_no_token_is_not_a_number():
    """A device cannot raise, and a neighbour's embedding would go unnoticed."""
    weight = torch.randn(5, 16, device=DEVICE)
    means = embedding_bag(torch.tensor([[4], [5], [-1]], device=DEVICE), weight, backend=Backend.TRITON)
    assert means.isnan().all(dim=1).tolist() == [False, True, True]


@pytest.mark.gpu
@pytest.mark.parametrize(("vocab", "width"), [(300, 256), (16_384, 256), (32_768, 768)])
def test_gradients_are_repeated_to_the_bit(vocab, width):
    inputs = draw(20_000, 1, vocab, width)
    first, *others = (run(Backend.TRITON, *inputs, torch.bfloat16)[1] for _ in range(10))
    assert all(torch.equal(first, other) for other in others)
