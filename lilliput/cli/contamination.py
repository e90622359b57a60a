"""The `contamination` command: public questions that a run has trained on, and scores without them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lilliput.cli.options import ItemsOption, JsonOption, TrustOption
from lilliput.cli.show import console

app = typer.Typer()


@app.command("contamination")
def contamination_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run whose releases were evaluated.")],
    eval_data: ItemsOption = None,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Look for the questions of its releases in a run's own training text, and score the items that are left."""
    from lilliput.cli.trust import meet
    from lilliput.evals.question_files import question_source
    from lilliput.report.table import Column, Table
    from lilliput.run.contamination import contamination

    meet(run, trusted=trust_code)
    with console.status("contamination") as status:
        found = contamination(run, question_source(eval_data), report=lambda line: status.update(line))
    if as_json:
        print(json.dumps(found.plain(), indent=2))
        return
    scores = found.scores
    console.print(
        Table(
            title=f"{run}: items whose text is in the training text, and scores without them",
            columns=[
                Column(name="release", cells=[one.release for one in scores], is_text=True),
                Column(name="task", cells=[one.task for one in scores], is_text=True),
                Column(name="metric", cells=[one.metric for one in scores], is_text=True),
                Column(name="in text", cells=[f"{one.overlapped:,} of {one.items:,}" for one in scores]),
                Column(name="all", cells=[f"{one.value:.1%}" for one in scores]),
                Column(name="clean", cells=[_percent(one.clean) for one in scores]),
                Column(name="± 1 s.e.", cells=[_percent(one.clean_stderr) for one in scores]),
            ],
        ).terminal()
    )
    looked = ", ".join(f"{tokens:,} tokens of {name}" for name, tokens in found.texts.items())
    console.print(f"looked through {looked}", soft_wrap=True)
    if short := {task: count for task, count in found.short.items() if count}:
        told = ", ".join(f"{count:,} of {task}" for task, count in short.items())
        console.print(f"too short to be told from everyday phrases: {told}", soft_wrap=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
