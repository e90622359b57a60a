"""Do the usage snippets of the cards that recipes follow run on our releases, and what do they measure?

    python benchmarks/card_snippets.py PYTHON [PYTHON ...] [--out FILE.json]

Each PYTHON is an interpreter that has PyTorch and some version of transformers. A small chat HGRN2 and a small Qwen3
with random weights are released. Under each interpreter, which cannot import lilliput, run the snippets of the cards of
OdinNext-138M-Instruct and SLM-10M, as they are but for the name of the repository and the device: the first writes a
reply, the second scores continuations. From transformers 5 on, apply_chat_template returns a dict unless told
otherwise, so that the first one fails there; with `return_dict=False` it is tried again.

The scores of the second are compared with those of `lilliput.load(...).score`. It counts the tokens of the context by
encoding the context alone. So it is right where a token ends between context and continuation: where continuations
begin with a blank, as on the card. A context that ends with a blank is tried, too.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers_versions import CHAT, MODELS, TEXTS, VOCAB

import lilliput
from lilliput.base.environment import environment
from lilliput.base.files import write_json, write_text
from lilliput.publish.export import Generation, export
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml, render

REPLIES = """
from transformers import AutoTokenizer, AutoModelForCausalLM
import torch

repo = "joelhenwang/OdinNext-138M-Instruct"
tok = AutoTokenizer.from_pretrained(repo, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(
    repo, trust_remote_code=True, torch_dtype=torch.float16,
).to("cuda").eval()

msgs = [{"role": "user", "content": "Explain photosynthesis in two sentences."}]
ids = tok.apply_chat_template(msgs, return_tensors="pt", add_generation_prompt=True).to("cuda")
out = model.generate(ids, max_new_tokens=200, do_sample=True, temperature=0.7,
                     top_p=0.9, repetition_penalty=1.3)
print(tok.decode(out[0, ids.shape[1]:], skip_special_tokens=True))
"""
SCORES = """
from transformers import AutoTokenizer, AutoModelForCausalLM
import torch
import torch.nn.functional as F

model = AutoModelForCausalLM.from_pretrained(
    "liodon-ai/slm-10m", trust_remote_code=True, dtype=torch.bfloat16,
).to("cuda")
tokenizer = AutoTokenizer.from_pretrained("liodon-ai/slm-10m", trust_remote_code=True)

def score(context, completion):
    full = tokenizer.encode(context + completion, return_tensors="pt").to("cuda")
    ctx_len = len(tokenizer.encode(context, add_special_tokens=False))
    with torch.no_grad():
        logits = model(full).logits[0]
    return -F.cross_entropy(logits[ctx_len - 1:-1], full[0, ctx_len:]).item()

context = "Which is an example of a renewable energy resource? Answer:"
choices = [" biomass", " coal", " gas", " oil"]
scores = [score(context, c) for c in choices]
best = choices[scores.index(max(scores))]
print(f"Best answer: {best.strip()}")  # -> Best answer: biomass
"""
CONTEXT = "Which is an example of a renewable energy resource? Answer:"
CHOICES = ["biomass", "coal", "gas", "oil"]
ROUNDING = 0.05
"""Nats per token by which scores of bf16 weights may differ from those of fp32."""

THEIRS = """
import contextlib, io, json, sys
sys.modules["lilliput"] = None
import torch, transformers
torch.set_num_threads(1)
replies, scores = json.load(sys.stdin)

def run(code):
    scope, said = {}, io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            exec(code, scope)
    except Exception as error:
        return scope, f"{type(error).__name__}: {error}"[:200]
    return scope, "runs"

def told(scope, says):
    out, ids = scope.get("out"), scope.get("ids")
    written = 0 if out is None else out.shape[1] - ids.shape[1]
    return {"says": says, "prompt": None if out is None else scope["tok"].decode(ids[0]), "written": written}

as_it_is = told(*run(replies))
without = told(*run(replies.replace("add_generation_prompt=True)", "add_generation_prompt=True, return_dict=False)")))
scope, says = run(scores)
found = {"says": says, "scores": scope.get("scores")}
if says == "runs":
    blank, bare = scope["context"] + " ", [choice.strip() for choice in scope["choices"]]
    found["after a blank"] = [scope["score"](blank, choice) for choice in bare]
print(json.dumps({
    "transformers": transformers.__version__,
    "as it is": as_it_is,
    "return_dict=False": without,
    "scores": found,
}))
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pythons", nargs="+", metavar="PYTHON")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as temporary:
        folders = {name: released(Path(temporary) / name, name) for name in ("hgrn2", "qwen3")}
        ours = [choice.per_token for choice in lilliput.load(folders["qwen3"], device="cpu").score(CONTEXT, CHOICES)]
        found = [tried(python, folders, ours) for python in given.pythons]
    print(page := markdown(found))
    if given.out:
        write_json(given.out, {"found": found, "ours": ours, "environment": environment()})
        write_text(given.out.with_suffix(".md"), page)
    sys.exit(0 if all(map(works, found)) else 1)


def released(folder: Path, name: str) -> Path:
    """A chat release with random weights, which knows the letters of every text here."""
    spec, layout = MODELS[name]
    texts = [*TEXTS, *(message["content"] for message in CHAT), CONTEXT, *(f" {choice}" for choice in CHOICES)] * 3
    tokenizer = add_chatml(BPE(vocab=VOCAB + 58).train(texts))
    model = replace(spec, vocab=VOCAB + 60).build(0).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    folder.mkdir()
    settings = {"layout": layout, "dtype": "F32", "generation": Generation(), "chat_template": CHAT_TEMPLATE}
    export(model, tokenizer, folder, **settings)
    return folder


def tried(python: str, folders: dict[str, Path], ours: list[float]) -> dict[str, Any]:
    """What both snippets do under one interpreter."""
    replies = REPLIES.replace("joelhenwang/OdinNext-138M-Instruct", str(folders["hgrn2"]))
    scores = SCORES.replace("liodon-ai/slm-10m", str(folders["qwen3"]))
    here = [code.replace('"cuda"', '"cpu"') for code in (replies, scores)]
    with TemporaryDirectory() as home:
        done = subprocess.run(
            [python, "-c", THEIRS],
            input=json.dumps(here),
            capture_output=True,
            text=True,
            cwd=home,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": home},
        )
    if done.returncode:
        sys.exit(f"{python}: {done.stderr[-3000:]}")
    found = json.loads(done.stdout)
    asked = [{"role": "user", "content": "Explain photosynthesis in two sentences."}]
    for way in ("as it is", "return_dict=False"):
        found[way]["right prompt"] = found[way].pop("prompt") == render(asked, generation_prompt=True)
    both = found["scores"]
    for name, key in (("from ours", "scores"), ("after a blank, from ours", "after a blank")):
        both[name] = max(abs(one - own) for one, own in zip(both.pop(key), ours, strict=True))
    return found


def works(one: dict[str, Any]) -> bool:
    """Return whether the snippets do what is documented: the first as it is on 4, and with the argument on both."""
    as_it_is = one["as it is"]["right prompt"] or int(one["transformers"].partition(".")[0]) >= 5
    with_argument = one["return_dict=False"]["right prompt"] and one["return_dict=False"]["written"] > 0
    return bool(as_it_is and with_argument and one["scores"]["from ours"] <= ROUNDING)


def markdown(found: list[dict[str, Any]]) -> str:
    lines = ["# Usage snippets of the cards (`benchmarks/card_snippets.py`)", ""]
    lines += [
        "| transformers | OdinNext's as it is | with `return_dict=False` | SLM's, nats from ours | after a blank |"
    ]
    lines += ["|---|---|---|--:|--:|"]
    for one in found:
        ways = (one[way] for way in ("as it is", "return_dict=False"))
        told = [f"writes {way['written']} tokens" if way["right prompt"] else way["says"] for way in ways]
        apart = [f"{one['scores'][name]:.3f}" for name in ("from ours", "after a blank, from ours")]
        lines.append(f"| {' | '.join([one['transformers'], *told, *apart])} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
