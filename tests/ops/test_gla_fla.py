"""fla-core's scan as a backend: on a GPU equal to the naive recurrence, elsewhere refused."""

import gc
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from ops.test_gla_triton import DEVICE, draw, furthest, run

from lilliput.base.errors import MachineError
from lilliput.ops.gla import Backend, gla

HERE = find_spec("fla") is not None
WARNS = pytest.mark.filterwarnings("ignore")  # as others' code may


@pytest.fixture
def untuned():
    """fla without the minutes in which it tunes itself: the first configuration of each kernel."""
    import fla.ops.gla  # pyright: ignore[reportMissingImports]  # noqa: F401
    from triton.runtime.autotuner import Autotuner

    tuners = [each for each in gc.get_objects() if isinstance(each, Autotuner) and each.configs]
    kept = [each.configs for each in tuners]
    for each in tuners:
        each.configs = each.configs[:1]
    yield
    for each, configs in zip(tuners, kept, strict=True):
        each.configs = configs


@WARNS
@pytest.mark.gpu
@pytest.mark.skipif(not HERE, reason="fla-core is not installed (pip install 'fla-core>=0.6')")
@pytest.mark.parametrize("begins_empty", [False, True])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-3), (torch.float16, 2e-2), (torch.bfloat16, 2e-2)])
def test_fla_equals_the_naive_form(untuned, dtype, tolerance, documents, begins_empty):
    inputs = [*draw(150)[:4], None] if begins_empty else draw(150)
    document_ids = torch.arange(150, device=DEVICE).div(60, rounding_mode="floor")[None] if documents else None
    found = run(Backend.FLA, inputs, dtype, document_ids=document_ids)
    assert found[0].dtype == dtype and found[1].dtype == torch.float32
    assert furthest(found, run(Backend.REFERENCE, inputs, document_ids=document_ids)) < tolerance


@pytest.mark.gpu
@pytest.mark.skipif(not HERE, reason="fla-core is not installed (pip install 'fla-core>=0.6')")
def test_fp64_is_refused():
    with pytest.raises(MachineError, match=r"does not take torch\.float64"):
        run(Backend.FLA, draw(20))


@pytest.mark.skipif(HERE, reason="fla-core is installed")
def test_without_fla_the_error_says_what_to_install():
    with pytest.raises(MachineError, match="fla-core is not installed") as refusal:
        on_a_cpu()
    assert "pip install 'fla-core" in refusal.value.hint and "Backend.FLA" in refusal.value.where


def test_a_processor_is_refused_before_fla_is_imported(tmp_path, monkeypatch):
    (tmp_path / "fla.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MachineError, match="cannot run on the device cpu"):
        on_a_cpu()


def on_a_cpu():
    q, k, v, z, state = (x.detach().float().cpu() for x in draw(20))
    return gla(q, k, v, F.logsigmoid(z), state, Backend.FLA)
