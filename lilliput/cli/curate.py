"""The `curate` command: the filtered corpora of a recipe, written once by many tasks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lilliput.base.errors import LilliputError
from lilliput.cli.options import ItemsOption, RecipeArgument, SetOption, SourceOption, expanded
from lilliput.cli.resolve import resolve
from lilliput.cli.run import interruptible
from lilliput.cli.show import console
from lilliput.cli.without_effect import refuse_without_effect

app = typer.Typer()


@app.command()
def curate(
    recipe: RecipeArgument,
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder for the shards; a curation in it is resumed.", callback=expanded),
    ],
    overrides: SetOption = [],  # noqa: B006, typer reads it
    sources: SourceOption = [],  # noqa: B006
    tasks: Annotated[int, typer.Option(help="Tasks that share a corpus; 0 for one a core.")] = 0,
    executor: Annotated[str, typer.Option(help="Where tasks run: local, slurm or ray.")] = "local",
    settings: Annotated[
        list[str],
        typer.Option(
            "--executor-setting", metavar="NAME=VALUE", help="An argument of datatrove's executor, e.g. time=20:00:00."
        ),
    ] = [],  # noqa: B006
    decontaminate: Annotated[
        bool, typer.Option(help="Drop documents that have questions which the recipe's releases are asked.")
    ] = True,
    eval_data: ItemsOption = None,
) -> None:
    """Write a recipe's filtered corpora to shards, and say what was dropped. Run again to resume after a stop."""
    from lilliput.evals.question_files import question_source
    from lilliput.run.curate import curate as run

    if not decontaminate:
        refuse_without_effect({"--eval-data": eval_data}, "with --no-decontaminate", "look for questions there")
    target = resolve(recipe, overrides=overrides, sources=sources)
    questions = question_source(eval_data) if decontaminate else None
    given = dict(map(_setting, settings))
    with interruptible():
        reports = run(target.recipe, out, console, questions=questions, tasks=tasks, executor=executor, settings=given)
    for name, report in reports.items():
        if report is None:
            console.print(f"{name}: the jobs are submitted; the same command says how far they are", soft_wrap=True)
        else:
            _show(name, report, out)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise LilliputError(f"{text!r} has no value", where="--executor-setting", hint="give NAME=VALUE")
    return name, value


def _show(name: str, report: dict[str, Any], out: Path) -> None:
    from lilliput.report.table import Column, Table

    read, kept = (report["documents"][key] for key in ("read", "kept"))
    dropped = sorted(report["dropped"].items(), key=lambda item: -item[1])
    console.print(
        Table(
            title=f"{name}: {kept:,} of {read:,} documents kept",
            columns=[
                Column(name="dropped", cells=[reason for reason, _ in dropped], is_text=True),
                Column(name="documents", cells=[f"{count:,}" for _, count in dropped]),
                Column(name="share", cells=[f"{count / read:.1%}" for _, count in dropped]),
            ],
        ).terminal()
    )
    if benchmarks := report.get("benchmarks"):
        console.print(f"{name}: compared with {', '.join(benchmarks['items']) or 'no evaluation set'}", soft_wrap=True)
        for task, why in benchmarks["absent"].items():
            console.print(f"{name}: not compared with {task}: {why}", soft_wrap=True)
    console.print(
        f"{name}: shards in {out / name}, samples of what was dropped in {out / name}.json; "
        f"--source {name}={out / name} reads them",
        soft_wrap=True,
    )
