"""Do releases do the same under every version of transformers that their cards name?

    python benchmarks/transformers_versions.py PYTHON [PYTHON ...] [--out FILE.json]

Each PYTHON is an interpreter that has PyTorch and some version of transformers, such as that of a virtual environment.
Small chat models with random weights are released, an HGRN2, a Qwen3 and a Llama. Under each interpreter, which cannot
import lilliput, a release is loaded; its logits are compared with those of the native model; it writes greedily from
prompts of several lengths, padded together and each alone, with and without its cache; it is saved and loaded again;
and its chat template gives a text and the mask of what the assistant said, which are compared with ours. --out writes
a table in Markdown beside the JSON.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lilliput.base.environment import environment
from lilliput.base.files import write_json, write_text
from lilliput.data.messages import Message
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.block import ScalarGate
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.rope import RoPE
from lilliput.publish.export import Generation, export
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.tokenizer.bpe import BPE, load_tokenizer
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml, encode_messages, render

VOCAB, CONTEXT = 302, 256
RECURRENT = ModelSpec(
    vocab=VOCAB,
    width=64,
    layers=4,
    mixer=HGRN2(heads=2, rope=RoPE(layers="even", theta=100_000.0), rope_tie_gate=True, lower_bounds=True),
    ffn=SwiGLU2(inner=96),
    gate=ScalarGate(),
    logit_softcap=20.0,
)
ATTENTION = GQA(heads=4, kv_heads=2, head_width=16, qk_norm=True, rope=RoPE(theta=500_000.0))
TIED = ModelSpec(vocab=VOCAB, width=64, layers=4, mixer=ATTENTION, ffn=SwiGLU(inner=96))
UNTIED = ModelSpec(
    vocab=VOCAB,
    width=64,
    layers=4,
    mixer=GQA(heads=4, kv_heads=4, head_width=16, rope=RoPE(theta=500_000.0)),
    ffn=SwiGLU(inner=96),
    tie_embeddings=False,
)
MODELS: dict[str, tuple[ModelSpec, HFFormat]] = {
    "hgrn2": (RECURRENT, HGRN2Format(context=CONTEXT)),
    "qwen3": (TIED, Qwen3Format(context=CONTEXT)),
    "llama": (UNTIED, LlamaFormat(context=CONTEXT)),
}
TEXTS = ("the quick brown fox jumps over the lazy dog", "it thinks of the cat on the mat", "who sat there, and why? 🙂")
CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "what is the fox?"},
    {"role": "assistant", "content": "  quick, and brown\n"},
    {"role": "user", "content": "and the dog"},
    {"role": "assistant", "content": "lazy 🙂"},
]
CHECKS = {
    "inputs": "the tokenizer makes input_ids and attention_mask alone",
    "padded": "greedy tokens of prompts padded together are those of each alone",
    "cached": "and those without the cache",
    "asked": "as many new tokens are written as were asked for",
    "saved": "saved and loaded again it gives the same logits to the bit",
    "text": "the chat template renders our text",
    "mask": "and marks what our training counts",
}
TOLERANCE = 1e-5
"""Of the largest logit, in fp32; the logits of eager and fused attention differ by less."""

THEIRS = """
import json, sys
sys.modules["lilliput"] = None
import torch, transformers
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
folder, work, asked = sys.argv[1], Path(sys.argv[2]), json.load(sys.stdin)
remote = {"trust_remote_code": True} if "auto_map" in json.loads(Path(folder, "config.json").read_text()) else {}

def opened(folder):
    return AutoModelForCausalLM.from_pretrained(folder, **remote).eval()

@torch.no_grad()
def written(inputs, **options):
    new = model.generate(**inputs, do_sample=False, max_new_tokens=16, eos_token_id=None, **options)
    return new[:, inputs["input_ids"].shape[1]:].tolist()

tokenizer, model = AutoTokenizer.from_pretrained(folder, **remote), opened(folder)
tokens = load_file(work / "tokens.safetensors")["tokens"]
with torch.no_grad():
    logits = model(tokens).logits
save_file({"logits": logits}, work / "logits.safetensors")
together = tokenizer(asked["texts"], return_tensors="pt", padding=True)
padded = written(together)
alone = [written(tokenizer([text], return_tensors="pt"))[0] for text in asked["texts"]]
model.save_pretrained(work / "saved")
tokenizer.save_pretrained(work / "saved")
with torch.no_grad():
    saved = torch.equal(opened(work / "saved")(tokens).logits, logits)
chat = {"tokenize": True, "return_dict": True}
marked = tokenizer.apply_chat_template(asked["chat"], return_assistant_tokens_mask=True, **chat)
print(json.dumps({
    "transformers": transformers.__version__,
    "torch": torch.__version__,
    "inputs": sorted(together) == ["attention_mask", "input_ids"],
    "padded": padded == alone,
    "cached": padded == written(together, use_cache=False),
    "asked": all(len(row) == 16 for row in padded),
    "saved": saved,
    "text": tokenizer.apply_chat_template(asked["chat"], tokenize=False),
    "ids": marked["input_ids"],
    "mask": marked["assistant_masks"],
    "tokens": padded,
}))
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pythons", nargs="+", metavar="PYTHON")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    found = []
    with TemporaryDirectory() as temporary:
        for name, (spec, layout) in MODELS.items():
            folder = Path(temporary) / name
            model = _released(folder, spec, layout)
            for python in given.pythons:
                found.append({"model": name} | _checked(python, folder, model))
                print(_line(found[-1]), flush=True)
    agree = {name: len({str(one.pop("tokens")) for one in found if one["model"] == name}) == 1 for name in MODELS}
    print(
        "\n".join(
            f"{name}: all versions wrote {'the same' if same else 'DIFFERENT'} tokens" for name, same in agree.items()
        )
    )
    if given.out:
        write_json(given.out, {"found": found, "same_tokens": agree, "environment": environment()})
        write_text(given.out.with_suffix(".md"), _page(found, agree))
    sys.exit(0 if all(agree.values()) and all(map(_works, found)) else 1)


def _released(folder: Path, spec: ModelSpec, layout: HFFormat) -> LanguageModel:
    """A model away from its first weights, in evaluation, and its release in `folder`."""
    model = spec.build(0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    tokenizer = add_chatml(BPE(vocab=VOCAB - 2).train([*TEXTS, *(message["content"] for message in CHAT)] * 3))
    folder.mkdir()
    settings = {"layout": layout, "dtype": "F32", "generation": Generation(max_new_tokens=4, repetition_penalty=9.0)}
    export(model, tokenizer, folder, chat_template=CHAT_TEMPLATE, **settings)
    return model


def _checked(python: str, folder: Path, model: LanguageModel) -> dict[str, Any]:
    """What a release does under one interpreter; `logits` is the largest difference, as a share of the largest one."""
    tokens = torch.randint(1, VOCAB, (3, 70), generator=torch.Generator().manual_seed(1))
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        save_file({"tokens": tokens}, work / "tokens.safetensors")
        done = subprocess.run(
            [python, "-c", THEIRS, str(folder), str(work)],
            input=json.dumps({"texts": TEXTS, "chat": CHAT}),
            capture_output=True,
            text=True,
            cwd=work,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "home")},
        )
        if done.returncode:
            sys.exit(f"{python}, {folder.name}: {done.stderr[-3000:]}")
        theirs = json.loads(done.stdout)
        with torch.no_grad():
            expected = model(tokens)
        difference = (load_file(work / "logits.safetensors")["logits"] - expected).abs().max() / expected.abs().max()
    encoded = encode_messages(load_tokenizer(folder), [Message(**message) for message in CHAT])
    ids, mask = ([one for message in encoded for one in message[place]] for place in (0, 1))
    compared = {"text": theirs["text"] == render(CHAT), "mask": (theirs.pop("ids"), theirs["mask"]) == (ids, mask)}
    return theirs | compared | {"logits": difference.item()}


def _works(one: dict[str, Any]) -> bool:
    return one["logits"] <= TOLERANCE and all(one[check] for check in CHECKS)


def _line(one: dict[str, Any]) -> str:
    failed = [check for check in CHECKS if not one[check]]
    state = f"FAILED: {', '.join(failed)}" if failed else "all checks passed"
    return f"{one['model']}, transformers {one['transformers']}: logits differ by {one['logits']:.1e}; {state}"


def _page(found: list[dict[str, Any]], agree: dict[str, bool]) -> str:
    head = f"| model | transformers | torch | logits | {' | '.join(CHECKS)} |"
    lines = [
        f"# Releases under several versions of transformers ({date.today()})",
        "",
        "`python benchmarks/transformers_versions.py PYTHON ...`: small chat models with random weights, fp32, CPU.",
        "",
        head,
        "|---|---|---|--:|" + ":-:|" * len(CHECKS),
        *(
            f"| {one['model']} | {one['transformers']} | {one['torch']} | {one['logits']:.1e} | "
            + " | ".join("yes" if one[check] else "**no**" for check in CHECKS)
            + " |"
            for one in found
        ),
        "",
        "- logits: largest difference from those of the native model, as a share of the largest logit",
        *(f"- {check}: {says}" for check, says in CHECKS.items()),
        "",
        *(
            f"{name}: all versions wrote {'the same' if same else '**different**'} tokens."
            for name, same in agree.items()
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
