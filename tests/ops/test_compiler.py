"""PyTorch's compiler is imported, and our functions are marked for it, when something is compiled and not before."""

import os
import subprocess
import sys

import torch

from lilliput.ops.compiler import prepare_compiler
from lilliput.ops.rms_norm import rms_normalize

WRITING = """
import sys
import tiny
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request

for spec in (tiny.GQA_SPEC, tiny.HGRN2_SPEC):
    engine = Engine(spec.build(0).eval())
    assert [*engine.stream(Request(prompt=[1, 2, 3], max_new_tokens=2))]
assert "torch._dynamo" not in sys.modules, "it takes longer to import than all else"
"""


def test_a_processor_writes_without_the_compiler(pytestconfig):
    run = subprocess.run(
        [sys.executable, "-c", WRITING], cwd=pytestconfig.rootpath / "tests", capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


LAUNCHING = """
import sys
import torch
from lilliput.ops.dispatch import Backend
from lilliput.ops.sdpa import sdpa
from lilliput.ops.swiglu import swiglu

with torch.no_grad():
    q, k, v = torch.randn(3, 1, 32, 2, 16).unbind()
    mixed = sdpa(q, k, v, backend=Backend.TRITON)
    made = swiglu(torch.randn(1, 32, 64), torch.randn(16, 32), backend=Backend.TRITON)
assert mixed.isfinite().all() and made.isfinite().all()
assert "torch._dynamo" not in sys.modules, "it takes longer to import than all else"
"""


def test_kernels_are_launched_without_the_compiler():
    run = subprocess.run(
        [sys.executable, "-c", LAUNCHING], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_what_is_marked_is_a_call_in_what_was_compiled():
    prepare_compiler()
    called = []

    def backend(graph, _):
        called.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph

    compiled = torch.compile(lambda x: 2 * rms_normalize(x, 1e-6, x.dtype), backend=backend)
    x = torch.randn(3, 8)
    torch.testing.assert_close(compiled(x), 2 * rms_normalize(x, 1e-6, x.dtype))
    assert rms_normalize in called
