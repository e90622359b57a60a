"""The command line: `lilliput run quickstart`, then `lilliput chat runs/quickstart`."""

import os

GIVEN = dict(os.environ)
"""The environment as it was before it is changed here: what `lilliput bench` hands on."""

# Threads that wait for each other must sleep, not spin: on two cores with one other busy process a training step took
# 0.6 s so and 3 to 5 s otherwise. Read once, when PyTorch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from lilliput.cli.app import app, main  # noqa: E402, the environment comes first

__all__ = ["GIVEN", "app", "main"]
