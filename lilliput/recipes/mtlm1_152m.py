"""MTLM1-152M: mtlm1-200m in the shape of the public training code, 88.3 M -> 152.0 M parameters."""

from dataclasses import replace

from lilliput.nn.ffn import SwiGLU
from lilliput.recipe import Release
from lilliput.recipes import mtlm1_200m

NAMES = {"MTLM1-110M": "MTLM1-88M", "MTLM1-200M": "MTLM1-152M"}
"""Names of the releases, by those of mtlm1-200m."""

# The code's rule, 768 x 5 / 3 = 1,280:
# 32,000 x 768 + 12 x (4 x 768^2 + 3 x 768 x 1,280 + 2 x 768) + 768 = 88,296,192; with 24 layers 152,015,616
model = replace(mtlm1_200m.model, ffn=SwiGLU(inner=1_280))

recipe = replace(
    mtlm1_200m.recipe,
    name="mtlm1-152m",
    model=model,
    timeline=tuple(
        replace(entry, name=NAMES[entry.name]) if isinstance(entry, Release) else entry
        for entry in mtlm1_200m.recipe.timeline
    ),
)
