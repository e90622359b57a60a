"""Loads tasks of the harness by their files, decodes their questions once, and compiles their templates once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError
from lilliput.evals.suites import TaskUse

TASKS = Path(__file__).with_name("tasks")
"""Task files of our own."""
FEWSHOT_SEED = 1234
"""The harness's own, so that `lm_eval` draws the same examples."""
NO_EXAMPLES = {"fewshot_config": {"samples": []}}
"""Settings of a task that is asked without examples: otherwise the harness decodes all that it could draw from."""
TEMPLATES = 1_024
"""Compiled templates that are kept; a task has three or four."""


def load_tasks(uses: Sequence[TaskUse], settings: Mapping[str, dict[str, Any]], *, source: str) -> dict[str, Any]:
    """Return tasks of the harness by its names.

    Args:
        uses: what to load.
        settings: changes to the settings in each task's file, by name.
        source: where the questions come from, for errors.

    Raises:
        DataError: the questions cannot be fetched.
    """
    import lm_eval.tasks
    from datasets.exceptions import DatasetsError

    # Only the folders of these tasks: reading all 14,000 task files of the harness takes eleven seconds.
    shipped = Path(lm_eval.tasks.__file__).parent
    folders = dict.fromkeys(TASKS if use.shipped is None else shipped / use.shipped for use in uses)
    manager = lm_eval.tasks.TaskManager(include_path=list(folders), include_defaults=False)
    # A group is the harness's own way to add settings to tasks that are defined in files.
    members = [
        {"task": use.task, "num_fewshot": use.num_fewshot, **settings[use.task]}
        | ({} if use.num_fewshot else NO_EXAMPLES)
        for use in uses
    ]
    try:
        tasks = dict(manager.load({"group": "asked", "task": members})["tasks"])
    except (OSError, DatasetsError) as error:
        raise DataError(
            f"the questions cannot be fetched: {error}",
            where=f"{source}, for {', '.join(use.task for use in uses)}",
            hint="check the network, or give local files with --eval-data FOLDER",
        ) from error
    for task in tasks.values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        _decode_once(task)
    return tasks


def _decode_once(task: Any) -> None:
    """Keep a task's questions as values.

    The harness processes them and decodes them from Arrow each time that it goes over them, and it does so twice.
    """
    questions = list(task.eval_docs)
    setattr(task, "test_docs" if task.has_test_docs() else "validation_docs", lambda: questions)


@contextmanager
def compiled_once() -> Iterator[None]:
    """Let the harness compile each template once.

    It compiles every template again for every question, 72,000 times for `open-slm`: three fifths of all that it does
    besides the model.
    """
    import lm_eval.utils

    environment: Any = lm_eval.utils.env
    environment.from_string = lru_cache(TEMPLATES)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string
