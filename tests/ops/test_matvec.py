"""Sums over a weight as it is read say what the product says, values and gradients."""

import pytest
import torch

from lilliput.ops import linear as linear_module
from lilliput.ops.linear import linear
from lilliput.ops.matvec import FEW, LARGE, is_few, matvec

SMALL, WIDE = (48, 64), (1030, 512)
"""The second is read in several places, which do not divide its rows."""


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [SMALL, WIDE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
@pytest.mark.parametrize("rows", [1, 3, 8, 11])
def test_the_sums_are_the_product(shape, dtype, rows):
    weight = (20 * numbers(*shape)).to(dtype)
    x = numbers(rows, shape[1], seed=rows)
    assert (weight.nbytes >= LARGE) == (shape == WIDE and dtype != torch.int8)
    expected = x.double() @ weight.double().mT
    found = matvec(x, weight)
    assert found.dtype == x.dtype and found.shape == (rows, shape[0])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("shape", [SMALL, WIDE])
def test_their_gradients_are_those_of_the_product(shape):
    weight, x = numbers(*shape).double().requires_grad_(), numbers(2, 2, shape[1]).double().requires_grad_()
    upstream = numbers(2, 2, shape[0], seed=1).double()
    found = torch.autograd.grad(matvec(x, weight), (x, weight), upstream)
    expected = torch.autograd.grad(x @ weight.mT, (x, weight), upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of PyTorch's compiler, in PyTorch
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_compiled_product_of_few_positions_is_one_and_of_more_is_not(dtype, monkeypatch):
    asked = []
    monkeypatch.setattr(linear_module, "matvec", lambda x, weight: asked.append(len(x)) or matvec(x, weight))
    weight = numbers(*WIDE).to(dtype)
    for rows in (1, FEW["cpu"], FEW["cpu"] + 1):
        x = numbers(rows, WIDE[1], seed=rows)
        assert not is_few(x), "nothing is compiled here"
        found = torch.compile(linear, fullgraph=True, dynamic=False)(x, weight)
        torch.testing.assert_close(found.float(), x @ weight.float().mT, rtol=2e-2, atol=0.5)
    assert asked == [1, FEW["cpu"]]
