"""Quickstart: the documentation of what is installed -> a 2.8 M parameter HGRN2 that answers questions about it.

A few minutes on two cores, no network, no data of its own: tokenizer, pretraining, base release, instruction tuning,
instruct release, evaluation, cards.
"""

from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.arithmetic import Arithmetic
from lilliput.data.corpora.documentation.installed import Installed
from lilliput.data.corpora.documentation.questions import DocumentationQuestions
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.growth.add_tokens import AddTokens
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.hgrn2 import HGRN2
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.normuon import NorMuon
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.publish.export import Generation
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.recipe import Recipe, Release
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHATML
from lilliput.train.phase import Phase, Stage

# Everything here is a dependency of Lilliput, so an installation has it; constraints.txt pins the versions.
DISTRIBUTIONS = (
    "torch transformers lm-eval datasets matplotlib accelerate typer rich numpy scipy pandas sympy networkx "
    "scikit-learn nltk huggingface_hub pydantic fsspec tokenizers safetensors jinja2 click requests pyarrow tqdm regex "
    "mpmath fonttools narwhals pillow pygments more-itertools pyparsing joblib portalocker packaging filelock "
    "python-dateutil sacrebleu psutil dill absl-py evaluate lxml contourpy markdown-it-py pytablewriter tabulate"
).split()

docs = Installed(distributions=tuple(DISTRIBUTIONS))
next_token = (Stage(share=1.0, objective=NextToken(terms=(CrossEntropy(), ZLoss(weight=1e-4)))),)

pretrain = Phase(
    name="pretrain",
    tokens=Tokens(300 * 16 * 256),  # steps x rows x length = 1,228,800
    length=256,
    batch_tokens=16 * 256,
    data=Mixture(weights={"docs": 0.95, "arithmetic": 0.05}),
    stages=next_token,
    optimizer=NorMuon(lr=1e-2, adam_lr=8e-3),
    schedule=WarmupStableDecay(warmup=Steps(5), decay=Share(0.5), shape="linear", floor=0.02),
)

sft = Phase(
    name="sft",
    tokens=Tokens(260 * 8 * 256),  # 532,480; small steps, because learning to repeat the asked name takes many
    length=256,
    batch_tokens=8 * 256,
    data=ChatData(corpus="questions"),
    stages=next_token,
    optimizer=NorMuon(lr=1e-2, adam_lr=6e-3),
    schedule=WarmupStableDecay(warmup=Steps(5), decay=Share(0.5), shape="linear", floor=0.02),
)

layout = HGRN2Format(context=2_048)

recipe = Recipe(
    name="quickstart",
    about="A tiny recurrent language model of Python documentation, trained from nothing on two cores in minutes.",
    corpora={
        "docs": docs,
        "arithmetic": Arithmetic(count=10_000),
        "questions": DocumentationQuestions(source=docs),
    },
    tokenizer=BPE(vocab=4_096),
    tokenizer_corpora=("docs",),
    split=Split(share=0.04),
    model=ModelSpec(
        vocab=4_096, width=256, layers=2, mixer=HGRN2(heads=4, forget_timescales=(2.0, 150.0)), ffn=SwiGLU(inner=768)
    ),
    timeline=(
        pretrain,
        Release(name="quickstart-base", layout=layout, suite="quickstart", heldout="docs", dtype="F32"),
        AddTokens(tokens=CHATML),
        sft,
        Release(
            name="quickstart-instruct",
            layout=layout,
            suite="quickstart-chat",
            heldout="docs",
            chat="questions",
            dtype="F32",  # 11 MB; so small that exactness is worth more than size
            generation=Generation(temperature=0.5, top_p=0.9, repetition_penalty=1.05, max_new_tokens=128),
        ),
    ),
)
