"""One NVIDIA GB10 with 128 GB that processor and GPU share, as SLM-10M was trained on, in micro-batches of 32 rows."""

from lilliput.plan.rating import Rating
from lilliput.train.machine import Machine

machine = Machine(device="cuda", precision="bf16", compile="blocks", positions=32 * 1_024)
rating = Rating(
    peak=62.5e12,
    utilization=0.40,
    source="published comparisons, bf16 summed in fp32; the share that training reached on an H100, so a guess",
)
