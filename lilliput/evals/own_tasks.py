"""Tasks of one's own in the harness: their questions loaded and checked, and what guessing scores on them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lilliput.base.errors import DataError, reading
from lilliput.base.untrusted import shown
from lilliput.evals.load_tasks import FEWSHOT_SEED
from lilliput.evals.suites import TaskUse
from lilliput.evals.task_file import HINT, TaskFile


@dataclass(frozen=True, kw_only=True)
class OwnTask:
    """A task whose questions are there."""

    use: TaskUse
    task: Any
    """The harness's."""
    identity: str
    """Hash of the questions, in their order."""


def load_own(file: TaskFile) -> OwnTask:
    """Load the questions of a task and look at each one.

    Raises:
        DataError: they cannot be had, there are less than two, or one has no right answer among its choices.
    """
    from lm_eval.api.task import ConfigurableTask

    with reading(file.path, HINT, "the task cannot be loaded", kind=DataError):
        task: Any = ConfigurableTask(config=dict(file.config))
        task.set_fewshot_seed(FEWSHOT_SEED)
        documents = list(task.eval_docs)
        if len(documents) < 2:
            raise DataError(
                f"it has {len(documents)} questions", where=str(file.path), hint="a standard error needs two"
            )
        choices, answers, digest = [], [], hashlib.sha256()
        for number, document in enumerate(documents):
            found = _choices(task, document, number, file)
            choices.append(found)
            answers.append(_answers(task, document, found, number, file))
            digest.update(json.dumps(document, sort_keys=True, default=str).encode() + b"\n")
        use = TaskUse(
            task=file.name,
            metrics=file.metrics,
            chance=sum(len(right) / len(of) for right, of in zip(answers, choices, strict=True)) / len(documents),
            majority=_majority(choices, answers),
            display=file.display,
        )
    return OwnTask(use=use, task=task, identity=digest.hexdigest())


@contextmanager
def sandboxed(files: Sequence[TaskFile]) -> Iterator[None]:
    """Render the harness's templates in a sandbox, unless every file is trusted: one can run anything otherwise."""
    import lm_eval.utils
    from jinja2 import BaseLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    before: Any = lm_eval.utils.env
    if any(not file.trusted for file in files):
        sandbox: Any = ImmutableSandboxedEnvironment(
            loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True
        )
        sandbox.filters["regex_replace"] = before.filters["regex_replace"]
        lm_eval.utils.env = sandbox
    try:
        yield
    finally:
        lm_eval.utils.env = before


def _choices(task: Any, document: Any, number: int, file: TaskFile) -> list[str]:
    choices = task.doc_to_choice(document)
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
        raise DataError(
            f"its choices are {shown(choices)}",
            where=f"question {number} of {file.path}",
            hint="set doc_to_choice to two texts or more: a column that holds a list, a list, or a template of one",
        )
    return choices


def _answers(task: Any, document: Any, choices: list[str], number: int, file: TaskFile) -> set[int]:
    """The indices of the right choices."""
    given = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    said = given if isinstance(given, list) else [given]
    found = [choices.index(one) if isinstance(one, str) and one in choices else one for one in said]
    indices = {one for one in found if type(one) is int and 0 <= one < len(choices)}
    if not found or len(indices) < len({*map(str, found)}):
        raise DataError(
            f"the right answer is {shown(given)}, which is not one of the {len(choices)} choices",
            where=f"question {number} of {file.path}",
            hint="set doc_to_target to the index of the right choice, from 0, or to its text",
        )
    return indices


def _majority(choices: list[list[str]], answers: list[set[int]]) -> float | None:
    """Return what the commonest answer scores, given every time, where all questions have the same choices."""
    if any(one != choices[0] for one in choices):
        return None
    counts = Counter(index for right in answers for index in right)
    return counts.most_common(1)[0][1] / len(answers)
