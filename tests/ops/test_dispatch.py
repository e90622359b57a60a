"""Backends: one name for each everywhere, and an operation refuses those that it does not have."""

import pytest
import torch

from lilliput.base.errors import MachineError
from lilliput.ops.dispatch import Backend
from lilliput.ops.embedding_bag import embedding_bag
from lilliput.ops.gla import gla
from lilliput.ops.newton_schulz import orthogonalize
from lilliput.ops.sdpa import sdpa

ONE = torch.ones(1, 2, 1, 4)
CALLS = {
    "sdpa": (lambda backend: sdpa(ONE, ONE, ONE, backend=backend), Backend.CHUNK),
    "gla": (lambda backend: gla(ONE, ONE, ONE, -ONE, backend=backend), Backend.TORCH),
    "orthogonalize": (lambda backend: orthogonalize(torch.eye(2)[None], backend=backend), Backend.TRITON),
    "embedding_bag": (lambda b: embedding_bag(torch.zeros(1, 1).long(), torch.ones(2, 4), backend=b), Backend.FLA),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_backend_that_an_operation_does_not_have_is_refused(name):
    call, missing = CALLS[name]
    call(Backend.REFERENCE)
    with pytest.raises(MachineError, match=f"{name} has no backend {missing.value!r}") as raised:
        call(missing)
    assert "reference" in raised.value.hint
