"""MTLM1-200M at its full depth from the first step on, for full_shape.py: one phase, nothing stacked."""

from dataclasses import replace

from lilliput.base.units import Tokens
from lilliput.data.mixture import Mixture
from lilliput.publish.card.notes import CardNotes
from lilliput.recipe import Release
from lilliput.recipes import mtlm1_200m as card

pretrain = replace(
    card.base,
    name="pretrain",
    tokens=Tokens(2 * card.PHASE),
    data=Mixture(weights={name: (card.M1[name] + card.M2[name]) / 2 for name in card.M1}),
)

recipe = replace(
    card.recipe,
    name="mtlm1-200m-plain",
    about="The model of mtlm1-200m at its full depth from the first step on, to compare that recipe with.",
    model=replace(card.model, layers=24),
    notes=CardNotes(),
    timeline=(
        pretrain,
        Release(name="MTLM1-200M-Plain", layout=card.layout, suite="mtlm", heldout="fineweb-edu", dtype="F32"),
    ),
)
