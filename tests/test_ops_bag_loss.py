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
from lilliput.ops.bag_loss import Backend, bag_loss

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or its products are not deterministic
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NO_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton")
TRITON = pytest.param(Backend.TRITON, marks=NO_TRITON)
ROWS, LENGTH, WIDTH, VOCAB = 2, 12, 20, 45
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
PRECISIONS = [
    *product([Backend.NAIVE, Backend.CHUNKED], [torch.float64, torch.float32, torch.bfloat16]),
    pytest.param(Backend.TRITON, torch.float32, marks=NO_TRITON),
    pytest.param(Backend.TRITON, torch.bfloat16, marks=NO_TRITON),
    pytest.param(Backend.TRITON, torch.float16, marks=NO_TRITON),
]


@pytest.fixture(autouse=True)
def several_chunks_and_tiles(monkeypatch):
    """Chunks of 16 positions and tiles of 32 logits, so that tiny inputs take two of each."""
    monkeypatch.setattr(importlib.import_module("lilliput.ops.bag_loss.chunked"), "CHUNK", 16)
    if find_spec("triton") is not None:
        module = importlib.import_module("lilliput.ops.bag_loss.triton")
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


def charge(inputs, **settings):
    """Both outputs and the gradients of both inputs, of a total that depends on both outputs everywhere."""
    loss, lse = bag_loss(*inputs, **settings)
    total = (loss * torch.linspace(1, 2, LENGTH, device=DEVICE)).sum() + 0.1 * (lse.square() + lse).sum()
    return loss, lse, *torch.autograd.grad(total, inputs[:2])


def exact(inputs, **settings):
    hidden, head, *rest = inputs
    doubled = [tensor.detach().double().requires_grad_() for tensor in (hidden, head)]
    return charge([*doubled, *rest], backend=Backend.NAIVE, **settings)


def distance(one, other):
    return float((one.double() - other).detach().norm() / other.detach().norm())


@pytest.mark.parametrize("vocab", [None, 37], ids=["", "padded"])
@pytest.mark.parametrize("cap", [None, 5.0], ids=["", "capped"])
@pytest.mark.parametrize("bag", [1, 2, 4])
@pytest.mark.parametrize(("backend", "dtype"), PRECISIONS)
def test_every_backend_is_the_exact_loss_and_gradients(backend, dtype, bag, cap, vocab):
    inputs = draw(dtype, bag, vocab=vocab or VOCAB)
    settings = {"cap": cap, "vocab": vocab}
    found, expected = charge(inputs, backend=backend, **settings), exact(inputs, **settings)
    for here, there in zip(found, expected, strict=True):
        assert distance(here, there) < TOLERANCE[dtype]
    loss, lse, grad_hidden, grad_head = found
    assert loss.dtype == lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert grad_hidden.dtype == dtype and grad_head.dtype == inputs[1].dtype
    # Positions without weight, and rows of the head without a token, are not there at all.
    assert not any(tensor[1, 10:].any() for tensor in (loss, lse, grad_hidden))
    assert vocab is None or not grad_head[vocab:].any()


@pytest.mark.parametrize("backend", [Backend.CHUNKED, TRITON])
def test_two_runs_are_equal_to_the_bit(backend):
    inputs = draw(torch.float32, 4)
    for one, other in zip(charge(inputs, backend=backend), charge(inputs, backend=backend), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", [Backend.NAIVE, Backend.CHUNKED, TRITON])
def test_a_batch_without_any_weight_costs_nothing(backend):
    hidden, head, targets, weight = draw(torch.float32, 2)
    assert not any(tensor.any() for tensor in charge((hidden, head, targets, 0 * weight), backend=backend))


@pytest.mark.parametrize("cap", [None, 5.0])
def test_the_naive_loss_is_cross_entropy_over_the_tokens_of_the_head(cap):
    hidden, head, targets, _ = draw(torch.float64, 3, vocab=37)
    weight = torch.full(targets.shape, 1 / 3, device=DEVICE, dtype=torch.float64)
    loss, lse = bag_loss(hidden, head, targets, weight, cap=cap, vocab=37, backend=Backend.NAIVE)
    logits = F.linear(hidden, head[:37])
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    each = [F.cross_entropy(logits.mT, targets[..., s], reduction="none") for s in range(3)]
    assert torch.allclose(loss, torch.stack(each).mean(dim=0), atol=1e-12)
    assert torch.allclose(lse, logits.exp().sum(dim=-1).log(), atol=1e-12)


@pytest.mark.parametrize("backend", [Backend.CHUNKED, TRITON])
def test_under_autocast_the_product_has_its_precision(backend):
    hidden, head, targets, weight = draw(torch.float32, 1)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        loss, _ = bag_loss(hidden, head, targets, weight, backend=backend)
    narrow, _ = bag_loss(hidden.bfloat16(), head, targets, weight, backend=backend)
    assert torch.equal(loss, narrow) and loss.dtype == torch.float32


@pytest.mark.parametrize("backend", [TRITON])
def test_a_target_that_is_no_token_makes_the_loss_nan_where_it_has_weight(backend):
    hidden, head, targets, weight = draw(torch.float32, 2)
    targets[0, 1, 0], targets[1, 2, 1] = -100, VOCAB  # the first one without weight
    loss, lse = bag_loss(hidden, head, targets, weight, backend=backend)
    assert loss.isnan().nonzero().tolist() == [[1, 2]] and not lse.isnan().any()


@pytest.mark.parametrize("backend", [TRITON])
def test_the_fused_loss_passes_the_checks_of_operators(backend):
    module = importlib.import_module("lilliput.ops.bag_loss.triton")
    hidden, head, targets, weight = (tensor.flatten(0, -2) for tensor in draw(torch.float32, 2))
    inputs = (hidden.detach().requires_grad_(), head.detach().requires_grad_(), targets, weight, None)
    torch.library.opcheck(module.forward, inputs)


def test_kernels_asked_for_where_there_are_none_say_so():
    with pytest.raises(MachineError, match="they have no fp64|Triton is not installed"):
        bag_loss(*draw(torch.float64, 1), backend=Backend.TRITON)


def test_a_device_without_the_kernels_takes_the_chunked_form():
    hidden, head, targets, weight = (tensor.cpu() for tensor in draw(torch.bfloat16, 1))
    auto, chunked = (bag_loss(hidden, head, targets, weight, backend=b)[0] for b in (Backend.AUTO, Backend.CHUNKED))
    assert torch.equal(auto, chunked)
