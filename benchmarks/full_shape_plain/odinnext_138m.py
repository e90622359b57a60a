"""OdinNext-138M by ordinary training, for full_shape.py: AdamW, a token a position, one phase, no teacher."""

from dataclasses import replace

from lilliput.base.units import Share, Steps, Tokens
from lilliput.growth.add_tokens import AddTokens
from lilliput.optim.adamw import AdamW
from lilliput.optim.ema import NoEma
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.publish.card.notes import CardNotes
from lilliput.recipes import odinnext_138m as card
from lilliput.tokenizer.chatml import CHATML

pretrain = replace(
    card.end_to_end,
    name="pretrain",
    tokens=Tokens(card.TOKENS),
    optimizer=AdamW(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1),  # usual for the size, not tuned
    schedule=WarmupStableDecay(warmup=Steps(2_000), decay=Share(0.3)),
    ema=NoEma(),
)

recipe = replace(
    card.recipe,
    name="odinnext-138m-plain",
    about="The model of odinnext-138m by ordinary training, to compare that recipe with.",
    corpora={name: corpus for name, corpus in card.recipe.corpora.items() if name != "replies"},
    notes=CardNotes(),
    card_claims={},
    timeline=(
        pretrain,
        replace(card.base, name="OdinNext-138M-Plain-Base"),
        AddTokens(tokens=CHATML),
        card.sft,
        replace(card.instruct, name="OdinNext-138M-Plain-Instruct"),
    ),
)
