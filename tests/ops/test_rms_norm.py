"""The norm that is differentiated from what it returned, against PyTorch's, and what stays in memory of it."""

import pytest
import torch
import torch._functorch.config as functorch
import torch.nn.functional as F

from lilliput.ops.compiler import prepare_compiler
from lilliput.ops.rms_norm import rms_normalize
from lilliput.plan.saved_tensors import saved_tensor_bytes
from lilliput.train.compile import RECOMPUTED


def draw(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(2, 3, 7, 40, generator=generator, dtype=torch.float64).unbind(0)
    x[0, 0] = 0.0  # eps alone
    return x.to(dtype).requires_grad_(), weights


def test_values_and_gradients_are_those_of_pytorch():
    x, weights = draw()
    exact, found = F.rms_norm(x, x.shape[-1:], None, 1e-3), rms_normalize(x, 1e-3, x.dtype)
    assert torch.allclose(found, exact, rtol=1e-12)
    gradients = (torch.autograd.grad((n * weights).sum(), x)[0] for n in (found, exact))
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("stream", "products"), [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float16)])
def test_it_comes_in_the_precision_of_products(stream, products):
    x, weights = draw(stream)
    n = rms_normalize(x, 1e-3, products)
    (gradient,) = torch.autograd.grad((n.double() * weights).sum(), x)
    exact = x.detach().double().requires_grad_()
    (right,) = torch.autograd.grad((F.rms_norm(exact, exact.shape[-1:], None, 1e-3) * weights).sum(), exact)
    assert n.dtype == products and gradient.dtype == stream
    assert (gradient.double() - right).norm() < 2 * torch.finfo(products).eps * right.norm()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
def test_a_product_behind_it_keeps_no_more_than_it_needs():
    """What was normed, for the weight's gradient, and 1 / rms; nothing of the stream, and no copy."""
    x, _ = draw(torch.float32)
    weight = torch.randn(5, 40, requires_grad=True)
    prepare_compiler()
    with functorch.patch(RECOMPUTED):
        layer = torch.compile(
            lambda x: F.linear(rms_normalize(x * 2.0, 1e-3, x.dtype), weight), backend="aot_eager_decomp_partition"
        )
        _, kept = saved_tensor_bytes(lambda: layer(x), torch.nn.Module())
    assert kept == x.nbytes + 4 * x[..., 0].numel() + weight.nbytes
