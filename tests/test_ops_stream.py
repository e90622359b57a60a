"""Where branches begin: kernels against what they are composed of, values and gradients, and what stays in memory."""

from contextlib import nullcontext

import pytest
import torch
import torch._functorch.config as functorch
from test_ops_attend import DEVICE, furthest

from lilliput.ops import normed, project
from lilliput.ops.project import Product
from lilliput.ops.stream import Backend, begin
from lilliput.plan.kept import with_kept_bytes
from lilliput.train.compiled import RECOMPUTED

pytest.importorskip("triton")
from lilliput.ops.stream.triton import DTYPE, fits

EPS = 1e-3
TOLERANCE = 1e-4 if DTYPE.itemsize == 4 else 3e-2


def draw(width, inner, positions=101):
    """Stream, two weights that begin, gain; with an inner width what joins: its input, its weight and a number.

    All in fp64, and as round as what comes of other products.
    """
    generator = torch.Generator().manual_seed(width + inner)
    shapes = ((2, positions, width), (24, width), (72, width), (width,))
    shapes += ((2, positions, inner), (width, inner), ()) if inner else ()
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    drawn[0][0, 0] = 0.0  # eps alone
    return [(x * x.shape[1] ** -0.5 if x.dim() == 2 else x).to(DEVICE, DTYPE).double() for x in drawn]


def call(stream, one, other, gain, *joining, backend):
    return begin(stream, (one, other), gain, EPS, joining=Product(*joining) if joining else None, backend=backend)


def leaves_of(inputs, dtype):
    """What other products made in one dtype, and parameters in fp32, or fp64 for fp64."""
    wide = torch.promote_types(dtype, torch.float32)
    return [x.to(dtype if x.dim() == 3 else wide).requires_grad_() for x in inputs]


def cast():
    return torch.autocast(DEVICE.type, DTYPE, enabled=DTYPE.itemsize == 2)


def run(backend, dtype, inputs):
    """The stream, the projection, and gradients of all that went in."""
    leaves = leaves_of(inputs, dtype)
    with cast() if backend is Backend.TRITON else nullcontext():
        outputs = call(*leaves, backend=backend)
    return *outputs, *torch.autograd.grad(loss_of(outputs), leaves)


def loss_of(outputs):
    weights = (torch.linspace(-1, 1, x.numel(), dtype=torch.float64, device=DEVICE).view_as(x) for x in outputs)
    return sum((x.double() * weight).sum() for x, weight in zip(outputs, weights, strict=True))


@pytest.mark.parametrize("inner", [0, 40, 256])
@pytest.mark.parametrize("width", [64, 128, 256])
def test_kernels_equal_what_is_composed(width, inner):
    inputs = draw(width, inner)
    assert fits(inputs[0].to(DTYPE), 96)
    exact = run(Backend.COMPOSED, torch.float64, inputs)
    ones, others = (run(Backend.TRITON, DTYPE, inputs) for _ in range(2))
    assert furthest(ones, exact) < TOLERANCE
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def test_rows_that_no_descriptor_takes_are_composed():
    stream = draw(64, 0)[0].to(DTYPE)
    assert not fits(stream, 97) and not fits(stream, 96, stream[..., :7])
    assert not fits(stream[..., :48], 96) and not fits(stream.double(), 96)


# PyTorch 2.13 warns of what it does itself while it compiles.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.parametrize("inner", [0, 40])
def test_a_compiled_branch_keeps_no_more_than_its_products_need(monkeypatch, inner):
    """What goes into both products, 1 / rms, and weights, which are leaves here; nothing of the stream."""
    for place in (project, normed):
        monkeypatch.setattr(place, "as_one", lambda _: True)
    leaves, found = leaves_of(draw(64, inner), DTYPE), []
    with functorch.patch(RECOMPUTED), cast():
        for backend in (Backend.COMPOSED, Backend.TRITON):

            def branch(*leaves, backend=backend):
                x, projected = call(2.0 * leaves[0], *leaves[1:], backend=backend)
                return x.sum(-1), projected

            compiled = torch.compile(branch, backend="aot_eager_decomp_partition", fullgraph=True, dynamic=False)
            outputs, kept = with_kept_bytes(lambda compiled=compiled: compiled(*leaves), torch.nn.Module())
            found.append((kept, *outputs, *torch.autograd.grad(loss_of(outputs), leaves)))
    assert found[1][0] <= found[0][0]
    assert furthest(found[1][1:], found[0][1:]) < TOLERANCE
