"""One AMD Ryzen AI MAX+ 395 (Strix Halo, gfx1151) with ROCm, which PyTorch calls cuda; OdinNext was trained on two.

Untested: Lilliput has not run on ROCm yet. Precision fp16 with a scaled loss is the card's: it found bf16 slower there.
"""

from lilliput.plan.rating import Rating
from lilliput.train.machine import Machine

machine = Machine(device="cuda", precision="fp16", compile="blocks", positions=16_384)
rating = Rating(
    peak=59.4e12,
    utilization=0.25,
    source="512 operations x 40 units x 2.9 GHz; four tenths of the 36.9 TFLOP/s that others measured of products, "
    "so a guess",
)
