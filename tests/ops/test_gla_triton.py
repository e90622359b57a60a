"""The Triton kernels against the naive recurrence; without a GPU in Triton's interpreter (see conftest.py).

The interpreter multiplies the bits of bf16 as integers, so bf16 is tested where there is a GPU; fp16 goes the same way.
"""

import importlib
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from lilliput.base.errors import MachineError
from lilliput.ops.gla import Backend, gla, reset_at_documents

pytest.importorskip("triton")
kernels = importlib.import_module("lilliput.ops.gla.triton")
tiles = importlib.import_module("lilliput.ops.gla.triton_tiles")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = pytest.mark.gpu
WIDTH, VALUE = (64, 128) if torch.cuda.is_available() else (16, 32)
"""Key and value channels where a test does not care."""


def draw(length, steepness=1.0, *, rows=1, heads=2, width=WIDTH, value=VALUE):
    """q, k, v, z and a state, in fp64, as numbers that fp16 holds."""
    generator = torch.Generator().manual_seed(length)
    shapes = [(rows, length, heads, channels) for channels in (width, width, value, width)]
    shapes.append((rows, heads, width, value))
    drawn = [torch.randn(shape, generator=generator).bfloat16().double().to(DEVICE) for shape in shapes]
    drawn[3] *= steepness
    return [x.requires_grad_() for x in drawn]


def run(backend, inputs, dtype=None, *, document_ids=None):
    """Outputs, state and gradients, in fp64, or with q, k, v in a dtype and the rest in fp32."""
    q, k, v, z, state = inputs
    log_decay = F.logsigmoid(z)
    if document_ids is not None:
        log_decay = reset_at_documents(log_decay, document_ids)
    if dtype is not None:
        q, k, v, log_decay = q.to(dtype), k.to(dtype), v.to(dtype), log_decay.float()
        state = None if state is None else state.float()
    outputs, after = gla(q, k, v, log_decay, state, backend)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64, device=DEVICE).view_as(outputs)
    loss = (outputs.double() * weights).sum() + after.double().square().sum()
    return outputs, after, *torch.autograd.grad(loss, [x for x in inputs if x is not None])


def furthest(ones, others):
    """The largest ||a - b|| / ||b||."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(ones, others, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in pairs)


TOLERANCES = (
    (torch.float32, 1e-4),
    (torch.float16, 3e-3),
    pytest.param(torch.bfloat16, 2e-2, marks=ON_GPU),
)


@pytest.mark.parametrize(("length", "steepness"), [(1, 1), (32, 5), (77, 1), (80, 20)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_the_kernels_equal_the_naive_form(length, steepness, dtype, tolerance):
    inputs = draw(length, steepness)
    assert furthest(run(Backend.TRITON, inputs, dtype), run(Backend.REFERENCE, inputs)) < tolerance


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a cut may be miscompiled; those that ship are tested below")
@pytest.mark.parametrize("chunk", [16, 32, 64])
def test_however_the_work_is_cut(chunk, monkeypatch):
    inputs = draw(70, width=32)
    exact = run(Backend.REFERENCE, inputs)
    tile = tiles.Tile(16, 16)
    monkeypatch.setattr(kernels, "tiles_for", lambda *_: tiles.Tiles(chunk, states=tile, outputs=tile, gradients=tile))
    assert furthest(run(Backend.TRITON, inputs, torch.float32), exact) < 1e-4


@ON_GPU
@pytest.mark.parametrize(("width", "value"), list(product(kernels.WIDTHS, repeat=2)))
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_all_that_auto_can_choose_on_the_device(width, value, dtype, tolerance):
    inputs = draw(300, rows=3, heads=3, width=width, value=value)
    q, _, v, z, _ = inputs
    assert kernels.is_supported(q.to(dtype), v.to(dtype), z.float())
    document_ids = torch.arange(300, device=DEVICE).div(100, rounding_mode="floor").expand(3, -1)
    for borders in (None, document_ids):
        found = run(Backend.AUTO, inputs, dtype, document_ids=borders)
        assert furthest(found, run(Backend.REFERENCE, inputs, document_ids=borders)) < tolerance


@ON_GPU
@pytest.mark.parametrize("width", [16, 32])
def test_narrow_heads_are_left_to_the_chunked_form_on_the_device(width):
    inputs = draw(300, width=width)
    assert furthest(run(Backend.AUTO, inputs, torch.bfloat16), run(Backend.REFERENCE, inputs)) < 2e-2
    with pytest.raises(MachineError, match=f"{width} key and 128 value channels"):
        run(Backend.TRITON, inputs, torch.bfloat16)


def test_documents_in_a_row_equal_documents_in_rows():
    inputs = draw(50)
    document_ids = torch.tensor([[0] * 20 + [1] * 30], device=DEVICE)
    packed = run(Backend.TRITON, inputs, torch.float32, document_ids=document_ids)
    assert furthest(packed, run(Backend.REFERENCE, inputs, document_ids=document_ids)) < 1e-4
    q, k, v, z, _ = (x.detach().float() for x in inputs)
    alone, _ = gla(*(x[:, 20:] for x in (q, k, v)), F.logsigmoid(z[:, 20:]), None, Backend.TRITON)
    assert furthest([packed[0][:, 20:]], [alone]) < 1e-6


@pytest.mark.parametrize("decay", [-20.0, -2000.0, -1e30, float("-inf")])
def test_strong_decay_leaves_only_the_position_itself(decay):
    q, k, v = (x.detach().half() for x in draw(40)[:3])
    log_decay = torch.full(q.shape, decay, device=DEVICE, requires_grad=True)
    outputs, _ = gla(q, k, v, log_decay, None, Backend.TRITON)
    alone = WIDTH**-0.5 * (q.float() * k.float()).sum(-1, keepdim=True) * v.float()
    assert furthest([outputs], [alone]) < 1e-3
    outputs.sum().backward()
    assert log_decay.grad is not None and log_decay.grad.isfinite().all()


def test_half_a_chunk_that_forgets_and_half_that_does_not():
    inputs = draw(64)
    with torch.no_grad():
        inputs[3][:, :32] = -30.0
        inputs[3][:, 32:] = 8.0
    assert furthest(run(Backend.TRITON, inputs, torch.float32), run(Backend.REFERENCE, inputs)) < 1e-4


def test_rows_may_begin_empty():
    inputs = [*draw(33)[:4], None]
    assert furthest(run(Backend.TRITON, inputs, torch.float32), run(Backend.REFERENCE, inputs)) < 1e-4


def test_the_outputs_alone_and_the_state_alone_have_gradients():
    inputs = draw(20)
    for used in (0, 1):
        found, expected = (
            torch.autograd.grad(
                gla(*given[:3], F.logsigmoid(given[3]), given[4], backend)[used].square().sum(),
                given[used:],  # the state after the row does not hang on q
            )
            for backend, given in (
                (Backend.TRITON, [x.detach().float().requires_grad_() for x in inputs]),
                (Backend.REFERENCE, inputs),
            )
        )
        assert furthest(found, expected) < 1e-4


def test_a_position_does_not_see_later_ones():
    q, k, v, z, state = (x.detach().float() for x in draw(50))
    before, _ = gla(q, k, v, F.logsigmoid(z), state, Backend.TRITON)
    q[:, 37], k[:, 37], v[:, 37], z[:, 37] = 9.0, 9.0, 9.0, -9.0
    after, _ = gla(q, k, v, F.logsigmoid(z), state, Backend.TRITON)
    assert torch.equal(before[:, :37], after[:, :37]) and not torch.equal(before[:, 37:], after[:, 37:])


def test_inputs_may_lie_anywhere_in_memory():
    inputs = draw(20)
    scattered = [x.detach().mT.contiguous().mT.requires_grad_() for x in inputs]
    assert not any(x.is_contiguous() for x in scattered)
    assert furthest(run(Backend.TRITON, scattered, torch.float32), run(Backend.REFERENCE, inputs)) < 1e-4


def test_the_operators_are_what_the_compiler_is_told():
    q, k, v, z, state = (x.detach().float().requires_grad_() for x in draw(20))
    arguments = (q, k, v, F.logsigmoid(z).detach().requires_grad_(), state)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(kernels.gla_forward.recorded, arguments, test_utils=checks)


def test_what_does_not_fit_is_refused():
    q, k, v, z, state = (x.detach().float() for x in draw(20, width=24))
    with pytest.raises(MachineError, match=f"24 key and {VALUE} value channels"):
        gla(q, k, v, F.logsigmoid(z), state, Backend.TRITON)
