"""What a model is worth: a suite, a text, or all that its recipe says."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from lilliput.base.errors import LilliputError
from lilliput.cli.options import DeviceOption, ItemsOption, JsonOption, expanded
from lilliput.cli.pipeline import interruptible
from lilliput.cli.show import console, show_evaluation, show_release, silent
from lilliput.cli.target import target

SUITE = "open-slm"
"""Of a model folder, unless told otherwise."""

app = typer.Typer()


@app.command("eval")
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN|RECIPE", help="A model folder; or a run, whose releases are evaluated.")
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="open-slm, odinnext, mtlm or smoke. Of a run, its last release is asked then."
        ),
    ] = None,
    eval_data: ItemsOption = None,
    tasks: Annotated[str, typer.Option(help="Only these tasks of the suite, separated by commas.")] = "",
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Perplexity and bits per byte of a text instead.", callback=expanded),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many items of each task.")] = None,
    records: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every item and its likelihoods as JSON lines.", callback=expanded),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Let Python files of the model folder run that are not ours."),
    ] = False,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16 or float16.")] = "float32",
    batch_size: Annotated[int, typer.Option(help="Rows of a forward pass.")] = 16,
    as_json: JsonOption = False,
) -> None:
    """Score a model on a suite or a text, by lm-evaluation-harness; or all releases of a run as its recipe says."""
    from lilliput.api import last_release
    from lilliput.base.ownership import check_output
    from lilliput.publish.remote_code import check_code
    from lilliput.train.machine import Machine

    folder = last_release(Path(model)) or Path(model)
    if suite is None and text is None and not (Path(model) / "config.json").is_file():
        asked = {
            "--tasks": tasks,
            "--limit": limit,
            "--records": records,
            "--trust-remote-code": trust_remote_code,
        }
        for option in (name for name, value in asked.items() if value):
            raise LilliputError(
                f"{option} has no effect where a run is evaluated as its recipe says",
                where=option,
                hint="add --suite or --text, which ask the last release, or leave it out",
            )
        _as_the_recipe_says(model, eval_data, as_json)
        return
    if suite is not None and text is not None:
        raise LilliputError(
            "a suite and a text at once", where="--suite and --text", hint="ask for one after the other"
        )
    if records is not None:
        check_output(records, '"log_likelihoods": ', "--records")
    settings: dict[str, Any] = {
        "device": Machine(device=device).settled().device,
        "dtype": dtype,
        "batch_size": batch_size,
        "limit": limit,
        "records": records,
        "trust_remote_code": check_code(folder, trusted=trust_remote_code),
    }
    found = _measured(folder, text, settings) if text else _asked(folder, suite or SUITE, eval_data, tasks, settings)
    if as_json:
        print(json.dumps({"model": str(folder), "suite": None if text else suite or SUITE} | found.plain(), indent=2))
    else:
        show_evaluation(found.plain(), str(folder))


def _asked(folder: Path, suite: str, eval_data: Path | None, tasks: str, settings: dict[str, Any]) -> Any:
    from lilliput.evals.by_name import evaluate_by_name
    from lilliput.evals.items import items_of

    chosen = [name.strip() for name in tasks.split(",") if name.strip()]
    with console.status(f"{folder}: {suite}") as status:
        settings["watcher"] = lambda progress: status.update(str(progress))
        return evaluate_by_name(folder, suite, items_of(eval_data), tasks=chosen, **settings)


def _measured(folder: Path, text: Path, settings: dict[str, Any]) -> Any:
    from lilliput.evals.text import measure_text

    with console.status(f"{folder}: {text}") as status:
        settings["watcher"] = lambda progress: status.update(str(progress))
        return measure_text(folder, text, **settings)


def _as_the_recipe_says(run: str, eval_data: Path | None, as_json: bool) -> None:
    """Publishing does nothing twice: what is exported stays, what is not evaluated yet is, and the cards say so.

    A run that may be read only, somebody else's or an archived one, shows what it recorded.
    """
    from lilliput.base.files import read_json
    from lilliput.evals.items import items_of
    from lilliput.timeline import publish

    aim = target(run)
    releases = [] if os.access(aim.folder, os.W_OK) else _recorded(aim.folder)
    if not releases:
        with interruptible():
            releases = publish(aim.recipe, aim.folder, silent if as_json else console, items_of(eval_data))
    if as_json:
        rows = [{"model": str(folder)} | read_json(aim.folder / "evals" / f"{folder.name}.json") for folder in releases]
        print(json.dumps(rows, indent=2))
        return
    for folder in releases:
        show_release(folder, aim.folder)


def _recorded(run: Path) -> list[Path]:
    from lilliput.api import releases

    return [folder for folder in releases(run) if (run / "evals" / f"{folder.name}.json").is_file()]
