"""A run record as releases make it, with figures that are easy to recognise, for the tests of the card."""

import json
from dataclasses import replace

from lilliput.base.spec import to_plain
from lilliput.base.units import Tokens
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.growth.add_tokens import AddTokens
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.optim.adamw import AdamW
from lilliput.publish.export import Generation
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.recipe import Recipe, Release
from lilliput.run.command_record import Command
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHATML
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase

HGRN = ModelSpec(vocab=4_096, width=192, layers=6, mixer=HGRN2(heads=3), ffn=SwiGLU(inner=512))
QWEN = replace(HGRN, mixer=GQA(heads=6, kv_heads=2, head_width=32, qk_norm=True), tie_embeddings=False)
DIGESTS = {name: letter * 64 for name, letter in {"weights": "a", "docs": "b", "questions": "c", "poems": "d"}.items()}


def recipe_of(model, layout):
    training = {"length": 256, "batch_tokens": 4_096, "optimizer": AdamW(lr=6e-3)}
    return Recipe(
        name="garden",
        about="A small model of gardening handbooks, made in an afternoon.",
        corpora={
            "docs": TextFiles(paths=("/home/someone/handbooks/*.txt", "notes.jsonl")),
            "questions": ChatFiles(paths=("questions.jsonl",)),
            "poems": TextFiles(paths=("poems.txt",)),
        },
        tokenizer=BPE(vocab=4_096),
        tokenizer_corpora=("docs",),
        split=Split(share=0.04, salt="spring"),
        model=model,
        timeline=(
            Phase(name="pretrain", tokens=Tokens(1_200_000), data=Mixture(weights={"docs": 1.0}), **training),
            Release(name="garden-base", layout=layout, suite="quickstart", heldout="docs"),
            AddTokens(tokens=CHATML),
            Phase(name="sft", tokens=Tokens(300_000), data=ChatData(corpus="questions"), **training),
            Release(
                name="garden-instruct",
                layout=layout,
                suite="quickstart",
                heldout="docs",
                chat="questions",
                generation=Generation(temperature=0.7, top_p=0.9, repetition_penalty=1.1, max_new_tokens=128),
            ),
        ),
    )


def score(task, metric, value, stderr, items, chance=None, higher=True, note=""):
    return {"task": task, "metric": metric, "value": value, "stderr": stderr, "chance": chance, "items": items,
            "higher_is_better": higher, "note": note}  # fmt: skip


SCORES = [
    score("held-out text, bits per byte", "bits_per_byte", 1.83024, 0.02518, 312, higher=False),
    score("arithmark2-synthetic", "acc", 0.254, 0.01949, 500, 0.25, note="within two standard errors of chance"),
]
CHAT_SCORES = [
    score("held-out questions", "replies that end by themselves", 0.91, 0.0288, 100),
    score(
        "held-out questions", "right answer preferred", 0.83, 0.0378, 100, 0.5, note="by summed log-likelihood: 81.0%"
    ),
]
PHASES = [
    {
        "name": "pretrain",
        "steps": 292,
        "tokens": 1_196_032,
        "seconds": 201.4,
        "loss": 3.40721,
        "heldout": {"docs": 1.87},
        "incidents": [],
    },
    {
        "name": "sft",
        "steps": 73,
        "tokens": 299_008,
        "seconds": 48.6,
        "loss": 2.51312,
        "heldout": {"questions": 2.4477},
        "incidents": [],
    },
]


def corpus(name, **heldout):
    sides = {"train": {key: 24 * count for key, count in heldout.items()}, "heldout": heldout}
    return {"text_sha256": DIGESTS[name], "index_sha256": "e" * 64, "sides": sides}


def record_of(chat, model=HGRN, layout=HGRN2Format(context=2_048)):
    recipe = recipe_of(model, layout)
    release = recipe.timeline[-1 if chat else 1]
    shape = replace(model, vocab=model.vocab + 2 * chat)
    record = {
        "release": to_plain(release)
        | {
            "sha256": DIGESTS["weights"],
            "bytes": 6_892_104,
            "parameters": shape.skeleton().parameter_counts(),
            "parity": {"tolerance": 1e-4, "case": "padded", "absolute": 4.1e-6, "relative": 6.3e-7},
        },
        "recipe": to_plain(recipe),
        "command": to_plain(Command(recipe="garden.py", overrides=("seed=1",), machine="cpu")),
        "machine": to_plain(Machine(device="cpu", precision="bf16", threads=2).resolved()),
        "made_with": {"lilliput": "0.1.0", "torch": "2.13.0", "processor": "AVX512"},
        "changes": [],
        "environment": {
            "lilliput": "0.1.0",
            "commit": "3f2a1bc",
            "python": "3.12.4",
            "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
            "platform": "Linux-6.8-x86_64-with-glibc2.39",
            "processor": "AMD EPYC 9755 128-Core Processor",
            "cores": 2,
        },
        "corpora": {
            "docs": corpus("docs", tokens=92_114, documents=312, bytes=331_772),
            "questions": corpus("questions", rows=60, conversations=402, tokens=15_220, targets=9_871),
            "poems": corpus("poems", tokens=77, documents=7, bytes=313),
        },
        "phases": PHASES[: 1 + chat],
        "languages": ["en"],
        "evaluation": {
            "scores": SCORES + CHAT_SCORES * chat,
            "averages": [{"name": "headline", "value": 0.35061, "stderr": 0.0071, "formula": "(a + b) / 2, acc_norm"}],
            "samples": [
                {"prompt": "When are roses cut?", "text": "Roses are cut in the roses, and roses in spring."},
                {"prompt": "What is mulch?", "text": "Mulch is a soil that the soil of the mulch."},
            ],
            "baselines": {"unigram": 3.11391, "xz": 2.34017, "xz_given_train": 2.05221},
            "versions": {"lm_eval": "0.4.13", "transformers": "5.23.0"},
            "weights": DIGESTS["weights"],
        },
    }  # fmt: skip
    return json.loads(json.dumps(record))
