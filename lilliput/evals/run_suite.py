"""A model folder and the name of a suite in, an evaluation out."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.base.files import write_text
from lilliput.data.corpora.arithmetic import arithmetic_items
from lilliput.evals.evaluation import Evaluation
from lilliput.evals.harness import evaluate
from lilliput.evals.native_model import Native
from lilliput.evals.question_files import QuestionSource
from lilliput.evals.suites import ARITHMARK2_SYNTHETIC, HELDOUT, Suite, named
from lilliput.evals.task_file import read_task

ARITHMETIC_ITEMS = 500
"""Generated arithmetic questions; one standard error at chance is 1.9 points."""


def evaluate_by_name(
    model_folder: Path | Native,
    suite: str,
    questions: QuestionSource,
    *,
    tasks: Sequence[str] = (),
    heldout: Path | None = None,
    **settings: Any,
) -> Evaluation:
    """Score a Hugging Face folder, or a native model, on a suite, or on some of its tasks by the harness's names.

    Held-out text, which only a run has, is a file of JSON lines; without one its bits per byte are left out. Generated
    arithmetic is the same for every model.

    Args:
        model_folder: a Hugging Face folder, which transformers loads, or a native model.
        suite: name of the suite.
        questions: source of the public questions.
        tasks: the only tasks to score; all if empty.
        heldout: file of held-out texts.
        settings: of `lilliput.evals.harness.evaluate`: its `device`, `dtype` and those after them.

    Raises:
        RecipeError: there is no such suite or task; the nearest names are given.
        DataError: see `lilliput.evals.harness.evaluate`.
    """
    chosen = named(suite).only(tasks) if tasks else named(suite)
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        item_files = {}
        if ARITHMARK2_SYNTHETIC in chosen.made:
            item_files[ARITHMARK2_SYNTHETIC.task] = write_arithmetic(work / "arithmetic.jsonl", seed=0)
        if HELDOUT in chosen.made and heldout is not None:
            item_files[HELDOUT.task] = heldout
        return evaluate(model_folder, chosen, questions, work=work, item_files=item_files, **settings)


def evaluate_own(
    model_folder: Path | Native,
    files: Sequence[Path],
    questions: QuestionSource,
    *,
    trust_tasks: bool = False,
    **settings: Any,
) -> Evaluation:
    """Score a model on tasks of one's own.

    Args:
        model_folder: see `lilliput.evals.harness.evaluate`.
        files: a YAML file each, see `lilliput.evals.task_file`.
        items: whether datasets may be fetched: `Hub` alone asks the network.
        trust_tasks: whether Python that the files name may run.
        settings: as of `evaluate`.

    Raises:
        DataError: a file is no task, or its questions cannot be asked.
        RecipeError: two tasks have the same name.
    """
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        own = [read_task(file, trusted=trust_tasks, work=work) for file in files]
        names = [task.name for task in own]
        for task in own:
            if names.count(task.name) > 1:
                raise RecipeError(
                    f"two tasks are named {task.name!r}", where=f"--task {task.path}", hint="rename one: `task:`"
                )
        return evaluate(model_folder, Suite(name="own"), questions, work=work, own=own, **settings)


def write_arithmetic(path: Path, *, seed: int) -> Path:
    """Write generated arithmetic questions as JSON lines."""
    lines = (json.dumps(item) + "\n" for item in arithmetic_items(ARITHMETIC_ITEMS, seed=seed))
    write_text(path, "".join(lines))
    return path
