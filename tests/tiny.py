"""Small models, corpora and recipes that the tests share."""

import json
from dataclasses import replace
from pathlib import Path

from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.use_ema import UseEma
from lilliput.model import ModelSpec
from lilliput.nn.block import ScalarGate
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.norm import ZeroCenteredRMSNorm
from lilliput.nn.rope import RoPE
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.adamw import AdamW
from lilliput.optim.ema import Ema
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.publish.export import Generation
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Recipe, Release
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHATML
from lilliput.train.phase import Phase, Stage

VOCAB = 300

GQA_SPEC = ModelSpec(
    vocab=VOCAB,
    width=32,
    layers=2,
    mixer=GQA(heads=4, kv_heads=2, head_width=8, qk_norm=True),
    ffn=SwiGLU(inner=48),
)
HGRN2_SPEC = ModelSpec(vocab=VOCAB, width=32, layers=2, mixer=HGRN2(heads=2), ffn=SwiGLU(inner=48))
ODIN_SPEC = ModelSpec(
    vocab=VOCAB,
    width=32,
    layers=2,
    mixer=HGRN2(heads=2, rope=RoPE(layers="even", theta=100_000.0), output_norm=ZeroCenteredRMSNorm()),
    ffn=SwiGLU2(inner=48),
    norm=ZeroCenteredRMSNorm(),
    gate=ScalarGate(),
)
HORIZON_SPEC = replace(HGRN2_SPEC, mixer=HGRN2(heads=2, forget_timescales=(2.0, 50.0)))
OPTIONS_SPEC = replace(
    ODIN_SPEC,
    mixer=HGRN2(heads=2, rope=RoPE(layers="even", layout="interleaved"), rope_tie_gate=True, lower_bounds=True),
    ffn=SwiGLU2(inner=48, square="product"),
    gate=ScalarGate(init=1.0),
    logit_softcap=0.4,
)
"""OdinNext with what its card leaves open read otherwise."""
SPECS = {
    "gqa": GQA_SPEC,
    "hgrn2": HGRN2_SPEC,
    "odin": ODIN_SPEC,
    "horizons": HORIZON_SPEC,
    "options": OPTIONS_SPEC,
}

WORDS = "small models learn little by little from plain text that somebody wrote with care about many things".split()


def sentences(number: int) -> str:
    """A few sentences that differ from document to document and repeat enough to be learned."""
    picked = [WORDS[(number * 7 + index * (1 + number % 5)) % len(WORDS)] for index in range(40)]
    return " ".join(picked) + f". Number {number} has {number % 7} parts."


def write_corpora(folder: Path) -> tuple[Path, Path]:
    """A text and a chat corpus on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    texts, chats = folder / "texts.jsonl", folder / "chats.jsonl"
    texts.write_text("".join(json.dumps({"id": f"d{n}", "text": sentences(n)}) + "\n" for n in range(200)))
    rows = []
    for n in range(120):
        word = WORDS[n % len(WORDS)]
        messages = [
            {"role": "user", "content": f"What comes after {word} {n}?"},
            {"role": "assistant", "content": f"{WORDS[(n + 1) % len(WORDS)]} comes after {word}."},
        ]
        rows.append(json.dumps({"id": f"c{n}", "messages": messages}) + "\n")
    chats.write_text("".join(rows))
    return texts, chats


def pretraining(steps: int = 12, **changes) -> Phase:
    """A phase of two stages with an average, over the tiny text corpus."""
    stage = NextToken(terms=(CrossEntropy(), ZLoss()))
    phase = Phase(
        name="pretrain",
        tokens=Tokens(steps * 4 * 32),
        length=32,
        batch_tokens=4 * 32,
        data=Mixture(weights={"texts": 1.0}),
        stages=(Stage(share=0.5, objective=stage), Stage(share=0.5, objective=NextToken())),
        optimizer=AdamW(lr=6e-3),
        schedule=WarmupStableDecay(warmup=Steps(2), first="zero", decay=Share(0.5)),
        ema=Ema(decay=0.9),
        save_every=Steps(4),
    )
    return replace(phase, **changes)


def recipe(folder: Path, spec: ModelSpec = HGRN2_SPEC) -> Recipe:
    """Text to base and instruct release, in seconds."""
    texts, chats = write_corpora(folder)
    layout = Qwen3Format(context=512) if isinstance(spec.mixer, GQA) else HGRN2Format(context=512)
    sft = pretraining(
        name="sft", length=128, batch_tokens=4 * 128, data=ChatData(corpus="chats"), tokens=Tokens(6 * 4 * 128)
    )
    generation = Generation(temperature=0.7, top_p=0.9, repetition_penalty=1.1, max_new_tokens=24)
    return Recipe(
        name="tiny",
        about="A tiny model for tests.",
        corpora={"texts": TextFiles(paths=(str(texts),)), "chats": ChatFiles(paths=(str(chats),))},
        tokenizer=BPE(vocab=VOCAB),
        tokenizer_corpora=("texts",),
        split=Split(share=0.1),
        model=spec,
        timeline=(
            pretraining(),
            UseEma(),
            Release(name="tiny-base", layout=layout, suite="quickstart", heldout="texts"),
            AddTokens(tokens=CHATML),
            sft,
            Release(
                name="tiny-instruct",
                layout=layout,
                suite="quickstart",
                heldout="texts",
                chat="chats",
                generation=generation,
            ),
        ),
    )
