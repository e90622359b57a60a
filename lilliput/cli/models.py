"""Commands that use a published model: generate, chat, score, rank."""

import json
import warnings
from itertools import islice
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lilliput.base.errors import LilliputError
from lilliput.base.terminal import Terminal
from lilliput.cli.model_argument import open_model
from lilliput.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    RunOption,
    StateDtypeOption,
    TrustOption,
)
from lilliput.cli.show import console, number
from lilliput.cli.without_effect import refuse_without_effect

app = typer.Typer()
MostOption = Annotated[
    int | None, typer.Option("--max-new-tokens", help="Most tokens of an answer; the release's setting by default.")
]
SlideOption = Annotated[
    bool, typer.Option("--slide", help="Where attention's context is full, read the last part of the text alone.")
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile first, for fifteen seconds or so: worth it for thousands of tokens.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(help="Above 1 bolder, below 1 safer; 0 always takes the likeliest token.")
]


@app.command()
def generate(
    model: ModelArgument,
    prompt: Annotated[str, typer.Option(help="The text to continue; for a chat model, the question.")] = "",
    most: MostOption = None,
    greedy: Annotated[bool, typer.Option(help="Always take the likeliest token.")] = False,
    temperature: TemperatureOption = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from this many likeliest tokens; 0 for all.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample from the likeliest tokens that together have this probability.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1, tokens that occurred already become less likely.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Sample from tokens at least this many times as likely as the likeliest.")
    ] = None,
    frequency_penalty: Annotated[
        float | None, typer.Option(help="Subtracted from a token's logit for each time that it was written.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End at this text; give this option several times.")
    ] = None,
    slide: SlideOption = False,
    seed: Annotated[
        int | None, typer.Option(help="Random seed, 0 by default: the same seed writes the same text.")
    ] = None,
    raw: Annotated[
        bool, typer.Option(help="Give a chat model the prompt as it is, without its chat template.")
    ] = False,
    out: RunOption = None,
    trust_code: TrustOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "fp32",
    state_dtype: StateDtypeOption = None,
    compile: CompileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write one continuation or answer, by default with the release's own settings."""
    from lilliput.base.terminal import visible

    if greedy:
        sampled = {"--temperature": temperature, "--top-k": top_k, "--top-p": top_p, "--min-p": min_p, "--seed": seed}
        refuse_without_effect(sampled, "with --greedy, which always takes the likeliest token", "leave out --greedy")
    about = {"compile": compile, "state_dtype": state_dtype}
    loaded = open_model(str(model), out, device, dtype, trust_code=trust_code, **about)
    given = {
        "greedy": greedy or None,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
    }
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    asked = prompt if raw or loaded.chat_template is None else [{"role": "user", "content": prompt}]
    with warnings.catch_warnings(record=True, action="always") as caught:
        pieces = loaded.stream(
            asked,
            max_new_tokens=most,
            seed=seed or 0,
            stop=stop or (),
            beyond="slide" if slide else "refuse",
            **settings,
        )
        if as_json:
            print(
                json.dumps({"model": str(loaded.folder), "prompt": prompt, "seed": seed or 0, "text": "".join(pieces)})
            )
        else:
            for piece in pieces:
                print(visible(piece), end="", flush=True)
            print()
    _tell(caught)


@app.command()
def chat(
    model: ModelArgument,
    system: Annotated[str, typer.Option(help="The system message of a chat model.")] = "",
    most: MostOption = None,
    temperature: TemperatureOption = None,
    slide: SlideOption = False,
    seed: Annotated[int, typer.Option(help="The same seed and the same messages give the same answers.")] = 0,
    out: RunOption = None,
    trust_code: TrustOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "fp32",
    state_dtype: StateDtypeOption = None,
    compile: CompileOption = False,
) -> None:
    """Talk with a chat model in the terminal; a base model continues each text instead."""
    from lilliput.generate.chat import Chat, Messages

    about = {"compile": compile, "state_dtype": state_dtype}
    loaded = open_model(str(model), out, device, dtype, trust_code=trust_code, **about)
    is_base = loaded.chat_template is None
    if is_base and system:
        raise LilliputError(
            "a base model takes no system message", where="--system", hint="leave it out, or give a chat model"
        )
    if is_base:
        console.print(
            "This is a base model: it continues a text and answers nothing. `lilliput recipe copy own-chat` starts a "
            "recipe that teaches one to answer."
        )
    settings: dict[str, Any] = {} if temperature is None else {"temperature": temperature}

    def prompt(messages: Messages) -> Any:
        return messages[-1]["content"] if is_base else messages

    talk = Chat(
        lambda messages, seed: loaded.stream(
            prompt(messages), max_new_tokens=most, seed=seed, beyond="slide" if slide else "refuse", **settings
        ),
        console,
        seed=seed,
        system=system,
        max_new_tokens=lambda messages: loaded.count_tokens(prompt(messages)),
        context=loaded.context - (loaded.max_new_tokens if most is None else most),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the text ended")  # it is shown that an answer was cut, and why
        talk.hold()


@app.command()
def score(
    model: ModelArgument,
    choices: Annotated[
        list[str],
        typer.Option("--choice", help="A continuation to rank; give this option several times."),
    ],
    context: Annotated[str, typer.Option(help="The text before each choice.")] = "",
    delimiter: Annotated[
        str, typer.Option(help="Text between the context and a choice; a space by default.", show_default=False)
    ] = " ",
    out: RunOption = None,
    trust_code: TrustOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Rank texts by how likely the model finds them after a context."""
    loaded = open_model(str(model), out, device, trust_code=trust_code)
    with warnings.catch_warnings(record=True, action="always") as caught:
        scored = loaded.score(context, choices, delimiter=delimiter)
    _tell(caught)
    ranked = sorted(scored, key=lambda choice: -choice.log_likelihood)
    rows = [
        {
            "choice": choice.text,
            "log_likelihood": choice.log_likelihood,
            "per_token": choice.per_token,
            "per_character": choice.per_character,
            "tokens": choice.tokens,
            "share": choice.share,
        }
        for choice in ranked
    ]
    if as_json:
        print(json.dumps({"model": str(model), "context": context, "choices": rows}, indent=2))
        return
    console.print(_table(rows))
    console.print("log-likelihoods in nats; acc compares the sum, acc_norm the mean per character", style="dim")


@app.command()
def rank(
    model: ModelArgument,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Files of rows, a document each, or of plain text, folders, patterns."),
    ],
    column: Annotated[str, typer.Option(metavar="NAME", help="Of rows, the column of texts.")] = "text",
    most: Annotated[int, typer.Option(metavar="N", help="Read no more documents than so many.")] = 1_000,
    out: RunOption = None,
    trust_code: TrustOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Rank documents by perplexity: how likely the model finds each of them, by byte and by token."""
    from lilliput.data.corpora.files import TextFiles

    corpus = TextFiles(paths=tuple(files), text=column, null="drop")
    documents = list(islice((one for one in corpus.documents() if one.text), max(1, most)))
    loaded = open_model(str(model), out, device, trust_code=trust_code)
    rows = [
        {
            "document": documents[one.index].id,
            "bits_per_byte": one.bits_per_byte,
            "perplexity": one.perplexity,
            "tokens": one.tokens,
            "bytes": one.bytes,
        }
        for one in loaded.rank([document.text for document in documents])
    ]
    if as_json:
        print(json.dumps({"model": str(model), "documents": rows}, indent=2))
        return
    console.print(_table(rows))


def _tell(caught: list[warnings.WarningMessage]) -> None:
    """Print warnings on standard error, as lines."""
    for one in caught:
        Terminal(stderr=True).print(str(one.message), style="dim", soft_wrap=True)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(number(value) for value in row.values()))
    return table
