"""SLM-10M's shape in twenty minutes of one H100 or H200, on 742 MB of text by kind and generated arithmetic.

    lilliput run slm-10m-hopper --machine one-gpu --eval-data FOLDER

reads `corpus/`, a folder of text files for each kind below, as `benchmarks/corpus_by_kind.py` sorts them; `--source
wikipedia=...` reads one from elsewhere. The card's own recipe is `slm-10m`. The text is read some twenty times here, so
each pass has another order; the last three fifths lower the learning rate over text that explains, asks and answers.
"""

from dataclasses import replace

from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.corpora.arithmetic import Arithmetic
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.normuon import NorMuon
from lilliput.optim.schedule import Constant, WarmupStableDecay
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Recipe, Release
from lilliput.recipes import slm_10m
from lilliput.tokenizer.bpe import BPE
from lilliput.train.phase import Phase, Stage

TEXT = {  # megabytes of each kind
    "wikipedia": 297,
    "books": 96,
    "blogs": 66,
    "textbooks": 56,
    "questions": 49,
    "exam_reading": 47,
    "transcripts": 38,
    "other": 37,
    "recipes": 25,
    "howto": 17,
    "reviews": 14,
}
ARITHMETIC = 0.06
"""Share of the tokens."""
TAUGHT = {"textbooks": 2.0, "exam_reading": 2.0, "howto": 3.0, "recipes": 1.5}
"""Factors by which the decay reads more of a kind than there is of it."""


def mixture(more: dict[str, float] | None = None) -> Mixture:
    """Every kind by its size, some of them more often, and arithmetic."""
    sizes = {kind: size * (more or {}).get(kind, 1.0) for kind, size in TEXT.items()}
    whole = sum(sizes.values()) / (1 - ARITHMETIC)
    return Mixture(weights={kind: size / whole for kind, size in sizes.items()} | {"arithmetic": ARITHMETIC})


pretrain = Phase(
    name="pretrain",
    tokens=Tokens(1.4e9),
    length=1_024,
    batch_tokens=128 * 1_024,
    data=mixture(),
    stages=(Stage(share=1.0, objective=NextToken(terms=(CrossEntropy(), ZLoss(weight=1e-4)))),),
    optimizer=NorMuon(lr=8e-3, adam_lr=4e-3),
    schedule=Constant(),
    save_every=Steps(2_000),
)
decay = replace(
    pretrain,
    name="decay",
    tokens=Tokens(2.1e9),
    data=mixture(TAUGHT),
    schedule=WarmupStableDecay(warmup=Steps(0), decay=Share(1.0), shape="linear", floor=0.02),
    resumes="pretrain",
)

recipe = Recipe(
    name="slm-10m-hopper",
    about="SLM-10M's shape, trained in twenty minutes of one GPU.",
    corpora={kind: TextFiles(paths=(f"corpus/{kind}",)) for kind in TEXT} | {"arithmetic": Arithmetic(count=120_000)},
    tokenizer=BPE(vocab=slm_10m.model.vocab, sample_bytes=50_000_000),
    tokenizer_corpora=tuple(TEXT),
    split=Split(share=0.01),
    model=slm_10m.model,
    timeline=(
        pretrain,
        decay,
        Release(name="SLM-10M-Hopper", layout=Qwen3Format(context=1_024), suite="open-slm", heldout="wikipedia"),
    ),
    languages=("en",),
    notes=slm_10m.notes,
)
