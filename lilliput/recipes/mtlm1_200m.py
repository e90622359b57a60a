"""MTLM1-200M: twelve trained layers, stacked to twenty-four and trained on: 109.5 M -> 194.5 M parameters.

The card gives the idea (train a small model, duplicate its layers, train on), a number of tokens and where the text is
from, but neither width nor depth nor shares. Doubling the depth of 88 to 100 million parameters cannot give 200, so
there are two recipes: this one has the card's final size, mtlm1-152m the one that the public training code starts from.
"""

from dataclasses import replace

from lilliput.base.units import Steps, Tokens
from lilliput.data.corpora.concatenated import Concatenated
from lilliput.data.corpora.filters import Clean, Filtered, Length, MostlyText
from lilliput.data.corpora.hub import HubText
from lilliput.data.corpora.stand_in import StandIn
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
from lilliput.publish.card.notes import CardNotes
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

# The card names two blends, M1 over the list of its data and M2 for the last phase, and neither's shares. Our choice:
# M1 rests on the web, M2 has more of what was written to teach, and of the knowledge base.
M1 = {"cosmopedia": 0.25, "fineweb-edu": 0.40, "fineweb": 0.30, "knowledge": 0.05}
M2 = {"cosmopedia": 0.30, "fineweb-edu": 0.40, "fineweb": 0.15, "knowledge": 0.15}
PHASE = 3.5e9


def _needed(name: str) -> float:
    """Tokens of a corpus in both phases."""
    return PHASE * (M1[name] + M2[name])


# Two phases of 3.5 billion tokens give the card's 7 billion. The public code's settings, for both.
base = Phase(
    name="base",
    tokens=Tokens(PHASE),
    length=1_024,
    batch_tokens=8 * 8 * 1_024,  # rows x accumulation x length = 65,536
    data=Mixture(weights=M1),
    optimizer=AdamW(lr=7e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01),
    schedule=Cosine(warmup=Steps(300), floor=0.1),
    clip=1.0,
    save_every=Steps(1_000),  # our choice: 53 checkpoints a phase
)
# Fresh optimizer moments and a warm-up of its own; our choice: texts in another order, not the same ones again.
refine = replace(base, name="refine", data=Mixture(weights=M2, seed=1))

# Our choice: which subsets of Cosmopedia, those written for students and about mathematics.
cosmopedia = Concatenated(
    sources=tuple(
        HubText(
            dataset="HuggingFaceTB/cosmopedia",
            config=subset,
            license="apache-2.0",
            tokens=Tokens(share * _needed("cosmopedia")),
        )
        for subset, share in (("stanford", 0.3), ("auto_math_text", 0.3), ("web_samples_v2", 0.4))
    )
)
# Our choice: which filters, those that judge each document alone.
fineweb = Filtered(
    source=HubText(
        dataset="HuggingFaceFW/fineweb", config="sample-10BT", license="odc-by", tokens=Tokens(_needed("fineweb"))
    ),
    filters=(Clean(), Length(at_least=500, at_most=100_000), MostlyText(letters=0.75)),
)
# Our choice: the encyclopedia that the collection partly comes from.
knowledge = StandIn(
    source=HubText(
        dataset="wikimedia/wikipedia", config="20231101.en", license="cc-by-sa-3.0", tokens=Tokens(_needed("knowledge"))
    ),
    missing="the author's own collection of Wikipedia articles, technical documents and texts that were checked",
)
layout = LlamaFormat(context=1_024)

notes = CardNotes(
    suited={
        "research": "how a model grows by stacking layers, on little hardware",
        "education": "a whole training, from text to card",
        "experiments on small devices": "a base model that fits them",
    },
    unsuited=(
        "complex reasoning: it is small",
        "facts that matter: it makes some up",
        "talking to people unwatched: there was no fine-tuning for safety, and no human feedback",
    ),
    prompt="Machine Learning is",
    cutoff="that of its texts: crawls of the web of 2013 to 2024, Wikipedia of November 2023 or your own documents",
    contradictions={
        "ARC-Easy": "38.64% among the results, 39.64% in the comparison; the first is quoted here",
        "Winograd": "43.27% is 45 of the 104 questions of SuperGLUE's WSC, of which one answer alone gives 63.46%",
        "OpenBookQA of OPT-125M": "written with two tildes; quoted here as about 30%",
        "parameters": "twice the layers of 88 to 100 million parameters are not 200 million; so there are two recipes",
        "blend": "M1 in the heading of the data, M2 in the last phase, and one list for both",
        "tokens": "3.5 billion trained, 7 in all: read as two phases of 3.5 each",
        "questions": "zero-shot or few-shot, which of them is not said; here without examples",
    },
)

recipe = Recipe(
    name="mtlm1-200m",
    about="A Llama-style model grown from twelve to twenty-four layers by stacking what it had learned.",
    corpora={
        "cosmopedia": cosmopedia,
        "fineweb-edu": HubText(
            dataset="HuggingFaceFW/fineweb-edu",
            config="sample-10BT",  # our choice of a subset
            license="odc-by",
            tokens=Tokens(_needed("fineweb-edu")),
        ),
        "fineweb": fineweb,
        "knowledge": knowledge,
    },
    tokenizer=BPE(
        vocab=32_000, digits=False
    ),  # our choice: Mistral's 32,000 ids are behind a gate, so ours are learned
    tokenizer_corpora=("fineweb-edu", "cosmopedia"),  # our choice: the two largest
    split=Split(share=2e-4),  # our choice: about 1,500 documents are held out
    model=model,
    timeline=(
        base,
        # The card measures a leap over the model before stacking; ours has 109.5 million parameters, its 88.
        Release(name="MTLM1-110M", layout=layout, suite="mtlm", heldout="fineweb-edu", dtype="F32"),
        Stack(times=2),  # our choice: the card calls its way of growing custom and no more
        refine,
        Release(name="MTLM1-200M", layout=layout, suite="mtlm", heldout="fineweb-edu", dtype="F32"),
    ),
    license="mit",
    notes=notes,
)
