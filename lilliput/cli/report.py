"""Commands that show runs: report, compare and leaderboard."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lilliput.base.errors import LilliputError
from lilliput.cli.options import JsonOption, TrustOption, expanded
from lilliput.cli.show import console

app = typer.Typer()


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run; it may still be training.")],
    trust_code: TrustOption = False,
) -> None:
    """Write report.html: a run's curves and figures on one page. Training writes it too, after each measurement."""
    from lilliput.cli.trust import meet
    from lilliput.report.page import write_report

    is_whole = meet(run, trusted=trust_code)
    console.print(f"the report is {write_report(run)}", soft_wrap=True)
    if not is_whole:
        console.print(
            "it leaves out what needs the run's own code: read the code, then add --trust-code", soft_wrap=True
        )


@app.command("compare")
def compare_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Two or more run folders, phases (runs/a:pretrain), releases, or two files of --records. The first is "
            "the baseline.",
        ),
    ],
    heldout: Annotated[str | None, typer.Option(metavar="CORPUS", help="The held-out text to compare on.")] = None,
    at: Annotated[float | None, typer.Option(metavar="BITS", help="The bits per byte at which to compare.")] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the curves to an HTML file.", callback=expanded)
    ] = None,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the tokens and time that runs need to the same held-out bits per byte, or all figures of releases.

    Two releases, or files of `eval --records`, are compared item by item as well.
    """
    from lilliput.base.ownership import check_output
    from lilliput.cli.trust import meet
    from lilliput.report.comparison import compare
    from lilliput.report.comparison_page import write_page
    from lilliput.report.comparison_table import says, table
    from lilliput.report.heldout_curve import folder_of
    from lilliput.report.page import GENERATOR
    from lilliput.report.release_scores import is_record, is_release

    if any(is_release(run) or is_record(run) for run in runs):
        _compare_releases(runs, {"--heldout": heldout, "--at": at, "--page": page}, as_json)
        return
    if page is not None:
        check_output(page, GENERATOR, "--page")
    for run in runs:
        meet(folder_of(run), trusted=trust_code)
    found = compare(*runs, corpus=heldout, at=at)
    if page is not None:
        write_page(found, page)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console.print(table(found))
    for line in (*says(found), "", *found["notes"], *([f"the curves are in {page}"] if page else [])):
        console.print(line)


@app.command("leaderboard")
def leaderboard_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs, with all their releases, or of releases.")
    ],
    score: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="An average (avg_slm), or a task and a metric (PIQA/acc)."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the table and its charts to an HTML file.", callback=expanded),
    ] = None,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """List releases by one score, with intervals, parameters and compute; --page draws them."""
    from lilliput.base.ownership import check_output
    from lilliput.cli.trust import meet
    from lilliput.report.leaderboard_page import leaderboard_table, says, write_leaderboard
    from lilliput.report.page import GENERATOR
    from lilliput.run.leaderboard import leaderboard

    if page is not None:
        check_output(page, GENERATOR, "--page")
    for run in runs:
        if (run / "recipe.json").is_file():
            meet(run, trusted=trust_code)
    found = leaderboard(runs, score=score).plain()
    if page is not None:
        write_leaderboard(found, page)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console.print(leaderboard_table(found).terminal())
    for line in (*says(found), *([f"the charts are in {page}"] if page else [])):
        console.print(line, soft_wrap=True)


def _compare_releases(folders: list[str], options: dict[str, object], as_json: bool) -> None:
    from lilliput.report.release_scores import (
        differences_table,
        is_record,
        is_release,
        paired,
        release_scores,
        release_table,
    )

    given = [name for name, value in options.items() if value is not None]
    are_files = all(map(is_record, folders))
    if given or not (are_files or all(map(is_release, folders))):
        strange = next((folder for folder in folders if not is_release(folder)), None)
        raise LilliputError(
            f"{strange} is no release, others are" if strange else f"{given[0]} has no effect on releases",
            where="lilliput compare",
            hint="compare runs with runs, and releases with releases; lilliput judge --page shows replies side by side",
        )
    if are_files and len(folders) != 2:
        raise LilliputError(f"there are {len(folders)} files of items", where="lilliput compare", hint="give two")
    found = {} if are_files else release_scores(folders)
    try:
        pairs = paired(folders) if len(folders) == 2 else []
    except LilliputError:
        if are_files:
            raise
        pairs = []  # of releases whose items are others, or were not recorded, the scores are all there is
    if as_json:
        print(json.dumps(found | {"paired": [one.plain() for one in pairs]}, indent=2))
        return
    if found:
        console.print(release_table(found).terminal())
    if pairs:
        console.print(differences_table(pairs).terminal())
