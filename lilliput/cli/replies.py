"""The command that asks a recipe's teachers, and shows what they replied."""

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lilliput.cli.options import (
    EndpointOption,
    ItemsOption,
    OutOption,
    SetOption,
    ShrinkOption,
    SourceOption,
    TargetArgument,
    TrustOption,
)
from lilliput.cli.resolve import resolve
from lilliput.cli.run import interruptible
from lilliput.cli.show import console

app = typer.Typer()


@app.command()
def replies(
    recipe: TargetArgument,
    out: OutOption = None,
    overrides: SetOption = [],  # noqa: B006, typer reads it
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    trust_code: TrustOption = False,
    endpoint: EndpointOption = None,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.")] = 8,
    price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="Price of a million tokens of prompts, and of replies.")
    ] = None,
    eval_data: ItemsOption = None,
) -> None:
    """Ask a recipe's teachers for replies, and write a page with them. Run again to resume after a stop."""
    from lilliput.evals.question_files import question_source
    from lilliput.report.replies_page import judged, write_replies_page
    from lilliput.run import before_training
    from lilliput.run.asking import Asking, price_of

    target = resolve(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink, trust_code=trust_code)
    questions = question_source(eval_data)
    asking = Asking(endpoint=endpoint, concurrency=concurrency, price=price_of(price), questions=questions)
    with interruptible():
        found = before_training.replies(target.recipe, target.folder, console, target.command, asking=asking)
    corpora = [judged(name, one) for name, one in found.items()]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("corpus", "what became of them"):
        table.add_column(column)
    table.add_column("replies", justify="right")
    for corpus in corpora:
        for reason, count in corpus.counts.items():
            table.add_row(corpus.name, reason, f"{count:,}")
    if corpora:
        console.print(table)
        console.print(f"the replies are in {write_replies_page(corpora, target.folder)}", soft_wrap=True)
    else:
        console.print(f"the recipe {target.recipe.name} asks no teacher", soft_wrap=True)
