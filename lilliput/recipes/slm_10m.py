"""SLM-10M: a 9,968,640-parameter attention model for multiple-choice research, from 25 billion tokens of four corpora.

What is not marked as our choice is the model card's, or that of the training code it names.
"""

from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.corpora.hub import HubText
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.norm import RMSNorm
from lilliput.nn.rope import RoPE
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.adamw import AdamW
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.publish.card.notes import CardNotes, Citation, RankingExample
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Recipe, Release
from lilliput.tokenizer.bpe import BPE
from lilliput.train.phase import Phase, Stage

TOKENS = 25e9

# 8,192 x 256 + 12 x (query 65,536 + key and value 32,768 + output 65,536 + feed-forward 491,520 + two norms 512
# + QK-norm 64) + 256 = 9,968,640
model = ModelSpec(
    vocab=8_192,
    width=256,
    layers=12,
    mixer=GQA(heads=8, kv_heads=2, head_width=32, qk_norm=True, rope=RoPE(theta=100_000.0)),
    ffn=SwiGLU(inner=640),
    norm=RMSNorm(eps=1e-6),
)

pretrain = Phase(
    name="pretrain",
    tokens=Tokens(TOKENS),  # 47,683 steps
    length=1_024,
    batch_tokens=32 * 16 * 1_024,  # rows x accumulation x length = 524,288
    data=Mixture(weights={"fineweb-edu": 0.55, "cosmopedia-v2": 0.25, "fineweb-hq": 0.10, "finemath": 0.10}),
    stages=(Stage(share=1.0, objective=NextToken(terms=(CrossEntropy(), ZLoss(weight=1e-4)))),),
    optimizer=AdamW(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1),  # decays the tied embedding too, norms never
    schedule=WarmupStableDecay(warmup=Steps(1_000), first="zero", decay=Share(0.15), shape="cosine", floor=0.1),
    clip=1.0,
    save_every=Steps(1_000),  # our choice: 48 checkpoints
)

notes = CardNotes(
    tags=("causal-lm", "pretraining", "gqa", "swiglu", "rope", "multiple-choice", "text-ranking", "nlp-research"),
    metrics=("perplexity", "accuracy"),
    tier="<10M of the Open SLM Leaderboard",
    suited={
        "multiple-choice questions": "ARC, HellaSwag, PIQA, ArithMark: each candidate is scored, the likeliest chosen",
        "ranking by likelihood": "continuations, or documents by their perplexity (lilliput score, lilliput rank)",
        "research on small models": "ablations, architectures, efficiency below ten million parameters",
        "measuring perplexity": "how well a model fits held-out text",
    },
    unsuited=("free text: 8,192 tokens and ten million parameters do not make it fluent", "chat", "instructions"),
    ranking=RankingExample(
        context="Which is an example of a renewable energy resource? Answer:",
        choices=("biomass", "coal", "gas", "oil"),
        answer="biomass",
    ),
    citation=Citation(
        key="liodonai2026slm10m",
        kind="software",
        author="Liodon AI",
        title="SLM-10M",
        year=2026,
        url="https://huggingface.co/liodon-ai/slm-10m",
    ),
)

recipe = Recipe(
    name="slm-10m",
    about="A ten-million-parameter attention model for multiple-choice research.",
    corpora={
        "fineweb-edu": HubText(
            dataset="HuggingFaceFW/fineweb-edu",
            config="sample-100BT",  # our choice: the card says no more than the name
            license="odc-by",
            tokens=Tokens(0.55 * TOKENS),
        ),
        "cosmopedia-v2": HubText(
            dataset="HuggingFaceTB/smollm-corpus",
            config="cosmopedia-v2",
            license="odc-by",
            tokens=Tokens(0.25 * TOKENS),
        ),
        "fineweb-hq": HubText(dataset="epfml/FineWeb-HQ", license="odc-by", tokens=Tokens(0.10 * TOKENS)),
        "finemath": HubText(
            dataset="HuggingFaceTB/finemath",
            config="finemath-4plus",  # our choice: the better rated part, 9.6 billion tokens
            license="odc-by",
            tokens=Tokens(0.10 * TOKENS),
        ),
    },
    tokenizer=BPE(vocab=8_192),
    tokenizer_corpora=("fineweb-edu",),  # our choice: the largest part of the mixture
    split=Split(share=1e-4),  # our choice: some thousand documents of a corpus are held out
    model=model,
    timeline=(
        pretrain,
        Release(name="SLM-10M", layout=Qwen3Format(context=1_024), suite="open-slm", heldout="fineweb-edu"),
    ),
    license="apache-2.0",
    notes=notes,
    card_claims={
        "z-loss switched off after 31B tokens": "the run ends at 25B tokens, so it stays on to the end",
    },
)
