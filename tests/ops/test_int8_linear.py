"""Products with 8-bit weights: every backend says what the rounded weight says."""

import pytest
import torch

from lilliput.base.errors import MachineError
from lilliput.ops.int8_linear import Backend, int8_linear, quantize
from lilliput.ops.linear import concatenated, fused_linear, scale_weight


@pytest.fixture
def weight():
    return torch.randn(48, 64, generator=torch.Generator().manual_seed(0))


def test_rounding_is_half_a_step_of_each_channel_at_most(weight):
    error = (quantize(weight).dense() - weight).abs()
    assert (error <= weight.abs().amax(dim=1, keepdim=True) / 127 / 2 + 1e-7).all()
    assert torch.equal(quantize(torch.zeros(2, 3)).dense(), torch.zeros(2, 3))


@pytest.mark.parametrize(("backend", "tolerance"), [(Backend.SUM, 1e-5), (Backend.TORCH, 2e-2), (Backend.AUTO, 2e-2)])
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_backends_agree(weight, backend, tolerance, rows):
    x, narrow = torch.randn(rows, 2, 64, generator=torch.Generator().manual_seed(rows)), quantize(weight)
    expected = torch.nn.functional.linear(x, narrow.dense())
    assert torch.allclose(int8_linear(x, narrow, Backend.REFERENCE), expected, atol=1e-4)
    assert torch.allclose(int8_linear(x, narrow, backend), expected, atol=tolerance * float(expected.abs().max()))


def test_weights_of_8_bits_lie_side_by_side_and_are_scaled(weight):
    x, narrow = torch.randn(5, 64), quantize(weight)
    both = concatenated(narrow, narrow)
    assert torch.allclose(int8_linear(x, both), fused_linear(x, narrow, narrow), atol=0.1)
    assert torch.allclose(scale_weight(narrow, torch.tensor(2.0)), 2 * narrow.dense())


def test_a_backend_that_there_is_not_is_refused(weight):
    with pytest.raises(MachineError, match="int8_linear has no backend 'triton'"):
        int8_linear(torch.randn(1, 64), quantize(weight), Backend.TRITON)
