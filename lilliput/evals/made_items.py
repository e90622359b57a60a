"""Items that Lilliput makes itself, as files that the harness reads: generated arithmetic and minimal pairs."""

import json
from pathlib import Path

from lilliput.base.files import write_text
from lilliput.data.corpora.arithmetic import arithmetic_items
from lilliput.evals.minimal_pairs import PHENOMENA, write_pairs
from lilliput.evals.suites import ARITHMARK2_SYNTHETIC, GRAMMAR, Suite

ARITHMETIC_ITEMS = 500
"""Generated arithmetic questions; one standard error at chance is 1.9 points."""


def write_made(suite: Suite, folder: Path, *, arithmetic_seed: int = 0) -> dict[str, Path]:
    """Write the generated items of a suite, one file a task; return the files by the harness's name of the task.

    Args:
        suite: whose items to make; held-out text, which only a run has, is none of them.
        folder: where the files go.
        arithmetic_seed: seed of the arithmetic; minimal pairs are the same for every model.
    """
    files = {}
    for phenomenon, use in zip(PHENOMENA, GRAMMAR.made, strict=True):
        if use in suite.made:
            files[use.task] = write_pairs(phenomenon, folder / f"{use.task}.jsonl")
    if ARITHMARK2_SYNTHETIC in suite.made:
        files[ARITHMARK2_SYNTHETIC.task] = write_arithmetic(folder / "arithmetic.jsonl", seed=arithmetic_seed)
    return files


def write_arithmetic(path: Path, *, seed: int) -> Path:
    """Write generated arithmetic questions as JSON lines."""
    lines = (json.dumps(item) + "\n" for item in arithmetic_items(ARITHMETIC_ITEMS, seed=seed))
    write_text(path, "".join(lines))
    return path
