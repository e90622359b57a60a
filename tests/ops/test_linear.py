"""Products with weights of fp16 on a processor: prompts and single positions get the same numbers."""

import pytest
import torch

from lilliput.ops.linear import WIDENED, linear


@pytest.mark.parametrize("positions", [1, WIDENED - 1, WIDENED, 3 * WIDENED])
def test_fp16_on_a_processor_is_what_fp32_says(positions):
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, positions, 64, generator=draw), torch.randn(48, 64, generator=draw).half()
    found = linear(x, weight)
    assert found.dtype == torch.float16
    assert torch.allclose(found.float(), torch.nn.functional.linear(x, weight.float()), atol=0.05)
    alone = torch.cat([linear(x[:, at : at + 1], weight) for at in range(positions)], dim=1)
    assert torch.allclose(found, alone, atol=0.05)
