"""A model folder and the name of a suite in, an evaluation out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.evals.evaluation import Evaluation
from lilliput.evals.harness import evaluate
from lilliput.evals.made_items import write_made
from lilliput.evals.native_model import Native
from lilliput.evals.question_files import QuestionSource, absent
from lilliput.evals.suites import HELDOUT, Suite, named
from lilliput.evals.task_file import read_task


def evaluate_by_name(
    model_folder: Path | Native,
    suite: str,
    questions: QuestionSource,
    *,
    tasks: Sequence[str] = (),
    num_fewshot: int | None = None,
    heldout: Path | None = None,
    **settings: Any,
) -> Evaluation:
    """Score a Hugging Face folder, or a native model, on a suite, or on some of its tasks by the harness's names.

    Held-out text, which only a run has, is a file of JSON lines; without one its bits per byte are left out. Generated
    items are the same for every model.

    Args:
        model_folder: a Hugging Face folder, which transformers loads, or a native model.
        suite: name of the suite.
        questions: source of the public questions.
        tasks: the only tasks to score; all if empty.
        num_fewshot: solved questions before each public one; None for what the suite says.
        heldout: file of held-out texts.
        settings: of `lilliput.evals.harness.evaluate`: its `device`, `dtype` and those after them.

    Raises:
        RecipeError: there is no such suite or task; the nearest names are given.
        DataError: see `lilliput.evals.harness.evaluate`.
    """
    chosen = named(suite).only(tasks) if tasks else named(suite)
    chosen = chosen if num_fewshot is None else chosen.with_fewshot(num_fewshot)
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        item_files = write_made(chosen, work)
        if HELDOUT in chosen.made and heldout is not None:
            item_files[HELDOUT.task] = heldout
        found = evaluate(model_folder, chosen, questions, work=work, item_files=item_files, **settings)
    return replace(found, absent=absent(chosen, questions))


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
