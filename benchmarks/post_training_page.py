"""Which steps of post-training are to be kept?

    python benchmarks/post_training_page.py RESULT.json [--out FILE.json]

Reads what `benchmarks/post_training.py` wrote. FILE.json has the differences between steps, FILE.md the tables, the
verdicts and samples. A step is compared with the one whose weights it began with, item by item on the same prompts and
texts: a figure differs where the 99% interval of the difference (jackknife over items) leaves out zero, and bits per
byte where they change by half a percent, too. A step is kept that is better in something and worse in nothing.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json, write_text
from lilliput.evals.instructions import KINDS
from lilliput.evals.judge import QUESTION
from lilliput.evals.score import jackknife_stderr

FOLLOWED, ENDS = "instructions followed", "replies that end"
LOOPS, REPEATED = "replies in a loop", "repeated runs of four"
ANSWERS, TEXTS = "held-out answers, bits per byte", "held-out texts, bits per byte"
FIGURES = {FOLLOWED: True, ENDS: True, LOOPS: False, REPEATED: False, ANSWERS: False, TEXTS: False}
"""Figures, and whether more of it is better."""
INCOHERENT = (ENDS, LOOPS, REPEATED, TEXTS)
"""Figures that show incoherence."""
COMPARED = {
    "sft": "base",
    "sft LiNeS": "sft",
    "sft aggressive LiNeS": "sft",
    "seqkd": "sft",
    "seqkd LiNeS": "seqkd",
    "seqkd aggressive LiNeS": "seqkd",
    "mean of sft and seqkd": "seqkd",
    "dpo": "seqkd",
    "dpo-hot": "seqkd",
    "seqkd, penalty 1.0": "seqkd",
    "seqkd, penalty 1.1": "seqkd",
    "seqkd, penalty 1.3": "seqkd",
}
"""Steps, and what each began with."""
LEAST = 0.005
"""Share by which bits per byte have to change to count."""
READ = {"sft": "chats", "seqkd": "replies", "dpo": "pairs", "dpo-hot": "pairs"}
"""Corpora of phases of tuning."""
TIMES = 2.576
"""Standard errors on either side of an interval of 99%."""
SAMPLES, SHOWN = 2, 400
"""Prompts of a kind among the samples, and characters of a reply."""


class Items(NamedTuple):
    """A figure's items: it is the sum of their amounts over the sum of their sizes."""

    amounts: list[float]
    sizes: list[float]

    @property
    def value(self) -> float:
        return sum(self.amounts) / sum(self.sizes)

    def without_each(self) -> list[float]:
        """The figure without each of its items."""
        amount, size = sum(self.amounts), sum(self.sizes)
        return [(amount - one) / (size - part) for one, part in zip(self.amounts, self.sizes, strict=True)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("result", type=Path)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    result = read_json(given.result)
    out = given.out or given.result.with_suffix(".page.json")
    compared = {name: comparisons(model["steps"]) for name, model in result["models"].items()}
    write_json(out, {"comparisons": compared, "verdicts": verdicts(result), "environment": environment()})
    print(write_page(result, out.with_suffix(".md")))


def items_of(step: Mapping[str, Any]) -> dict[str, Items]:
    """The items of each figure that a step was judged by."""
    replies = step["replies"]
    amounts = {
        FOLLOWED: [float(one["follows"]) for one in replies if one["follows"] is not None],
        ENDS: [float(one["closed"]) for one in replies if one["kind"] == QUESTION],
        LOOPS: [float(one["loops"]) for one in replies],
        REPEATED: [one["repeated"] for one in replies],
    }
    found = {figure: Items(each, [1.0] * len(each)) for figure, each in amounts.items()}
    for figure, key in ((ANSWERS, "answers"), (TEXTS, "texts")):
        found[figure] = Items(*([float(one[place]) for one in step[key]] for place in (0, 1)))
    return {figure: items for figure, items in found.items() if len(items.amounts) > 1}


def difference(before: Items, after: Items, more_is_better: bool) -> dict[str, Any]:
    """How much a figure changed on the same items, and what that says."""
    change = after.value - before.value
    each = [one - other for one, other in zip(after.without_each(), before.without_each(), strict=True)]
    margin = TIMES * jackknife_stderr(each)
    says, least = "no difference", LEAST * before.value if before.sizes[0] > 1 else 0.0
    if abs(change) > max(margin, least):
        says = "better" if (change > 0) == more_is_better else "worse"
    return {
        "before": before.value,
        "after": after.value,
        "difference": change,
        "low": change - margin,
        "high": change + margin,
        "items": len(each),
        "says": says,
    }


def comparisons(steps: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Differences of each step from the one that it began with, by figure."""
    items = {name: items_of(step) for name, step in steps.items()}
    return {
        step: {
            figure: difference(items[before][figure], items[step][figure], better)
            for figure, better in FIGURES.items()
            if figure in items[step] and figure in items[before]
        }
        for step, before in COMPARED.items()
        if step in items and before in items
    }


def verdicts(result: Mapping[str, Any]) -> list[str]:
    """A line for each step of each model, and one for each prediction of OdinNext's card."""
    lines, rates = [], result["settings"]["dpo_rates"]
    for name, model in result["models"].items():
        found = comparisons(model["steps"])
        lines += [f"{name}: {step} {_verdict(each, COMPARED[step])}" for step, each in found.items()]
        for step, rate in zip(("dpo", "dpo-hot"), rates, strict=True):
            worse = [figure for figure in INCOHERENT if found[step].get(figure, {}).get("says") == "worse"]
            seen = f"seen: worse in {_listed(worse, found[step])}" if worse else "not seen"
            lines.append(f"{name}: the card's prediction that DPO ends in incoherence, at a rate of {rate:g}: {seen}")
        for step in ("sft", "seqkd"):
            followed = found[f"{step} aggressive LiNeS"][FOLLOWED]
            lost = "seen" if followed["says"] == "worse" else "not seen"
            if (
                difference(*(items_of(model["steps"][one])[FOLLOWED] for one in ("base", step)), True)["says"]
                != "better"
            ):
                lost = "cannot be told: the tuned model follows no more than the base"
            figures = f"{followed['before']:.1%} to {followed['after']:.1%}"
            lines.append(
                f"{name}: the card's prediction that aggressive LiNeS loses instructions, {step}: {lost} ({figures})"
            )
    return lines


def _verdict(each: Mapping[str, Mapping[str, Any]], before: str) -> str:
    better, worse = ([figure for figure, one in each.items() if one["says"] == says] for says in ("better", "worse"))
    if not better and not worse:
        return f"against {before}: no figure differs, so it is left out"
    told = [f"{word} in {_listed(names, each)}" for word, names in (("better", better), ("worse", worse)) if names]
    choice = "it is kept" if not worse else "it is left out" if not better else "it is a trade"
    return f"against {before}: {'; '.join(told)}: {choice}"


def _listed(figures: Sequence[str], each: Mapping[str, Mapping[str, Any]]) -> str:
    def told(figure: str) -> str:
        one, form = each[figure], "{:.4f}" if figure in (ANSWERS, TEXTS) else "{:.1%}"
        before, after, low, high = (form.format(one[key]) for key in ("before", "after", "low", "high"))
        return f"{figure} ({before} to {after}, change within {low} and {high})"

    return ", ".join(map(told, figures))


def write_page(result: Mapping[str, Any], path: Path) -> str:
    """Write tables, verdicts and samples, and return all but the samples."""
    parts = ["# Steps of post-training (`benchmarks/post_training.py`)", ""]
    for name, model in result["models"].items():
        steps = dict(model["steps"]) | ({"teacher": result["teacher"]} if "teacher" in result else {})
        parts += [f"## {name}, {model['parameters']:,} parameters", "", *judging_table(steps), ""]
        parts += [*training_table(model), ""]
        told = [(phase, one) for phase, each in model.get("incidents", {}).items() for one in each]
        parts += [*(f"- {phase}, step {one['step']:,}: {one['incident']}: {one['what']}" for phase, one in told), ""]
    parts += ["## Verdicts", "", *(f"- {line}" for line in verdicts(result)), "", "## Seconds", ""]
    parts += [
        "| stage | seconds |",
        "|---|--:|",
        *(f"| {name} | {taken:.0f} |" for name, taken in result["seconds"].items()),
    ]
    parts += [f"| all | {sum(result['seconds'].values()):.0f} |", ""]
    written = []
    for name, model in result["models"].items():
        written += [f"## Samples of {name}", "", *samples(model["steps"])]
    write_text(path, "\n".join([*parts, *written]))
    return "\n".join(parts)


def judging_table(steps: Mapping[str, Any]) -> list[str]:
    """A row for each step: every figure with one standard error, kinds of instructions, and tokens of a reply."""
    kinds = [kind.metric for kind in KINDS]
    header = ["step", *FIGURES, *kinds, "tokens of a reply"]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "--:|" * (len(header) - 1)]
    for name, step in steps.items():
        items, replies = items_of(step), step["replies"]
        cells = [_cell(figure, items[figure]) if figure in items else "" for figure in FIGURES]
        for kind in kinds:
            hits = [one["follows"] for one in replies if one["kind"] == kind]
            cells.append(f"{sum(hits) / len(hits):.0%}" if hits else "")
        length = sum(one["tokens"] for one in replies) / len(replies)
        lines.append("| " + " | ".join([name, *cells, f"{length:.0f}"]) + " |")
    return lines


def training_table(model: Mapping[str, Any]) -> list[str]:
    """A row for each phase: its steps and passes, and the last numbers of training and of its held-out data."""
    lines = ["| phase | steps | passes | held-out loss | preferred pairs | margin | chosen, nats gained |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for phase, numbers in model["training"].items():
        step = next(one for one in reversed(numbers) if "heldout" not in one)
        measured = next((one["heldout"] for one in reversed(numbers) if "heldout" in one), {})
        corpus = READ.get(phase)
        cells = [f"{step['step']:,}", "", f"{next(iter(measured.values()), math.nan):.4f}"]
        if corpus:
            files = model["token_files"][corpus]
            cells[1] = f"{step['tokens'] / (files['train']['rows'] * files['length']):.2f}"
        for key in ("rewards/accuracies", "rewards/margins", "logps/chosen_change"):
            cells.append(f"{step[key]:.3f}" if key in step else "")
        lines.append(f"| {phase} | {' | '.join(cells)} |")
    return lines


def _cell(figure: str, items: Items) -> str:
    form, error = "{:.4f}" if figure in (ANSWERS, TEXTS) else "{:.1%}", jackknife_stderr(items.without_each())
    return f"{form.format(items.value)} ± {form.format(error)}"


def samples(steps: Mapping[str, Any]) -> list[str]:
    """The first prompts of each kind, with the reply of every step."""
    found = {name: {(one["kind"], one["prompt"]): one for one in step["replies"]} for name, step in steps.items()}
    prompts = list(dict.fromkeys(prompt for each in found.values() for prompt in each))
    lines = []
    for kind in dict.fromkeys(kind for kind, _ in prompts):
        for prompt in [one for one in prompts if one[0] == kind][:SAMPLES]:
            lines += [f"### {kind}", "", _quoted(prompt[1]), ""]
            for name, replies in found.items():
                if (reply := replies.get(prompt)) is not None:
                    end = "" if reply["closed"] else ", does not end"
                    lines += [f"**{name}** ({reply['tokens']} tokens{end})", "", _quoted(reply["reply"]), ""]
    return lines


def _quoted(text: str) -> str:
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
    return "\n".join(f"    {line}" for line in shown.splitlines() or [""])


if __name__ == "__main__":
    main()
