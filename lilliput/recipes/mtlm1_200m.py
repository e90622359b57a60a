"""MTLM1-200M: twelve trained layers, stacked to twenty-four and trained on: 109.5 M -> 194.5 M parameters.

The card gives the idea (train to convergence, duplicate the layers, train on) and a number of tokens, but neither width
nor depth. Doubling the depth of 88 to 100 million parameters cannot give 200, so there are two recipes: this one has
the card's final size, mtlm1-152m the size that the public training code starts from.
"""

from dataclasses import replace

from lilliput.base.units import Steps, Tokens
from lilliput.data.corpora.hub import HubText
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.growth.stack import Stack
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.norm import RMSNorm
from lilliput.nn.rope import RoPE
from lilliput.optim.adamw import AdamW
from lilliput.optim.schedule import Cosine
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.recipe import Recipe, Release
from lilliput.tokenizer.bpe import BPE
from lilliput.train.phase import Phase

# 32,000 x 768 + 12 x (4 x 768^2 + 3 x 768 x 2,048 + 2 x 768) + 768 = 109,529,856; with 24 layers 194,482,944
model = ModelSpec(
    vocab=32_000,
    width=768,
    layers=12,
    # The public code turns neighbouring channels (layout="interleaved"), we turn channel j with j + 32, as kernels do:
    # the same model, its channels renamed.
    mixer=GQA(heads=12, kv_heads=12, head_width=64, rope=RoPE(theta=10_000.0)),
    ffn=SwiGLU(inner=2_048),  # our choice: the shape that comes closest to 200 million
    norm=RMSNorm(eps=1e-6),
    # Our choice: weights that write to the stream begin smaller, and there is no dropout; the public code begins all
    # alike and drops 5%.
)

# Two phases of 3.5 billion tokens give the card's 7 billion. The public code's settings, for both.
base = Phase(
    name="base",
    tokens=Tokens(3.5e9),
    length=1_024,
    batch_tokens=8 * 8 * 1_024,  # rows x accumulation x length = 65,536
    data=Mixture(weights={"fineweb-edu": 1.0}),
    optimizer=AdamW(lr=7e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01),
    schedule=Cosine(warmup=Steps(300), floor=0.1),
    clip=1.0,
    save_every=Steps(1_000),  # our choice: 53 checkpoints a phase
)
refine = replace(base, name="refine")  # with fresh optimizer moments and a warm-up of its own

recipe = Recipe(
    name="mtlm1-200m",
    about="A Llama-style model grown from twelve to twenty-four layers by stacking what it had learned.",
    corpora={
        "fineweb-edu": HubText(
            dataset="HuggingFaceFW/fineweb-edu",  # our choice: the card names no data
            config="sample-10BT",
            license="odc-by",
            tokens=Tokens(7e9),
        ),
    },
    tokenizer=BPE(
        vocab=32_000, digits=False
    ),  # our choice: Mistral's 32,000 ids are behind a gate, so ours are learned
    tokenizer_corpora=("fineweb-edu",),
    split=Split(share=2e-4),  # our choice: about 1,500 documents are held out
    model=model,
    timeline=(
        base,
        Stack(times=2),  # our choice: the card calls its way of growing custom and no more
        refine,
        Release(name="MTLM1-200M", layout=LlamaFormat(context=1_024), suite="mtlm", heldout="fineweb-edu"),
    ),
)
