"""Prints results in the terminal."""

import os
import sys
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lilliput.base.files import read_json
from lilliput.base.terminal import Terminal

console = Terminal(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100)
silent = Terminal(quiet=True)
"""Console of commands that print JSON."""


def number(value: Any) -> str:
    """Format a value as a table cell."""
    match value:
        case None:
            return ""
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4f}"
        case _:
            return str(value)


def score_table(scores: list[dict[str, Any]], title: str) -> Table:
    """Make a table of scores with their chance level and standard error."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("task")
    table.add_column("metric")
    for column in ("value", "± 1 s.e.", "chance", "n"):
        table.add_column(column, justify="right")
    for score in scores:
        keys = ("task", "metric", "value", "stderr", "chance", "items")
        table.add_row(*(number(score[key]) for key in keys))
    return table


def show_evaluation(evaluation: dict[str, Any], title: str) -> None:
    """Print scores and averages of a model."""
    table = score_table(evaluation["scores"], title)
    for task in evaluation.get("absent", {}):
        table.add_row(task, "", "file absent")
    console.print(table)
    for score in (score for score in evaluation["scores"] if score["note"]):
        console.print(f"  {score['task']}, {score['metric']}: {score['note']}", soft_wrap=True)
    for average in evaluation["averages"]:
        stderr = average["stderr"]
        shares = f"{100 * average['value']:.2f}{'' if stderr is None else f' ± {100 * stderr:.2f}'}"
        console.print(f"  {average['name']}: {shares}  [{average['formula']}]", soft_wrap=True)


def show_release(folder: Path, run: Path) -> None:
    """Print a release's evaluation and one of its samples."""
    evaluation = read_json(run / "evals" / f"{folder.name}.json")
    show_evaluation(evaluation, str(folder))
    for name, value in evaluation["baselines"].items():
        console.print(f"  for scale, held-out bits per byte of {name.replace('_', ' ')}: {value:.4f}", soft_wrap=True)
    sample = evaluation["samples"][0]
    console.print()
    console.print(sample["prompt"], style="bold")
    console.print(sample["text"].strip())
    if others := len(evaluation["samples"]) - 1:
        console.print(f"(lilliput report {run} shows {others} more)", soft_wrap=True)
    console.print(f"\nthe model is in {folder}; its card is {folder / 'README.md'}\n", soft_wrap=True)
