"""The `judge` command: replies of chat models, counted by a program and compared by a judge, side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lilliput.base.files import write_text
from lilliput.cli.model_argument import explain, find_model
from lilliput.cli.options import DeviceOption, JsonOption, JudgeEndpointOption, TrustOption, expanded
from lilliput.cli.run import interruptible
from lilliput.cli.show import console
from lilliput.cli.without_effect import refuse_without_effect

if TYPE_CHECKING:
    from lilliput.data.messages import Message
    from lilliput.publish.loaded_model import LoadedModel

app = typer.Typer()
VERDICTS, CONCURRENCY = Path("verdicts.jsonl"), 8


@app.command("judge")
def judge_command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Chat models: model folders, or runs (their last release)."),
    ],
    chats: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Conversations that no model was trained on; by default those that the first model's run held out.",
            callback=expanded,
        ),
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="Generated instructions of each kind.")] = 40,
    limit: Annotated[int, typer.Option(min=0, help="Held-out questions at most.")] = 200,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a reply.")] = 128,
    seed: Annotated[int, typer.Option(help="Decides the prompts.")] = 0,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write replies side by side to an HTML file.", callback=expanded)
    ] = None,
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write figures and replies as JSON.", callback=expanded)
    ] = None,
    pairwise: Annotated[
        str | None,
        typer.Option("--judge", metavar="NAME", help="A model at an endpoint, which says whose replies are better."),
    ] = None,
    endpoint: JudgeEndpointOption = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Keep what the judge says there; {VERDICTS} by default.", callback=expanded),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help=f"Requests to the judge at a time, {CONCURRENCY} by default.")
    ] = None,
    price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="The judge's price of a million tokens read, and written.")
    ] = None,
    trust_code: TrustOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Judge chat models by what they write: instructions, ends, loops, held-out answers; a judge may compare them."""
    from lilliput.base.ownership import check_output
    from lilliput.evals.judge import judge
    from lilliput.report.judged import scores_table, win_rates_table, write_judged_page
    from lilliput.report.page import GENERATOR
    from lilliput.run.asking import Asking, price_of
    from lilliput.run.pairwise import judge_pairs
    from lilliput.train.machine import inference_device

    if pairwise is None:
        given = {"--endpoint": endpoint, "--verdicts": verdicts, "--concurrency": concurrency, "--price": price}
        refuse_without_effect(given, "without --judge", "give --judge NAME too")
    if page is not None:
        check_output(page, GENERATOR, "--page")
    if records is not None:
        check_output(records, '"models": ', "--records")
    where, found = inference_device(device), []
    conversations = _read(chats) if chats is not None else None
    for name in models:
        chat, folder = _open(name, trust_code)
        conversations = _heldout(folder) if conversations is None else conversations
        chat.model.to(where)
        with console.status(name) as status:
            judged = judge(
                chat,
                conversations,
                each=each,
                limit=limit,
                max_new_tokens=max_new_tokens,
                seed=seed,
                report=lambda line, name=name: status.update(f"{name}: {line}"),
            )
        found.append(judged.plain())
    names = _short(models)
    value: dict[str, Any] = {"models": [{"model": name} | one for name, one in zip(models, found, strict=True)]}
    rates = []
    if pairwise is not None:
        with interruptible():
            rates = judge_pairs(
                names,
                found,
                judge=pairwise,
                path=verdicts or VERDICTS,
                asking=Asking(
                    endpoint=endpoint,
                    concurrency=CONCURRENCY if concurrency is None else concurrency,
                    price=price_of(price),
                ),
                console=console,
            )
        value["pairwise"] = {"judge": pairwise, "rates": [rate.plain() for rate in rates]}
    if records is not None:
        write_text(records, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    if page is not None:
        write_judged_page(names, found, page)
    if as_json:
        print(json.dumps(value, indent=2))
        return
    console.print(scores_table(names, [one["scores"] for one in found]).terminal())
    if rates:
        console.print(win_rates_table(rates, str(pairwise)).terminal())
    if not conversations:
        console.print("no held-out conversations: --chats FILE names some", soft_wrap=True)
    if page is not None:
        console.print(f"the replies are in {page}", soft_wrap=True)


def _open(name: str, trust_code: bool) -> "tuple[LoadedModel, Path]":
    from lilliput.publish.load import load

    found = find_model(name, None, trust_code=trust_code)
    if isinstance(found, Path):
        return load(found), found
    explain(found)
    return found.published, found.folder


def _read(file: Path) -> "list[tuple[Message, ...]]":
    from lilliput.data.corpora.chat_files import ChatFiles

    return [conversation.messages for conversation in ChatFiles(paths=(str(file),)).conversations()]


def _heldout(folder: Path) -> "list[tuple[Message, ...]]":
    """Conversations that the run of a model held out; none where there is no such run."""
    from lilliput.data.chat_rows import HELDOUT_CONVERSATIONS, read_heldout

    run = next((place for place in (folder, *folder.resolve().parents) if (place / "recipe.json").is_file()), None)
    files = sorted(run.glob(f"shards/*/{HELDOUT_CONVERSATIONS}")) if run is not None else []
    return [messages for file in files for _, messages in read_heldout(file)]


def _short(models: list[str]) -> list[str]:
    """The last names of folders, as far as they tell models apart."""
    last = [Path(name).name for name in models]
    return last if len(set(last)) == len(last) else models
