"""One NVIDIA or AMD GPU."""

from lilliput.train.machine import Machine

machine = Machine(device="cuda")
