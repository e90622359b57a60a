"""Own text: a folder of texts of yours -> a 4 M parameter attention model of them, published as Qwen3.

    lilliput run own-text --source texts=path/to/folder

Copy it (`lilliput recipe copy own-text`) and change what you like; the guide "your own text" goes through it.
"""

from lilliput.base.units import Share, Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.rope import RoPE
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.normuon import NorMuon
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.publish.export import Generation
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Recipe, Release
from lilliput.tokenizer.bpe import BPE
from lilliput.train.phase import Phase, Stage

recipe = Recipe(
    name="own-text",
    about="A small attention model of a folder of texts.",
    corpora={"texts": TextFiles(paths=("texts",))},  # text files, JSON Lines or Parquet; --source texts=... says others
    # Simple text fills fewer ids, and the model then has as few. To learn them takes 20 to 90 bytes of memory for each
    # byte of the sample, most of them in languages that put no blanks between words.
    tokenizer=BPE(vocab=4_096, at_most=True, sample_bytes=5_000_000),
    tokenizer_corpora=("texts",),
    split=Split(share=0.05),  # every twentieth document is never trained on; of less than a hundred, the end of each
    model=ModelSpec(
        vocab=4_096,
        width=256,
        layers=4,
        mixer=GQA(heads=8, kv_heads=2, head_width=32, qk_norm=True, rope=RoPE(theta=10_000.0)),
        ffn=SwiGLU(inner=704),
    ),
    timeline=(
        Phase(
            name="pretrain",
            tokens=Tokens(600 * 16 * 256),  # steps x rows x length = 2,457,600: a few passes over 2 to 4 MB of text
            length=256,
            batch_tokens=16 * 256,
            data=Mixture(weights={"texts": 1.0}),
            stages=(Stage(share=1.0, objective=NextToken(terms=(CrossEntropy(), ZLoss(weight=1e-4)))),),
            optimizer=NorMuon(lr=1e-2, adam_lr=8e-3),
            schedule=WarmupStableDecay(warmup=Share(0.02), decay=Share(0.4), shape="linear", floor=0.02),
        ),
        Release(
            name="own-text",
            layout=Qwen3Format(context=512),
            suite="own-text",
            heldout="texts",
            generation=Generation(temperature=0.8, top_p=0.95, repetition_penalty=1.05),
        ),
    ),
)
