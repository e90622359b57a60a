"""Where branches begin: kernels against what they are composed of, values and gradients, and what stays in memory."""

from contextlib import nullcontext
from copy import deepcopy
from functools import partial

import pytest
import torch
import torch._functorch.config as functorch
from ops.test_sdpa import DEVICE, furthest

from lilliput.model import ModelSpec
from lilliput.nn import gqa
from lilliput.nn.block import ScalarGate
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.norm import ZeroCenteredRMSNorm
from lilliput.ops import add_rms_norm_linear as stream
from lilliput.ops import attention
from lilliput.ops import linear as project
from lilliput.ops import rms_norm as normed
from lilliput.ops import swiglu as feed_forward
from lilliput.ops.add_rms_norm_linear import Backend, add_rms_norm_linear
from lilliput.ops.compiler import prepare_compiler
from lilliput.ops.linear import LinearOutput
from lilliput.plan.saved_tensors import saved_tensor_bytes
from lilliput.train.compile import RECOMPUTED

pytest.importorskip("triton")
from lilliput.ops.add_rms_norm_linear import triton as kernels
from lilliput.ops.add_rms_norm_linear.triton import is_supported
from lilliput.ops.small_width import DTYPE

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


def call(stream, one, other, gain, *branch, backend):
    return add_rms_norm_linear(
        stream, (one, other), gain, EPS, branch=LinearOutput(*branch) if branch else None, backend=backend
    )


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
    assert is_supported(inputs[0].to(DTYPE), 96)
    exact = run(Backend.REFERENCE, torch.float64, inputs)
    ones, others = (run(Backend.TRITON, DTYPE, inputs) for _ in range(2))
    assert furthest(ones, exact) < TOLERANCE
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def test_rows_that_no_descriptor_takes_are_composed():
    stream = draw(64, 0)[0].to(DTYPE)
    assert not is_supported(stream, 97) and not is_supported(stream, 96, stream[..., :7])
    assert not is_supported(stream[..., :48], 96) and not is_supported(stream.double(), 96)


# PyTorch 2.13 warns of what it does itself while it compiles.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.parametrize("inner", [0, 40])
def test_a_compiled_branch_keeps_no_more_than_its_products_need(monkeypatch, inner):
    """What goes into both products, 1 / rms, and weights, which are leaves here; nothing of the stream."""
    for place in (project, normed):
        monkeypatch.setattr(place, "should_fuse", lambda _: True)
    leaves, found = leaves_of(draw(64, inner), DTYPE), []
    with functorch.patch(RECOMPUTED), cast():
        for backend in (Backend.REFERENCE, Backend.TRITON):

            def branch(*leaves, backend=backend):
                x, projected = call(2.0 * leaves[0], *leaves[1:], backend=backend)
                return x.sum(-1), projected

            prepare_compiler()
            compiled = torch.compile(branch, backend="aot_eager_decomp_partition", fullgraph=True, dynamic=False)
            outputs, kept = saved_tensor_bytes(lambda compiled=compiled: compiled(*leaves), torch.nn.Module())
            found.append((kept, *outputs, *torch.autograd.grad(loss_of(outputs), leaves)))
    assert found[1][0] <= found[0][0]
    assert furthest(found[1][1:], found[0][1:]) < TOLERANCE


ATTENTION = GQA(heads=4, kv_heads=2, head_width=16)
NORMED = GQA(heads=4, kv_heads=2, head_width=16, qk_norm=True)
OTHERS = {"norm": ZeroCenteredRMSNorm(), "gate": ScalarGate(init=0.5)}
LAYERS = {
    "heads turned in place": ModelSpec(vocab=8, width=64, layers=2, mixer=ATTENTION, ffn=SwiGLU(inner=96)),
    "all options": ModelSpec(vocab=8, width=64, layers=2, mixer=NORMED, ffn=SwiGLU2(inner=96), **OTHERS),
    "a recurrence": ModelSpec(vocab=8, width=64, layers=2, mixer=HGRN2(heads=2), ffn=SwiGLU(inner=96), **OTHERS),
}


@pytest.mark.slow
@pytest.mark.skipif(DEVICE.type == "cuda", reason="devices train whole models in test_cuda.py")
@pytest.mark.parametrize("name", LAYERS)
def test_whole_layers_are_what_they_are_composed_of(monkeypatch, name):
    """All kernels of narrow streams one behind the other, some of which write over what others made."""
    layers = LAYERS[name].build(seed=0).layers
    rows = torch.randn(2, 70, 64, dtype=torch.float64)
    document_ids = torch.tensor([[0] * 31 + [1] * 39] * 2)

    def run(layers, x):
        for layer in layers:
            x = layer(x, document_ids)
        x.double().mul(torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)).sum().backward()
        return x, *(parameter.grad for parameter in layers.parameters())

    exact = run(deepcopy(layers).double(), rows)
    for place in (project, normed, feed_forward, stream):
        monkeypatch.setattr(place, "should_fuse", lambda _: True)
    monkeypatch.setattr(gqa, "attention", partial(gqa.attention, backend=attention.Backend.TRITON))
    joined = []
    monkeypatch.setattr(kernels, "join", lambda *inputs, join=kernels.join: joined.append(1) or join(*inputs))
    assert furthest(run(layers, rows.to(DTYPE)), exact) < TOLERANCE
    assert len(joined) == len(layers)
