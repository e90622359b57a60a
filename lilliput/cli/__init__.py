"""The command line: `lilliput run quickstart`, then `lilliput chat runs/quickstart`."""

import os

from lilliput.base.environment import GIVEN as GIVEN  # as it is before the next line

# Threads that wait for each other must sleep, not spin: on two cores with one other busy process a training step took
# 0.6 s so and 3 to 5 s otherwise. Read once, when PyTorch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from lilliput.cli.app import app, main

__all__ = ["app", "main"]
