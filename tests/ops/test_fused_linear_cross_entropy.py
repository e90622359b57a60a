"""Every form of the loss against the naive one in fp64, values and gradients; the naive one against PyTorch's own.

Triton's kernels run here as they are where there is a GPU, elsewhere in Triton's interpreter.
"""

import importlib
import os
from importlib.util import find_spec
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from lilliput.base.errors import MachineError
from lilliput.ops.fused_linear_cross_entropy import Backend, fused_linear_cross_entropy
from lilliput.ops.fused_linear_cross_entropy.compact_targets import CompactTargets, keeping_all_positions
from lilliput.ops.fused_linear_cross_entropy.reference import LossCoefficients

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or its products are not deterministic
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NO_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton")
TRITON = pytest.param(Backend.TRITON, marks=NO_TRITON)
ROWS, LENGTH, WIDTH, VOCAB = 2, 12, 20, 45
PRICE = LossCoefficients(cross_entropy=1.5, z=0.05)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
PRECISIONS = [
    *product([Backend.REFERENCE, Backend.CHUNK], [torch.float64, torch.float32, torch.bfloat16]),
    (Backend.CHUNK, torch.float16),
    pytest.param(Backend.TRITON, torch.float32, marks=NO_TRITON),
    pytest.param(Backend.TRITON, torch.bfloat16, marks=NO_TRITON),
    pytest.param(Backend.TRITON, torch.float16, marks=NO_TRITON),
]


@pytest.fixture(autouse=True)
def several_chunks_and_tiles(monkeypatch):
    """Chunks of 16 positions and tiles of 32 logits, so that tiny inputs take two of each."""
    monkeypatch.setattr(importlib.import_module("lilliput.ops.fused_linear_cross_entropy.chunk"), "CHUNK", 16)
    if find_spec("triton") is not None:
        module = importlib.import_module("lilliput.ops.fused_linear_cross_entropy.triton")
        monkeypatch.setattr(module, "BUFFER", 16 * 64 * 2)
        monkeypatch.setattr(module, "LARGEST_TILE", 32)


def draw(dtype, bag, *, vocab=VOCAB):
    """Hidden states, an fp32 head, targets, and weights of which some are zero here and all are zero there."""
    hidden = torch.randn(ROWS, LENGTH, WIDTH, dtype=torch.float64).to(dtype)
    head = torch.randn(VOCAB, WIDTH, dtype=torch.float64)
    head = head if dtype == torch.float64 else head.to(dtype).float()
    targets = torch.randint(0, vocab, (ROWS, LENGTH, bag))
    targets[0, 0] = 4  # the same target several times: its weights add up
    weight = torch.rand(ROWS, LENGTH, bag)
    weight[0, 1, 0] = 0
    weight[0, 7:9] = weight[1, 10:] = 0
    hidden, head, targets, weight = (tensor.to(DEVICE) for tensor in (hidden, head, targets, weight))
    return hidden.requires_grad_(), head.requires_grad_(), targets, weight


def costs_of(inputs, price=PRICE, upstream=0.3, **settings):
    """Everything that is returned, and the gradients of both inputs."""
    charges = fused_linear_cross_entropy(*inputs, coefficients=price, **settings)
    assert not charges.loss.requires_grad and not charges.lse.requires_grad
    return *charges, *torch.autograd.grad(upstream * charges.total, inputs[:2])


def exact(inputs, **settings):
    hidden, head, *rest = inputs
    doubled = [tensor.detach().double().requires_grad_() for tensor in (hidden, head)]
    return costs_of([*doubled, *rest], backend=Backend.REFERENCE, **settings)


def constant(tensor):
    return tensor.detach().clone()


def distance(one, other):
    return float((one.double() - other).detach().norm() / other.detach().norm())


@pytest.mark.parametrize("vocab", [None, 37], ids=["", "padded"])
@pytest.mark.parametrize("cap", [None, 5.0], ids=["", "capped"])
@pytest.mark.parametrize("bag", [1, 3, 4])
@pytest.mark.parametrize(("backend", "dtype"), PRECISIONS)
def test_every_backend_is_the_exact_loss_and_gradients(backend, dtype, bag, cap, vocab):
    inputs = draw(dtype, bag, vocab=vocab or VOCAB)
    settings = {"softcap": cap, "vocab": vocab}
    found, expected = costs_of(inputs, backend=backend, **settings), exact(inputs, **settings)
    for here, there in zip(found, expected, strict=True):
        assert distance(here, there) < TOLERANCE[dtype]
    total, loss, lse, grad_hidden, grad_head = found
    assert loss.shape == inputs[2].shape
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert total.dtype == loss.dtype == lse.dtype == wide and total.shape == ()
    assert grad_hidden.dtype == dtype and grad_head.dtype == inputs[1].dtype
    # Positions without weight, and rows of the head without a token, are not there at all.
    assert not any(tensor[1, 10:].any() for tensor in (loss, lse, grad_hidden))
    assert vocab is None or not grad_head[vocab:].any()


@pytest.mark.parametrize("cap", [None, 5.0], ids=["", "capped"])
@pytest.mark.parametrize(
    "price", [LossCoefficients(cross_entropy=1.0), LossCoefficients(z=1.0), LossCoefficients()], ids=str
)
@pytest.mark.parametrize("backend", [Backend.CHUNK, TRITON])
def test_prices_may_be_anything(backend, price, cap):
    inputs = draw(torch.float32, 2)
    found = costs_of(inputs, price, backend=backend, softcap=cap)
    expected = exact(inputs, price=price, softcap=cap)
    for here, there in zip(found, expected, strict=True):
        assert (here.double() - there).norm() <= TOLERANCE[torch.float32] * there.norm()


@pytest.mark.parametrize("backend", [Backend.CHUNK, TRITON])
def test_what_is_constant_has_no_gradient_and_changes_no_other(backend):
    hidden, head, *rest = draw(torch.float32, 2)
    _, _, _, *both = costs_of((hidden, head, *rest), backend=backend)
    for leaves, leaf, expected in (
        ((hidden, constant(head)), hidden, both[0]),
        ((constant(hidden), head), head, both[1]),
    ):
        total = fused_linear_cross_entropy(*leaves, *rest, coefficients=PRICE, backend=backend).total
        assert torch.equal(torch.autograd.grad(0.3 * total, leaf)[0], expected)
    for leaves in ((constant(hidden), constant(head)), (hidden, head)):
        with torch.set_grad_enabled(leaves[0] is not hidden):
            assert not fused_linear_cross_entropy(
                *leaves, *rest, coefficients=PRICE, backend=backend
            ).total.requires_grad


@pytest.mark.parametrize("backend", [TRITON])
def test_gradients_that_nobody_will_ask_for_are_not_made(backend, monkeypatch):
    module = importlib.import_module("lilliput.ops.fused_linear_cross_entropy.triton")
    made, make = [], module.make
    monkeypatch.setattr(module, "make", lambda *inputs: made.append(make(*inputs)) or made[-1])
    hidden, head, targets, weight = draw(torch.float32, 2)
    with torch.no_grad():
        fused_linear_cross_entropy(hidden, head, targets, weight, backend=backend)
    fused_linear_cross_entropy(constant(hidden), head, targets, weight, backend=backend)
    assert [[grad.numel() for grad in one[2:]] for one in made] == [[0, 0], [0, head.numel()]]


@pytest.mark.parametrize("backend", [Backend.CHUNK, TRITON])
def test_the_upstream_gradient_is_multiplied_in_each_time(backend):
    hidden, head, targets, weight = draw(torch.float32, 1)
    total = fused_linear_cross_entropy(hidden, head, targets, weight, coefficients=PRICE, backend=backend).total
    upstream = torch.tensor(2.0**-3, device=DEVICE)
    once, twice = (
        torch.autograd.grad(total, (hidden, head), factor, retain_graph=True) for factor in (1 + 0 * upstream, upstream)
    )
    assert all(torch.equal(one * upstream, other) for one, other in zip(once, twice, strict=True))


@pytest.mark.parametrize("backend", [Backend.CHUNK, TRITON])
def test_fp16_keeps_small_gradients(backend):
    """Of a millionth, where fp16 has four bits; the scale of the loss comes too late for them."""
    hidden, head, targets, weight = draw(torch.float16, 1)
    inputs = hidden, head, targets, 1e-6 * weight
    found = costs_of(inputs, upstream=2.0**16, backend=backend)
    for here, there in zip(found, exact(inputs, upstream=2.0**16), strict=True):
        assert distance(here, there) < TOLERANCE[torch.float16]


@pytest.mark.parametrize("backend", [TRITON])
def test_fp16_has_room_for_sums_over_positions(backend):
    """All of them push one row of the head the same way, in the units of fp16 beyond its range."""
    hidden, head, targets, weight = draw(torch.float16, 1)
    inputs = (
        (2 + hidden.detach().abs()).requires_grad_(),
        head,
        torch.full_like(targets, 3),
        torch.full_like(weight, 5.0),
    )
    settings = {"price": LossCoefficients(cross_entropy=1.5), "upstream": 2.0**-3}
    for here, there in zip(costs_of(inputs, backend=backend, **settings), exact(inputs, **settings), strict=True):
        assert distance(here, there) < TOLERANCE[torch.float16]


@pytest.mark.parametrize("backend", [Backend.CHUNK, TRITON])
def test_two_runs_are_equal_to_the_bit(backend):
    inputs = draw(torch.float32, 4)
    for one, other in zip(costs_of(inputs, backend=backend), costs_of(inputs, backend=backend), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", [Backend.REFERENCE, Backend.CHUNK, TRITON])
def test_a_batch_without_any_weight_costs_nothing(backend):
    hidden, head, targets, weight = draw(torch.float32, 2)
    assert not any(tensor.any() for tensor in costs_of((hidden, head, targets, 0 * weight), backend=backend))


@pytest.mark.parametrize("cap", [None, 5.0])
def test_the_naive_loss_is_cross_entropy_over_the_tokens_of_the_head(cap):
    hidden, head, targets, _ = draw(torch.float64, 3, vocab=37)
    weight = torch.full(targets.shape, 1 / 3, device=DEVICE, dtype=torch.float64)
    total, loss, lse = fused_linear_cross_entropy(
        hidden, head, targets, weight, coefficients=PRICE, softcap=cap, vocab=37, backend=Backend.REFERENCE
    )
    logits = F.linear(hidden, head[:37])
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    each = [F.cross_entropy(logits.mT, targets[..., s], reduction="none") for s in range(3)]
    assert torch.allclose(loss, torch.stack(each, dim=-1) / 3, atol=1e-12)
    assert torch.allclose(lse, logits.exp().sum(dim=-1).log(), atol=1e-12)
    assert torch.allclose(total, 1.5 * loss.sum() + 0.05 * lse.square().sum(), atol=1e-12)


@pytest.mark.parametrize("backend", [Backend.CHUNK, TRITON])
def test_under_autocast_the_product_has_its_precision(backend):
    hidden, head, targets, weight = draw(torch.float32, 1)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        loss = fused_linear_cross_entropy(hidden, head, targets, weight, backend=backend).loss
    narrow = fused_linear_cross_entropy(hidden.bfloat16(), head, targets, weight, backend=backend).loss
    assert torch.equal(loss, narrow) and loss.dtype == torch.float32


@pytest.mark.parametrize("backend", [TRITON])
def test_a_target_that_is_no_token_makes_the_loss_nan_where_it_has_weight(backend):
    hidden, head, targets, weight = draw(torch.float32, 2)
    targets[0, 1, 0], targets[1, 2, 1] = -100, VOCAB  # the first one without weight
    total, loss, lse = fused_linear_cross_entropy(hidden, head, targets, weight, backend=backend)
    assert loss.isnan().nonzero().tolist() == [[1, 2, 1]] and not lse.isnan().any() and total.isnan()


@pytest.mark.slow
@pytest.mark.parametrize("backend", [TRITON])
def test_the_fused_loss_passes_the_checks_of_operators(backend):
    module = importlib.import_module("lilliput.ops.fused_linear_cross_entropy.triton")
    hidden, head, targets, weight = (tensor.flatten(0, -2) for tensor in draw(torch.float32, 2))
    for wanted in ((True, True), (False, True), (False, False)):
        arguments = hidden.detach(), head.detach(), targets, weight, 1.0, 1e-4, None, *wanted
        torch.library.opcheck(module.make.recorded, arguments)


def test_kernels_asked_for_where_there_are_none_say_so():
    with pytest.raises(MachineError, match="they have no fp64|Triton is not installed"):
        fused_linear_cross_entropy(*draw(torch.float64, 1), backend=Backend.TRITON)


def test_a_device_without_the_kernels_takes_the_chunked_form():
    hidden, head, targets, weight = (tensor.cpu() for tensor in draw(torch.bfloat16, 1))
    auto, chunked = (
        fused_linear_cross_entropy(hidden, head, targets, weight, backend=b).loss for b in (Backend.AUTO, Backend.CHUNK)
    )
    assert torch.equal(auto, chunked)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream")  # nothing is accumulated
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_recorded_pass_is_the_launched_one_to_the_bit(dtype):
    """Upstream gradients are read on the device, and the host waits for nothing where all is charged."""
    hidden, head, targets, weight = draw(dtype, 2)
    weight, factor = torch.rand_like(weight) + 0.1, torch.tensor(0.3, device=DEVICE)

    def grads():
        total = fused_linear_cross_entropy(
            hidden, head, targets, weight, coefficients=PRICE, backend=Backend.TRITON
        ).total
        return total, *torch.autograd.grad(total * factor, (hidden, head))

    grads()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = grads()
    for factor_now in (0.3, 17.0):
        factor.fill_(factor_now)
        graph.replay()
        assert all(torch.equal(one, other) for one, other in zip(recorded, grads(), strict=True))


def test_positions_without_weight_may_stay_in_and_cost_nothing():
    hidden, head, targets, weight = draw(torch.float32, 1)

    def total_and_gradients():
        total = fused_linear_cross_entropy(
            hidden, head, targets, weight, coefficients=PRICE, backend=Backend.CHUNK
        ).total
        return total.detach(), *torch.autograd.grad(total, (hidden, head))

    taken_out = total_and_gradients()
    assert not CompactTargets(weight.flatten(0, 1)).all
    with keeping_all_positions():
        assert CompactTargets(weight.flatten(0, 1)).all
        kept = total_and_gradients()
    for one, other in zip(kept, taken_out, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
