"""The steps before training, each by itself: the tokenizer and the token files, and what is in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lilliput.cli.options import (
    EndpointOption,
    ItemsOption,
    OutOption,
    SetOption,
    ShrinkOption,
    SourceOption,
    TargetArgument,
    TrustOption,
    expanded,
)
from lilliput.cli.resolve import resolve
from lilliput.cli.run import interruptible, say
from lilliput.cli.show import console
from lilliput.cli.without_effect import refuse_without_effect

if TYPE_CHECKING:
    from lilliput.run.run_data import RunData

app = typer.Typer()
ReportOption = Annotated[bool, typer.Option("--report", help="Write a page about what the run has of it.")]
PageOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="With --report: the page, elsewhere.", callback=expanded)
]
ROWS = 3
"""Rows that are shown by default."""


@app.command()
def tokenizer(
    recipe: TargetArgument,
    out: OutOption = None,
    overrides: SetOption = [],  # noqa: B006, typer reads it
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    trust_code: TrustOption = False,
    report: ReportOption = False,
    beside: Annotated[
        list[str],
        typer.Option(
            "--beside",
            metavar="FOLDER|MODEL",
            help="With --report: another tokenizer, by its folder, a run, or a model's name on the hub.",
        ),
    ] = [],  # noqa: B006
    page: PageOption = None,
) -> None:
    """Train the tokenizer of a recipe, and nothing more. --report looks at that of a run as it is."""
    if not report:
        refuse_without_effect({"--beside": beside, "--page": page}, "without --report", "give --report too")
    if report:
        given = {"--set": overrides, "--source": sources, "--shrink": shrink}
        refuse_without_effect(given, "with --report, which reads the run as it is", "train the tokenizer first")
        _report_tokenizer(_looked_at(recipe, out, trust_code), beside, page)
        return
    from lilliput.run import before_training

    target = resolve(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink, trust_code=trust_code)
    with interruptible():
        before_training.tokenizer(target.recipe, target.folder, console, target.command)
    say(f"the tokenizer is in {target.folder / 'tokenizer'}")


@app.command()
def data(
    recipe: TargetArgument,
    out: OutOption = None,
    overrides: SetOption = [],  # noqa: B006
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    trust_code: TrustOption = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every token file again, even if it looks unchanged.")
    ] = False,
    endpoint: EndpointOption = None,
    eval_data: ItemsOption = None,
    show: Annotated[bool, typer.Option("--show", help="Print rows as training reads them, and write nothing.")] = False,
    phase: Annotated[
        str | None, typer.Option(metavar="PHASE", help="With --show: the phase; the first by default.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(metavar="STEP", help="With --show: rows from this step on, counted from 1.", min=1)
    ] = None,
    rows: Annotated[
        int | None, typer.Option(metavar="N", help=f"With --show: the number of rows, {ROWS} by default.", min=1)
    ] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="With --show: ids of documents too, for which their corpora are read again.")
    ] = False,
    report: ReportOption = False,
    page: PageOption = None,
) -> None:
    """Tokenize a recipe's corpora, after training its tokenizer. Run again to resume after a stop.

    --show and --report look at the data of a run as it is; data.html has sizes, drops, duplicates and the mixture.
    """
    if not report:
        refuse_without_effect({"--page": page}, "without --report", "give --report too")
    if not show:
        given = {"--phase": phase, "--step": step, "--rows": rows, "--ids": ids}
        refuse_without_effect(given, "without --show", "give --show too")
    if show or report:
        given = {"--set": overrides, "--source": sources, "--shrink": shrink, "--verify": verify}
        given |= {"--endpoint": endpoint, **({} if report else {"--eval-data": eval_data})}
        other = "--report" if report else "--show"
        refuse_without_effect(given, f"with {other}, which reads the run as it is", f"tokenize first, without {other}")
        found = _looked_at(recipe, out, trust_code)
        if show:
            _show(found, phase, step or 1, rows or ROWS, with_ids=ids)
        if report:
            _report(found, page, eval_data)
        return
    from lilliput.evals.question_files import question_source
    from lilliput.run import before_training
    from lilliput.run.asking import Asking

    target = resolve(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink, trust_code=trust_code)
    asking = Asking(endpoint=endpoint, questions=question_source(eval_data))
    with interruptible():
        before_training.data(target.recipe, target.folder, console, target.command, verify=verify, asking=asking)
    say(f"the token files are in {target.folder / 'shards'}{', and as they were written' if verify else ''}")


def _looked_at(name: str, out: Path | None, trust_code: bool) -> "RunData":
    """Return the data of an existing run, by its folder or the name of its recipe."""
    from lilliput.cli.trust import meet
    from lilliput.publish.releases import folder_named
    from lilliput.run.run_data import RunData

    folder = out or folder_named(Path(name))
    meet(folder, trusted=trust_code)
    return RunData(folder)


def _show(found: "RunData", phase: str | None, step: int, rows: int, *, with_ids: bool) -> None:
    from lilliput.report.training_rows import LEGEND, row_lines

    shown = found.rows(found.phase(phase), step, rows)
    numbers: dict[str, set[int]] = {}
    for source in (row.source for row in shown if row.source and with_ids):
        numbers.setdefault(source.corpus, set()).update(one for one in source.documents if one >= 0)
    ids = {name: found.document_ids(name, some) for name, some in numbers.items() if some}
    for row in shown:
        known = ids.get(row.source.corpus) if row.source else None
        for line in row_lines(row.number, row.source, row.documents, are_pairs=row.is_of_pairs, ids=known):
            console.print(line, soft_wrap=True)
    console.print(LEGEND, style="dim")


def _report(found: "RunData", page: Path | None, eval_data: Path | None) -> None:
    from lilliput.base.ownership import check_output
    from lilliput.evals.question_files import question_source
    from lilliput.report.data_page import PAGE, mixture_table, size_table, write_data_page
    from lilliput.report.duplicates import duplicate_table, searched
    from lilliput.report.page import GENERATOR
    from lilliput.run.data_facts import data_facts

    if page is not None:
        check_output(page, GENERATOR, "--page")
    with console.status("data") as status:
        facts = data_facts(found, question_source(eval_data) if eval_data else None, report=status.update)
    console.print(size_table(facts.corpora).terminal())
    console.print(mixture_table(facts.mixture).terminal())
    console.print(duplicate_table(facts.duplicates).terminal())
    say(searched(facts.duplicates))
    say(f"the page is {write_data_page(facts, found.folder, page or found.folder / PAGE)}")


def _report_tokenizer(found: "RunData", beside: list[str], page: Path | None) -> None:
    from lilliput.base.ownership import check_output
    from lilliput.report.page import GENERATOR
    from lilliput.report.tokenizer_page import PAGE, bytes_per_token_table, write_tokenizer_page
    from lilliput.run.tokenizer_facts import tokenizer_facts

    if page is not None:
        check_output(page, GENERATOR, "--page")
    with console.status("tokenizer"):
        facts = tokenizer_facts(found, beside)
    console.print(bytes_per_token_table(facts.names, [*facts.corpora, *facts.kinds], "text").terminal())
    say(f"of {facts.vocabularies[0]:,} ids {facts.unused:,} occur in no training text")
    say(f"the page is {write_tokenizer_page(facts, found.folder, page or found.folder / PAGE)}")
