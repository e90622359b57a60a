"""The `eval` command: scores a model on a suite, a text, or all that its recipe says."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lilliput.base.errors import LilliputError
from lilliput.base.garbage_collection import rare_collections
from lilliput.cli.model_argument import explain, find_model
from lilliput.cli.options import ItemsOption, JsonOption, RunOption, TrustOption, expanded
from lilliput.cli.resolve import resolve
from lilliput.cli.run import interruptible
from lilliput.cli.show import console, show_evaluation, show_release, silent
from lilliput.cli.without_effect import refuse_without_effect

if TYPE_CHECKING:
    from lilliput.evals.native_model import Native
    from lilliput.run.target import Target

app = typer.Typer()


@app.command("eval")
@rare_collections()  # over what is imported, too
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN|RECIPE",
            help="A model folder, or a run: its releases, or its trained weights if it has none.",
        ),
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="open-slm, odinnext, mtlm, grammar or smoke. With a run, scores its last release."
        ),
    ] = None,
    eval_data: ItemsOption = None,
    tasks: Annotated[str, typer.Option(help="Only these tasks of the suite, separated by commas.")] = "",
    own: Annotated[
        list[Path],
        typer.Option("--task", metavar="FILE.yaml", help="Score a task of your own instead, a task file of lm-eval."),
    ] = [],  # noqa: B006, typer reads it
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure perplexity and bits per byte of a text instead.", callback=expanded),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column of --text that holds the texts; text by default.")
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option("--num-fewshot", metavar="N", help="Put this many solved questions before each one of a suite."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first this many items of each task.")] = None,
    records: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every item and its likelihoods as JSON lines.", callback=expanded),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Allow Python code of the model folder or of --task to run."),
    ] = False,
    trust_code: TrustOption = False,
    out: RunOption = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps, or auto for the best available, which is the default.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type of the weights: bfloat16, float16, or float32 by default.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="ROWS",
            help="The largest number of rows in a forward pass. By default Lilliput's own passes are limited by their "
            "tokens, and those of transformers to 16 rows.",
        ),
    ] = None,
    model_code: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Whose model computes: lilliput, transformers, or auto for lilliput where it can load the folder, "
            "which is the default.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model on a suite, a task or a text, by lm-evaluation-harness; or a run's releases as its recipe says."""
    from lilliput.base.ownership import check_output
    from lilliput.evals.suites import SUITE
    from lilliput.publish.remote_code import check_code
    from lilliput.run.model_code import model_to_score
    from lilliput.train.machine import inference_device

    given = {"--suite": suite, "--text": text, "--task": own}
    ways = [option for option, value in given.items() if value]
    if len(ways) > 1:
        raise LilliputError(
            f"{' and '.join(ways)} cannot be combined",
            where="the command line",
            hint="use one at a time; --suite names a suite, --text and --task a file of your own",
        )
    if own:
        asked = {"--tasks": tasks, "--num-fewshot": num_fewshot}
        refuse_without_effect(asked, "with --task", "score a suite; a task file says it itself, `num_fewshot:`")
    if text:
        asked = {"--tasks": tasks, "--num-fewshot": num_fewshot, "--eval-data": eval_data}
        refuse_without_effect(asked, "with --text", "score a suite or a task, which have questions")
    else:
        refuse_without_effect({"--column": column}, "without --text", "give the file with --text too")
    if not ways and not (Path(model) / "config.json").is_file():
        target = resolve(model, out=out, trust_code=trust_code)
        if target.recipe.releases:
            asked = {
                "--tasks": tasks,
                "--limit": limit,
                "--num-fewshot": num_fewshot,
                "--records": records,
                "--trust-remote-code": trust_remote_code,
                "--device": device,
                "--dtype": dtype,
                "--batch-size": batch_size,
                "--model-code": model_code,
            }
            refuse_without_effect(
                asked,
                "when a run is evaluated as its recipe says",
                "add --suite, --task or --text, which score the last release",
            )
            _as_the_recipe_says(target, eval_data, as_json)
            return
    if records is not None:
        check_output(records, '"log_likelihoods": ', "--records")
    subject = find_model(model, out, trust_code=trust_code)
    settings: dict[str, Any] = {
        "device": inference_device(device or "auto"),
        "dtype": dtype or "float32",
        "batch_size": batch_size,
        "limit": limit,
        "records": records,
        "trust_remote_code": isinstance(subject, Path) and check_code(subject, trusted=trust_remote_code),
    }
    scored = model_to_score(subject, model_code or "auto")
    if text:
        scores = _on_text(scored, text, settings | {"column": column})
    elif own:
        scores = _on_own_tasks(scored, own, eval_data, settings | {"trust_tasks": trust_remote_code})
    else:
        if not isinstance(subject, Path):
            settings["heldout"] = subject.heldout
        scores = _on_suite(scored, suite or SUITE, eval_data, tasks, settings | {"num_fewshot": num_fewshot})
    if not isinstance(subject, Path):
        explain(subject)
    name = str(subject if isinstance(subject, Path) else subject.folder)
    if as_json:
        named = {"model": name, "suite": None if text or own else suite or SUITE}
        print(json.dumps(named | scores.plain(), indent=2))
    else:
        show_evaluation(scores.plain(), name)


def _on_suite(model: "Path | Native", suite: str, eval_data: Path | None, tasks: str, settings: dict[str, Any]) -> Any:
    from lilliput.evals.question_files import question_source
    from lilliput.evals.run_suite import evaluate_by_name

    chosen = [name.strip() for name in tasks.split(",") if name.strip()]
    with _status(suite, model, settings):
        return evaluate_by_name(model, suite, question_source(eval_data), tasks=chosen, **settings)


def _on_own_tasks(model: "Path | Native", files: list[Path], eval_data: Path | None, settings: dict[str, Any]) -> Any:
    from lilliput.evals.question_files import question_source
    from lilliput.evals.run_suite import evaluate_own

    with _status(", ".join(map(str, files)), model, settings):
        return evaluate_own(model, [file.expanduser() for file in files], question_source(eval_data), **settings)


def _on_text(model: "Path | Native", text: Path, settings: dict[str, Any]) -> Any:
    from lilliput.evals.perplexity import measure_text

    with _status(str(text), model, settings):
        return measure_text(model, text, **settings)


@contextmanager
def _status(what: str, model: "Path | Native", settings: dict[str, Any]) -> Iterator[None]:
    """Show the progress in a line."""
    with console.status(f"{model}: {what}") as status:
        settings["watcher"] = lambda progress: status.update(str(progress))
        yield


def _as_the_recipe_says(target: "Target", eval_data: Path | None, as_json: bool) -> None:
    """Evaluate the releases that are not evaluated yet, and show them all. Publishing does nothing twice.

    A read-only run shows the evaluations it recorded.
    """
    from lilliput.base.files import read_json
    from lilliput.evals.question_files import question_source
    from lilliput.run.pipeline import publish

    releases = [] if os.access(target.folder, os.W_OK) else _recorded(target.folder)
    if not releases:
        with interruptible():
            releases = publish(target.recipe, target.folder, silent if as_json else console, question_source(eval_data))
    if as_json:
        rows = [
            {"model": str(folder)} | read_json(target.folder / "evals" / f"{folder.name}.json") for folder in releases
        ]
        print(json.dumps(rows, indent=2))
        return
    for folder in releases:
        show_release(folder, target.folder)


def _recorded(run: Path) -> list[Path]:
    from lilliput.publish.releases import releases

    return [folder for folder in releases(run) if (run / "evals" / f"{folder.name}.json").is_file()]
