"""What every test runs under: the same numbers each time, one thread, no network."""

import os
import random

# Before any library that reads them is imported.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the command line does: threads that wait sleep
os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its kernels then run on the processor

THREADS = 1
"""Tiny tensors gain nothing from two, and lose much where another process wants the second core."""
torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def same_numbers(request: pytest.FixtureRequest):
    """Seeds and threads; tests of ops also find NaN in fresh memory, so that reading what was never written shows."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)  # a test may have changed it
    poisoned = request.path.parent.name == "ops"
    torch.use_deterministic_algorithms(poisoned)  # fills what torch.empty returns
    yield
    torch.use_deterministic_algorithms(False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
