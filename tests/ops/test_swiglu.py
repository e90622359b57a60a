"""Gated feed-forward layers: kernels against what they are composed of, values and gradients."""

from typing import get_args

import pytest
import torch
import torch._functorch.config as functorch
from ops.test_sdpa import DEVICE, TOLERANCES, furthest

from lilliput.ops import linear as project
from lilliput.ops.compiler import prepare_compiler
from lilliput.ops.swiglu import Activation, Backend, gated_activation
from lilliput.ops.swiglu import swiglu as behind
from lilliput.plan.saved_tensors import saved_tensor_bytes
from lilliput.train.compile import RECOMPUTED
from lilliput.train.fp16_range import watch_activations

pytest.importorskip("triton")
from lilliput.ops.small_width import DTYPE
from lilliput.ops.swiglu import triton as kernels

SQUARES = (None, *get_args(Activation))


def draw(inner, positions=37, width=24):
    """x, and the weights of gate, up and down, which leave numbers about as large as they were; all in fp64."""
    generator = torch.Generator().manual_seed(inner)
    shapes = ((2, positions, width), (inner, width), (inner, width), (width, inner))
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [drawn[0].to(DEVICE), *((weight * weight.shape[1] ** -0.5).to(DEVICE) for weight in drawn[1:])]


def run_swiglu(x, gate, up, down, square=None, **settings):
    return behind(project.fused_linear(x, gate, up), down, square, **settings)


def run(backend, dtype, inputs, square):
    """Outputs and gradients; a fifth input is what the product is added to."""
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    outputs = run_swiglu(*leaves[:4], square, residual=leaves[4] if len(leaves) > 4 else None, backend=backend)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64, device=DEVICE).view_as(outputs)
    return outputs, *torch.autograd.grad((outputs.double() * weights).sum(), leaves)


@pytest.mark.parametrize("inner", [7, 128, 333])
@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_kernels_equal_what_is_composed(inner, square, dtype, tolerance):
    inputs = [x.to(dtype).double() for x in draw(inner)]
    exact = run(Backend.REFERENCE, torch.float64, inputs, square)
    ones, others = (run(Backend.TRITON, dtype, inputs, square) for _ in range(2))
    # The projection and the activation are rounded; a square counts that twice more.
    assert furthest(ones, exact) < 2 * tolerance
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize(("width", "inner", "streams"), [(64, 64, 0), (128, 72, 1), (256, 160, 1)])
@pytest.mark.parametrize("square", SQUARES)
def test_narrow_products_make_what_they_multiply(width, inner, streams, square):
    inputs = [x.to(DTYPE).double() for x in draw(inner, positions=75, width=width)]
    inputs += [torch.randn_like(inputs[0]).to(DTYPE).double()] * streams
    exact = run(Backend.REFERENCE, torch.float64, inputs, square)
    ones, others = (run(Backend.TRITON, DTYPE, inputs, square) for _ in range(2))
    assert furthest(ones, exact) < (1e-4 if DTYPE.itemsize == 4 else 4e-2)
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def both(projected, grad, square):
    """The activation and the gradient of the projection."""
    between = grad.clone()
    grad_projected = kernels.differentiate(projected, between, square)
    return between, grad_projected


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # on purpose: 1 / inf is what a shut gate is
@pytest.mark.parametrize("square", SQUARES)
def test_gradients_between_the_products_are_those_of_autograd(square):
    """In fp32, also where a gate is shut, wide open or no number."""
    gates = torch.cat((torch.linspace(-120, 120, 97), torch.tensor([0.0, -1e-4, 1e-4, 89.0, -89.0])))
    gate, up, grad = (x.to(DEVICE) for x in torch.stack([gates, gates.flip(0) / 9, gates.roll(5) / 7]).repeat(1, 3))
    leaves = [gate.clone().requires_grad_(), up.clone().requires_grad_()]
    made = gated_activation(*leaves, square)
    expected = made, torch.cat(torch.autograd.grad(made, leaves, grad))
    found = both(torch.cat((gate, up))[None], grad[None], square)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one[0], other, rtol=1e-5, atol=1e-6)
    assert torch.equal(kernels.activate(torch.cat((gate, up))[None], square), found[0])
    nothing = torch.full((1, 2), torch.nan, device=DEVICE)
    assert both(nothing, torch.ones(1, 1, device=DEVICE), square)[0].isnan().all()


@pytest.mark.parametrize("square", get_args(Activation))
def test_squares_do_not_overflow_half_precision(square):
    """Beyond 255 a gate's square leaves fp16, and what comes of it may lie inside again."""
    gate, up, grad = 300.0, 2.0**-9, 2.0**-7
    projected = torch.tensor([[gate, up]], dtype=torch.float16, device=DEVICE)
    found = both(projected, projected.new_full((1, 1), grad), square)
    leaves = [torch.tensor(x, dtype=torch.float64, device=DEVICE, requires_grad=True) for x in (gate, up)]
    made = gated_activation(*leaves, square)
    expected = made[None], torch.stack(torch.autograd.grad(grad * made, leaves))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one[0].double(), other, rtol=1e-3)


def test_autocast_rounds_the_weights_gradient_as_any_product_does():
    """Weights in fp32 under autocast: gradients in fp32 that are numbers of bf16, and the same dtypes everywhere."""
    leaves = [x.float().requires_grad_() for x in draw(48)]
    results = []
    for backend in (Backend.REFERENCE, Backend.TRITON):
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            outputs = run_swiglu(*leaves, "silu", backend=backend)
        results.append((outputs, *torch.autograd.grad(outputs.float().square().sum(), leaves)))
    assert furthest(results[1], results[0]) < 3e-2
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
    assert torch.equal(results[1][4], results[1][4].bfloat16().float())


# PyTorch 2.13 warns of what it does itself while it compiles.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.parametrize("square", SQUARES)
def test_a_compiled_layer_keeps_the_projection_alone(monkeypatch, square):
    """The activation is made again, the graph does not break, and the compiler by itself keeps no less."""
    monkeypatch.setattr(project, "should_fuse", lambda x: True)
    leaves = [x.float().requires_grad_() for x in draw(48)]
    found = []
    with functorch.patch(RECOMPUTED):
        for backend in (Backend.REFERENCE, Backend.TRITON):

            def layer(*leaves, backend=backend):
                return run_swiglu(*leaves, square, backend=backend)

            prepare_compiler()
            compiled = torch.compile(layer, backend="aot_eager_decomp_partition", fullgraph=True, dynamic=False)
            outputs, kept = saved_tensor_bytes(lambda compiled=compiled: compiled(*leaves), torch.nn.Module())
            found.append((kept, outputs, *torch.autograd.grad(outputs.sin().sum(), leaves)))
    positions = leaves[0].numel() // leaves[0].shape[-1]
    projection = positions * 2 * 48 * leaves[0].itemsize
    assert found[1][0] == sum(leaf.nbytes for leaf in leaves) + projection <= found[0][0]
    assert furthest(found[1][1:], found[0][1:]) < 1e-5


def test_an_eager_layer_keeps_the_projection_alone():
    leaves = [x.float().requires_grad_() for x in draw(64)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        run_swiglu(*leaves, backend=Backend.TRITON)
    assert (2, 37, 128) in kept and (2, 37, 64) not in kept


def test_headroom_sees_what_goes_into_the_last_product():
    inputs = [x.float() for x in draw(48)]
    seen = []
    for backend in (Backend.REFERENCE, Backend.TRITON):
        with watch_activations() as headroom:
            run_swiglu(inputs[0], *inputs[1:3], inputs[3] * 1e-6, "product", backend=backend)
        seen.append(headroom.largest())
    made = gated_activation(*(inputs[0] @ weight.T for weight in inputs[1:3]), "product")
    assert seen == pytest.approx([float(made.abs().max())] * 2, rel=1e-5)


@pytest.mark.gpu
def test_large_tensors_are_reached():
    """Beyond 2^31 numbers."""
    rows, inner = 2**20 + 1, 1024
    projected = torch.zeros(rows, 2 * inner, dtype=torch.bfloat16, device=DEVICE)
    projected[-1] = 1.0
    for one in both(projected, projected[:, :inner], None):
        assert (one[-1] > 0.5).all() and not one[:-1].any()
