"""Mixers from their projection on: kernels against what they are composed of, values and gradients."""

import pytest
import torch
import torch._functorch.config as functorch
import torch.nn.functional as F
from ops.test_sdpa import DEVICE, TOLERANCES, furthest

from lilliput.ops.attention import Backend as AttentionBackend
from lilliput.ops.attention import attention
from lilliput.ops.compiler import prepare_compiler
from lilliput.ops.hgrn2 import Backend as RecurrenceBackend
from lilliput.ops.hgrn2 import hgrn2
from lilliput.plan.saved_tensors import saved_tensor_bytes
from lilliput.train.compile import RECOMPUTED

pytest.importorskip("triton")

WIDTHS = {"attention": (32, 64), "recurrence": (64, 128)} if torch.cuda.is_available() else {}


def documents(length):
    generator = torch.Generator().manual_seed(length)
    return (torch.rand(2, length, generator=generator) < 0.05).cumsum(1, dtype=torch.int32).to(DEVICE)


def run(call, dtype, *inputs):
    """Outputs and gradients; all inputs but the first are parameters, which are never narrow."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = [x.to(wide if place else dtype).clone().requires_grad_() for place, x in enumerate(inputs)]
    outputs = call(*leaves)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64, device=DEVICE).view_as(outputs)
    return outputs, *torch.autograd.grad((outputs.double() * weights).sum(), leaves)


@pytest.mark.parametrize("length", [3, 70])
@pytest.mark.parametrize(("norm", "theta"), [(True, 100.0), (False, 100.0), (True, None)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_attention(length, norm, theta, dtype, tolerance):
    for width in WIDTHS.get("attention", (16,)):
        projected = torch.randn(2, length, 8 * width, dtype=torch.float64).to(DEVICE)
        gains = [(1 + torch.randn(width, dtype=torch.float64) / 10).to(DEVICE) for _ in range(2 if norm else 0)]

        def call(backend, projected, *gains, width=width):
            settings = {"gains": gains or None, "theta": theta, "document_ids": documents(length), "backend": backend}
            return attention(projected, 2, width, **settings)

        exact = run(lambda *leaves: call(AttentionBackend.REFERENCE, *leaves), torch.float64, projected, *gains)
        found = run(lambda *leaves: call(AttentionBackend.TRITON, *leaves), dtype, projected, *gains)
        assert furthest(found, exact) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_gains_may_be_nothing_beside_others(dtype, tolerance):
    """Channels that turn together, of which one has no gain: what it was before is in the projection alone."""
    width = 32 if WIDTHS else 16
    projected = torch.randn(2, 20, 4 * width, dtype=torch.float64).to(DEVICE)
    gains = [torch.linspace(0, 2, width, dtype=torch.float64).to(DEVICE) for _ in range(2)]

    def call(backend, projected, *gains):
        return attention(projected, 1, width, gains=gains, theta=100.0, backend=backend)

    exact = run(lambda *leaves: call(AttentionBackend.REFERENCE, *leaves), torch.float64, projected, *gains)
    found = run(lambda *leaves: call(AttentionBackend.TRITON, *leaves), dtype, projected, *gains)
    for one, other in zip(found[2:], exact[2:], strict=True):
        assert other[0].abs() > 1e-3
        assert (one.double() - other).abs()[0] < 5 * tolerance * other.norm()


# PyTorch 2.13 warns of what it does itself while it compiles.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.parametrize("norm", [True, False])
def test_compiled_attention_keeps_the_projection_alone(norm):
    """Turned in its place or as it was: a compiler that may make things again has no copy of it, nor one more pass."""
    width = 32 if WIDTHS else 16
    x, weight = torch.randn(2, 40, 24, device=DEVICE), torch.randn(4 * width, 24, device=DEVICE) / 5
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    leaves += [torch.rand(width, device=DEVICE, requires_grad=True) for _ in range(2 if norm else 0)]
    document_ids, found = documents(40), []
    with functorch.patch(RECOMPUTED):
        for backend in (AttentionBackend.REFERENCE, AttentionBackend.TRITON):

            def layer(x, weight, *gains, backend=backend):
                settings = {"gains": gains or None, "theta": 100.0, "document_ids": document_ids, "backend": backend}
                return attention(F.linear(x, weight), 1, width, **settings)

            prepare_compiler()
            compiled = torch.compile(layer, backend="aot_eager_decomp_partition", fullgraph=True, dynamic=False)
            outputs, kept = saved_tensor_bytes(lambda compiled=compiled: compiled(*leaves), torch.nn.Module())
            found.append((kept, outputs, *torch.autograd.grad(outputs.sin().sum(), leaves)))
    positions, heads = 2 * 40, 2
    projection, outputs, sums = 4 * width, heads * width, heads
    given = sum(leaf.nbytes for leaf in leaves) + document_ids.nbytes
    assert found[1][0] == given + 4 * positions * (projection + outputs + sums)
    assert furthest(found[1][1:], found[0][1:]) < 1e-4


@pytest.mark.parametrize("length", [3, 70])
@pytest.mark.parametrize(("biased", "theta", "steepness"), [(True, 100.0, 1.0), (False, None, 8.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_recurrence(length, biased, theta, steepness, dtype, tolerance):
    for width in WIDTHS.get("recurrence", (16,)):
        projected = (torch.randn(2, length, 6 * width, dtype=torch.float64) * steepness).to(DEVICE)
        bias = [torch.randn(2 * width, dtype=torch.float64).to(DEVICE)] if biased else []

        def call(backend, projected, *bias):
            settings = {"bias": bias[0] if bias else None, "theta": theta, "document_ids": documents(length)}
            return hgrn2(projected, 2, **settings, backend=backend)

        exact = run(lambda *leaves: call(RecurrenceBackend.REFERENCE, *leaves), torch.float64, projected, *bias)
        found = run(lambda *leaves: call(RecurrenceBackend.TRITON, *leaves), dtype, projected, *bias)
        # The bias's gradient is a sum over all positions of what was rounded, with either sign.
        assert furthest(found[:2], exact[:2]) < tolerance
        assert furthest(found[2:] or found[:1], exact[2:] or exact[:1]) < 5 * tolerance


def test_decays_near_zero_are_not_lost():
    projected = (
        torch.zeros(1, 32, 48, device=DEVICE) if DEVICE.type == "cpu" else torch.zeros(1, 32, 192, device=DEVICE)
    )
    third = projected.shape[-1] // 3
    projected[..., :third], projected[..., third : 2 * third], projected[..., 2 * third :] = 1.0, 12.0, 1.0
    one, other = (
        hgrn2(projected, 1, backend=backend) for backend in (RecurrenceBackend.TRITON, RecurrenceBackend.REFERENCE)
    )
    assert torch.allclose(one, other, rtol=1e-5)
