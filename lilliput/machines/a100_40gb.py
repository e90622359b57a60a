"""One NVIDIA A100 with 40 GB, as MTLM1 was trained on."""

from lilliput.plan.rating import Rating
from lilliput.train.machine import Machine

machine = Machine(device="cuda", precision="bf16")
rating = Rating(
    peak=312e12,
    utilization=0.40,
    source="NVIDIA's data sheet, bf16; the share that a step of 194 M parameters reached on an H100, "
    "benchmarks/results/2026-11-26-h100-step.md",
    price_per_hour=(0.67, 1.25),
    currency="USD",
    price_source="the MTLM1 card's 8 to 15 dollars for 12 hours",
)
