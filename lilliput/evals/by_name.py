"""A model folder and the name of a suite in, an evaluation out."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lilliput.base.files import write_text
from lilliput.data.arithmetic import arithmetic_items
from lilliput.evals.evaluation import Evaluation
from lilliput.evals.harness import evaluate
from lilliput.evals.items import Items
from lilliput.evals.progress import Watcher
from lilliput.evals.suites import ARITHMARK2_SYNTHETIC, named

ARITHMETIC_ITEMS = 500
"""Generated arithmetic questions; one standard error at chance is 1.9 points."""


def evaluate_by_name(
    model_folder: Path,
    suite: str,
    items: Items,
    *,
    tasks: Sequence[str] = (),
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 16,
    limit: int | None = None,
    records: Path | None = None,
    trust_remote_code: bool = False,
    watcher: Watcher | None = None,
) -> Evaluation:
    """Score a Hugging Face folder on a suite, or on some of its tasks by the harness's names.

    Held-out text, which only a run has, is left out. Generated arithmetic is the same for every model.

    Raises:
        RecipeError: there is no such suite or task; the nearest names are given.
        DataError: see `lilliput.evals.harness.evaluate`, which explains the other arguments too.
    """
    chosen = named(suite).only(tasks) if tasks else named(suite)
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        made = {}
        if ARITHMARK2_SYNTHETIC in chosen.made:
            made[ARITHMARK2_SYNTHETIC.task] = write_arithmetic(work / "arithmetic.jsonl", seed=0)
        return evaluate(
            model_folder,
            chosen,
            items,
            work=work,
            made=made,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            limit=limit,
            records=records,
            trust_remote_code=trust_remote_code,
            watcher=watcher,
        )


def write_arithmetic(path: Path, *, seed: int) -> Path:
    """Write generated arithmetic questions as JSON lines."""
    lines = (json.dumps(item) + "\n" for item in arithmetic_items(ARITHMETIC_ITEMS, seed=seed))
    write_text(path, "".join(lines))
    return path
