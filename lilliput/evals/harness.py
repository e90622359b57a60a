"""Scores of a model through lm-evaluation-harness.

Anyone can repeat them: tasks are the harness's own files or those in `tasks/`, and without --eval-data the questions
come from where these files say. A model that Lilliput can load answers through its own forward pass, whose
log-likelihoods are those of the harness's Hugging Face model but for rounding; any other through that one.
https://github.com/EleutherAI/lm-evaluation-harness
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from lilliput.base.errors import DataError, RecipeError, reading
from lilliput.base.garbage_collection import rare_collections
from lilliput.base.safetensors_headers import check_weights_cover
from lilliput.evals.evaluation import Answered, Evaluation, ModelCode, summed_up, write_records
from lilliput.evals.load_tasks import compiled_once, load_tasks
from lilliput.evals.local_files import FILES, identity_of
from lilliput.evals.native_model import Native
from lilliput.evals.offline import offline
from lilliput.evals.own_tasks import load_own, sandboxed
from lilliput.evals.progress import Watcher
from lilliput.evals.question_files import Questions, QuestionSource, asked, check_questions, from_file
from lilliput.evals.suites import Suite, TaskUse
from lilliput.evals.task_file import TaskFile
from lilliput.tokenizer.bpe import TOKENIZER_FILE, load_tokenizer

WEIGHTS = ("float32", "bfloat16", "float16")
"""Types that the weights may be rounded to."""
ROWS = 16
"""Rows of a forward pass in transformers by default."""


@rare_collections()
def evaluate(
    model: Path | Native,
    suite: Suite,
    questions: QuestionSource,
    *,
    work: Path,
    item_files: Mapping[str, Path] | None = None,
    own: Sequence[TaskFile] = (),
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int | None = None,
    limit: int | None = None,
    records: Path | None = None,
    trust_remote_code: bool = False,
    watcher: Watcher | None = None,
) -> Evaluation:
    """Score a model on the tasks of a suite: public ones, then those on items that Lilliput makes, then one's own.

    The model's window is `max_position_embeddings` of its config, for recurrent models too: what fits no window is cut.

    Args:
        model: a native model, which answers by Lilliput's own forward pass; or a folder for transformers, with config,
            weights, tokenizer, and the model's own code where it has any.
        suite: the tasks, with the metrics to report.
        questions: where public questions come from. The network is touched for them alone, and only by `Hub`.
        work: the only folder written to, but for the hub's cache: dataset caches, copies of model code.
        item_files: items that Lilliput made, by the harness's name of the task. Tasks without one are left out.
        own: tasks that are in no suite.
        device: as torch names it.
        dtype: of the weights; softmax is always in float32.
        batch_size: rows of a forward pass at most; None for as many as memory is meant to hold, or `ROWS` in
            transformers.
        limit: ask only the first so many questions of each task (of held-out text, the longest), or the suite's limit
            if that is lower.
        records: a file for the record of every item, JSON lines.
        trust_remote_code: whether transformers may run the folder's own code, `lilliput.publish.remote_code` decides.
        watcher: told how far it is.

    Raises:
        RecipeError: `item_files` names a task that the suite does not make items for, or `limit` is less than two.
        DataError: the model or a file of questions is missing or damaged, the hub cannot be reached, there is nothing
            to ask, or a choice is longer than the model's window.
    """
    # A GPU takes seconds to start, in which the harness can be imported and questions read.
    Thread(target=_start, args=(device,), daemon=True).start()
    item_files = item_files or {}
    limit = min((bound for bound in (limit, suite.limit) if bound is not None), default=None)
    _check(suite, item_files, limit)
    if dtype not in WEIGHTS or (batch_size is not None and batch_size < 1):
        raise RecipeError(
            f"cannot evaluate with {dtype} weights in batches of {batch_size} rows",
            where="--dtype and --batch-size",
            hint=f"one of {', '.join(WEIGHTS)}; at least 1 row",
        )
    check_questions(suite, questions)
    uses = asked(suite, questions, item_files)
    if not uses and not own:
        raise DataError(
            "none of its items can be evaluated on a model alone",
            where=f"evaluation suite {suite.name!r}",
            hint="its items are made by a run; measure a text with --text, or choose another suite",
        )
    _check_model(model)
    public = [use for use in uses if use.task not in item_files]
    with questions.loading(work), sandboxed(own):
        loaded = [load_own(file) for file in own]
        by_task = {use.task: questions.questions(use, work) for use in public}
        tasks = load_tasks(public, _settings(by_task), source=str(questions))
        identities = {use.task: by_task[use.task].identity or _identity(use, tasks[use.task]) for use in public}
    with offline(work), sandboxed(own), compiled_once():
        own_items = {
            task: Questions(settings=from_file(path, split="test", work=work)) for task, path in item_files.items()
        }
        made = [use for use in uses if use.task in item_files]
        tasks |= load_tasks(made, _settings(own_items), source="a file made for it")
        tasks |= {one.use.task: one.task for one in loaded}
        identities |= {one.use.task: one.identity for one in loaded}
        import lm_eval.evaluator

        settings: dict[str, Any] = {"device": device, "dtype": dtype, "watcher": watcher}
        with reading(str(model), "fetch or publish the folder again", "the model cannot be loaded"):
            scorer: Any = _scorer(model, settings, batch_size, trust_remote_code)
        answered = []
        for use in (*uses, *(one.use for one in loaded)):
            scorer.begin(use)
            task = tasks[use.task]
            # Bootstrapping takes longer than the model; the standard errors here are exact or closed-form.
            answer = lm_eval.evaluator.evaluate(scorer, {"tasks": {use.task: task}}, limit=limit, bootstrap_iters=0)
            note = "" if limit is None else f"first {limit:,} items only"
            known = (by_task | own_items).get(use.task)
            notes = "; ".join(part for part in (note, known and known.note) if part)
            answered.append(Answered(use=use, task=task, answer=answer, note=notes, identity=identities.get(use.task)))
        if records is not None:
            write_records(answered, records)
        # An average of part of the questions would be taken for the one of all.
        code: ModelCode = "lilliput" if isinstance(model, Native) else "transformers"
        return summed_up(answered, suite.averages if limit is None else (), code)


def longest_first(documents: Any) -> Any:
    """Rows of a `datasets.Dataset` with a `text` column, by falling length, without empty ones, which cost no bits.

    The harness batches the windows of held-out documents in file order. Rows of like length leave little padding: 300
    documents of 300 to 3,000 characters took a 3M-parameter model 3.5 instead of 5.3 seconds of one CPU core.
    """
    texts = documents["text"]
    return documents.select(sorted((row for row, text in enumerate(texts) if text), key=lambda row: -len(texts[row])))


def _start(device: str) -> None:
    """Multiply on a device, which makes its driver and its library of products ready."""
    with suppress(Exception):  # the model finds out, too, and says so
        torch.ones(2, 2, device=device).mm(torch.ones(2, 2, device=device))


def _scorer(model: Path | Native, settings: dict[str, Any], batch_size: int | None, trust_remote_code: bool) -> Any:
    """The harness's interface to the model."""
    if isinstance(model, Native):
        from lilliput.evals.lilliput_model import LilliputModel

        return LilliputModel(model, batch_size=batch_size, **settings)
    from lilliput.evals.hf_model import HFModel

    return HFModel(model, batch_size=batch_size or ROWS, trust_remote_code=trust_remote_code, **settings)


def _check_model(model: Path | Native) -> None:
    """Refuse a folder without a model of the size that it claims, before transformers builds what its config says."""
    if isinstance(model, Native):
        return
    if not (model / "config.json").is_file():
        raise DataError(
            f"{model} is not a model folder: it has no config.json",
            where="the folder to evaluate",
            hint="give the folder that a release was exported to",
        )
    check_weights_cover(model)
    if (model / TOKENIZER_FILE).is_file():
        load_tokenizer(model)


def _check(suite: Suite, item_files: Mapping[str, Path], limit: int | None) -> None:
    known = {use.task for use in suite.made}
    if not set(item_files) <= known:
        raise RecipeError(
            f"items were made for {', '.join(sorted(set(item_files) - known))}",
            where=f"evaluation suite {suite.name!r}",
            hint=f"it takes those of: {', '.join(sorted(known)) or 'no task'}",
        )
    if limit is not None and limit < 2:
        raise RecipeError(
            f"the limit is {limit}", where="--limit", hint="give at least 2: a standard error needs two questions"
        )
    for task, path in sorted(item_files.items()):
        if not path.is_file() or not path.read_bytes().strip():
            raise DataError(
                f"{path} is empty or not a file",
                where=f"the data file of task {task!r}",
                hint="write one JSON object per line",
            )


def _identity(use: TaskUse, task: Any) -> str:
    """The identity of questions as the harness has loaded them."""
    file = FILES[use.task]
    return identity_of(task.dataset[file.split].select_columns(list(file.columns)), file)


def _settings(questions: Mapping[str, Questions]) -> dict[str, dict[str, Any]]:
    return {task: one.settings for task, one in questions.items()}
