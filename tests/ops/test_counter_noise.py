"""Counter-based noise: the published numbers of Philox, a kernel equal to the reference, rows alike in any batch."""

import pytest
import torch

from lilliput.ops import counter_noise
from lilliput.ops.counter_noise.reference import philox
from lilliput.ops.dispatch import Backend

SEED = torch.tensor(0x1234_5678_9ABC_DEF0)


def test_philox_is_the_published_one():
    """Known answers of Random123 (kat_vectors) for philox4x32 of ten rounds."""
    zero = torch.zeros(1, dtype=torch.int64)
    words = philox((zero, zero, zero, zero), torch.tensor(0))
    assert [f"{int(word):08x}" for word in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = zero + 0xFFFFFFFF
    words = philox((ones, ones, ones, ones), torch.tensor(-1))
    assert [f"{int(word):08x}" for word in words] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


@pytest.mark.parametrize("numbers", [1, 6, 1030])
def test_the_kernel_draws_the_numbers_of_the_reference(numbers):
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = torch.tensor([0, 7, 4_000_000_000], device=device)
    for draw in (counter_noise.uniform, counter_noise.normal):
        expected, found = (
            draw(SEED.to(device), rows, (numbers,), 3, backend) for backend in (Backend.REFERENCE, Backend.TRITON)
        )
        tolerance = 0 if draw is counter_noise.uniform else 1e-5
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_a_row_gets_its_numbers_in_any_batch():
    rows = torch.arange(8)
    whole = counter_noise.normal(SEED, rows, (3, 5))
    assert torch.equal(whole[5:], counter_noise.normal(SEED, rows[5:], (3, 5)))
    assert not torch.equal(whole, counter_noise.normal(SEED, rows, (3, 5), stream=1))
    assert not torch.equal(whole, counter_noise.normal(SEED + 1, rows, (3, 5)))


def test_numbers_are_uniform_and_normal():
    rows = torch.arange(64)
    flat = counter_noise.uniform(SEED, rows, (4096,))
    assert flat.min() > 0 and flat.max() < 1
    assert flat.mean() == pytest.approx(0.5, abs=2e-3) and flat.var() == pytest.approx(1 / 12, abs=1e-3)
    bell = counter_noise.normal(SEED, rows, (4096,))
    assert bell.mean() == pytest.approx(0, abs=5e-3) and bell.var() == pytest.approx(1, abs=1e-2)
    assert (bell.abs() < 1).float().mean() == pytest.approx(0.6827, abs=3e-3)
    columns = bell[:, :256].double()
    apart = torch.corrcoef(columns)
    assert (apart - torch.eye(64)).abs().max() < 0.3
