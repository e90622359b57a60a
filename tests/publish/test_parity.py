"""The gate: a release, loaded as its users load it in a process without lilliput, must give the native logits."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_releases import RELEASES, awake, rows, tokenizer

from lilliput.base.errors import ExportError
from lilliput.publish.export import Generation, export
from lilliput.publish.parity import TOLERANCE, check_parity

pytestmark = pytest.mark.slow


def released(tmp_path, name, dtype="BF16"):
    spec, layout = RELEASES[name]
    model, folder = awake(spec), tmp_path / "release"
    folder.mkdir()
    generation = Generation(do_sample=False, repetition_penalty=1.3, max_new_tokens=12)
    export(model, tokenizer(), folder, layout=layout, dtype=dtype, generation=generation, chat_template=None)
    return model, folder


def test_a_good_release_passes_and_leaves_nothing_behind(tmp_path, monkeypatch):
    for variable in ("HOME", "HF_HOME", "HF_MODULES_CACHE", "TMPDIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    model, folder = released(tmp_path, "hgrn2")
    before = sorted(folder.iterdir())
    report = check_parity(folder, model, tokens=rows(2, 70))
    assert [difference.case for difference in report.differences] == ["full", "odd", "cached", "padded"]
    assert report.worst.relative <= 2e-5 < TOLERANCE == report.tolerance
    assert sorted(folder.iterdir()) == before
    for variable in ("HOME", "HF_HOME", "HF_MODULES_CACHE"):
        assert not list((tmp_path / variable).iterdir())


def test_a_weight_changed_on_disk_fails_with_the_numbers(tmp_path):
    model, folder = released(tmp_path, "qwen3")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.k_norm.weight"] *= 1.25
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"differ by \d.*of the largest logit.*0\.0001 is allowed") as caught:
        check_parity(folder, model, tokens=rows(2, 12))
    assert caught.value.where == str(folder) and "layer by layer" in caught.value.hint


def test_code_changed_since_the_last_check_is_the_code_that_runs(tmp_path):
    model, folder = released(tmp_path, "hgrn2")
    file = folder / "modeling_hgrn2_lm.py"
    code = file.read_text()
    file.write_text(code.replace("import torch\n", "import torch\nimport lilliput\n", 1))
    with pytest.raises(ExportError, match=r"cannot run.*lilliput"):
        check_parity(folder, model, tokens=rows(1, 9))
    file.write_text(code.replace("torch.sigmoid(-z)", "torch.sigmoid(z)"))
    with pytest.raises(ExportError, match="differ by"):
        check_parity(folder, model, tokens=rows(1, 9))


WRITE = """
import json, sys

class Blocker:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("lilliput", "einops", "fla"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
inputs = tokenizer(["the quick brown", "the lazy dog sat on the mat and"], return_tensors="pt", padding=True,
                   return_token_type_ids=False)
written = model.generate(**inputs, do_sample=False, repetition_penalty=1.3, max_new_tokens=12)
print(json.dumps([inputs["attention_mask"].tolist(), inputs["input_ids"].tolist(), written.tolist()]))
"""


def test_it_writes_where_lilliput_is_not_installed(tmp_path):
    """As the card says: greedy, a repetition penalty, twelve tokens; the release says where to stop."""
    model, folder = released(tmp_path, "hgrn2", dtype="F32")
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", WRITE, str(folder)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    masks, prompts, texts = json.loads(done.stdout)
    assert 0 in masks[0] and 0 not in masks[1]
    for mask, prompt, text in zip(masks, prompts, texts, strict=True):
        real = [token for token, kept in zip(prompt, mask, strict=True) if kept]
        expected = list(real)
        while len(expected) < len(real) + 12 and (len(expected) == len(real) or expected[-1] != 0):
            with torch.no_grad():
                scores = model(torch.tensor([expected]))[0, -1]
            # The batch is penalized for every id of its row, the padding's too.
            seen = torch.tensor(sorted({*prompt, *expected}))
            scores[seen] = torch.where(scores[seen] > 0, scores[seen] / 1.3, scores[seen] * 1.3)
            expected.append(int(scores.argmax()))
        written = text[len(prompt) :]
        assert written[: len(expected) - len(real)] == expected[len(real) :]
