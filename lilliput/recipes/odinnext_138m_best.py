"""OdinNext-138M on the way that evidence supports: bags of tokens end to end, no denoising blocks, no teacher.

The model, the data and the token budget are those of odinnext-138m. Independent trials of denoising blocks on text lost
much per token (cross-entropy 5.08 against 4.00 after 143 M tokens at 124 M parameters), so all layers learn together.
"""

from dataclasses import replace

from lilliput.base.units import Share, Steps, Tokens
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.use_ema import UseEma
from lilliput.objectives.next_token import NextToken
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.recipes import odinnext_138m as card
from lilliput.tokenizer.chatml import CHATML
from lilliput.train.phase import Stage

# One phase and one schedule: optimizer and rate go on where the bag shrinks. A step has as many positions in each,
# so it reads 2,097,152 tokens of text, then 1,048,576, then 524,288.
pretrain = replace(
    card.end_to_end,
    name="pretrain",
    tokens=Tokens(card.TOKENS),
    stages=(
        Stage(share=0.20, objective=NextToken(bag=4, terms=card.terms)),
        Stage(share=0.10, objective=NextToken(bag=2, terms=card.terms)),
        Stage(share=0.70, objective=NextToken(bag=1, terms=card.terms)),
    ),
    schedule=WarmupStableDecay(warmup=Steps(2_000), decay=Share(0.15)),
)

recipe = replace(
    card.recipe,
    name="odinnext-138m-best",
    about="A recurrent language model with a state of three mebibytes, trained on bags of tokens end to end.",
    corpora={name: corpus for name, corpus in card.recipe.corpora.items() if name != "replies"},
    timeline=(
        pretrain,
        UseEma(),
        replace(card.base, name="OdinNext-138M-Best-Base"),
        AddTokens(tokens=CHATML),
        card.sft,
        replace(card.instruct, name="OdinNext-138M-Best-Instruct"),
    ),
)
