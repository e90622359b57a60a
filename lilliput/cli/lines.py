"""The `lines` command: how much of fine-tuning to keep in which layer."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from lilliput.base.errors import LilliputError
from lilliput.base.files import write_text
from lilliput.cli.options import DeviceOption, JsonOption, TrustOption, expanded
from lilliput.cli.show import console

app = typer.Typer()


@app.command("lines")
def lines_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a trained run.")],
    phase: Annotated[
        str | None, typer.Option(metavar="NAME", help="The phase with the pretrained weights; the first by default.")
    ] = None,
    alpha: Annotated[
        str, typer.Option(metavar="A,B,C", help="Shares of the change that the first layer keeps; the last keeps all.")
    ] = "0,0.25,0.5,0.75,1",
    weights: Annotated[
        Literal["last", "average"] | None,
        typer.Option(help="Weights of that phase; by default those that the timeline went on from."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Held-out conversations at most.")] = 200,
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table as JSON.", callback=expanded)
    ] = None,
    trust_code: TrustOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Sweep LiNeS over a run: held-out text and answers as early layers go back to pretrained weights."""
    from lilliput.base.ownership import check_output
    from lilliput.cli.trust import meet
    from lilliput.report.table import Column, Table
    from lilliput.run.lines import sweep_lines

    if records is not None:
        check_output(records, '"lines": ', "--records")
    meet(run, trusted=trust_code)
    with console.status("LiNeS") as status:
        growth, points = sweep_lines(
            run,
            phase=phase,
            alphas=_numbers(alpha),
            weights=weights,
            limit=limit,
            device=device,
            report=lambda line: status.update(f"LiNeS: {line}"),
        )
    value = {"lines": [one.plain() for one in points], "phase": growth.phase, "weights": growth.weights}
    if records is not None:
        write_text(records, json.dumps(value, indent=2) + "\n")
    if as_json:
        print(json.dumps(value, indent=2))
        return
    answers = [_with_error(one.answers, one.answers_stderr) for one in points]
    texts = {name: [f"{one.texts[name]:.4f}" for one in points] for name in points[0].texts}
    console.print(
        Table(
            title=f"held-out bits per byte, from the {growth.weights} weights of {growth.phase}; lower is better",
            columns=[
                Column(name="alpha", cells=[f"{one.alpha:g}" for one in points]),
                Column(name="beta", cells=[f"{one.beta:g}" for one in points]),
                *([Column(name="answers", cells=answers)] if any(answers) else []),
                *(Column(name=name, cells=cells) for name, cells in texts.items()),
            ],
        ).terminal()
    )
    entry = f'LiNeS(phase="{growth.phase}", alpha=..., beta=..., weights="{growth.weights}")'
    console.print(f"in a timeline, after the last phase: {entry}", soft_wrap=True)


def _with_error(value: float | None, stderr: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if stderr is None else f"{value:.4f} ± {stderr:.4f}"


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise LilliputError(
            f"{text!r:.80} are no numbers", where="--alpha", hint="give some, such as 0,0.25,0.5,0.75,1"
        ) from error
