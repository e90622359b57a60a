"""A plan in tables that read well in 100 columns."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lilliput.base.terminal import Terminal, visible
from lilliput.base.text_units import duration, energy, flops, number, price, size
from lilliput.plan.growth_timing import timing_line

HELD = ("weights", "gradients", "optimizer", "average")

OPERATIONS = "Floating-point operations of forward and backward, through every layer that runs."
REPLACED = (
    "{by} resumes {name} before its decay: the last {steps:,} steps of {name} are no part of the model that comes out, "
    "and count neither in all nor as passes over a corpus."
)
EXACT = (
    "Exact, but without the activations of a micro-batch, which --probe measures here. Checkpoints are on the disk, "
    "the last two of a phase and the one before its decay."
)
WHOLE = (
    "The peak is that of whole steps, taken here as training takes them; activations are all of it that comes on top "
    "of what stays: workspace, too."
)
AT_LEAST = (
    "Activations are those of a micro-batch, measured here and scaled up to its rows. The workspace of losses and "
    "updates cannot be seen on this device, so the peak is the least that is needed."
)
UNSEEN = "The memory of whole steps cannot be measured on this device."
EXTRAPOLATED = (
    "Extrapolated from what was run: whole steps, or passes (forward and backward) over so many rows of one and "
    "updates of the weights. Steps alone: data, held-out measurements, checkpoints and evaluations come on top."
)
ROUGHLY = (
    "Tokens that the phases read, and token files on disk. ~ is an estimate at four bytes of text a token, by the "
    "budgets of streams and the first documents of local texts; what is encoded in the run folder is known."
)
ESTIMATED = (
    "Estimate, nothing was measured: {time} on {machine}{price}, at {utilization:.0%} of {peak} ({source}). {tested}"
    "Steps alone, as --probe there would measure them."
)
UNKNOWN = "How long it takes is known once --probe has measured it here."


def show(console: Terminal, plan: dict[str, Any]) -> None:
    """Print what `lilliput.plan.plan` made: models, phases, memory, time and price where measured, what is missing."""
    console.print(Text.assemble((visible(plan["recipe"]), "bold"), f"  {visible(plan['about'])}"))
    console.print(_models(plan))
    _note(console, f"A vocabulary of {plan['model']['vocabulary']:,} ids{' at first' if plan['growths'] else ''}.")
    for growth in plan["growths"]:
        if growth["timing"]:
            _note(console, f"{growth['name']} {timing_line(**growth['timing'])}.")
    if plan["corpora"]:
        console.print(_corpora(plan))
        if any(corpus["estimated"] and corpus["text_bytes"] for corpus in plan["corpora"]):
            _note(console, ROUGHLY)
        for corpus in plan["corpora"]:
            if corpus["unknown"]:
                _note(console, f"? The size of {corpus['name']} is {corpus['unknown']}.")
        for note in plan["license_notes"]:
            _note(console, f"License: {note}.")
    if plan["phases"]:
        console.print(_phases(plan))
        _note(console, OPERATIONS)
        for phase in plan["phases"]:
            if phase["replaced"]["steps"]:
                _note(console, REPLACED.format(**phase["replaced"] | {"name": phase["name"]}))
        console.print(_memory(plan))
        _note(console, _about_memory(plan["phases"]))
        for phase in plan["phases"]:
            if count := phase["checkpoints"]["for_good"]:
                _note(console, f"{phase['name']} keeps {_some(count, 'checkpoint')} for good, which are counted too.")
        if plan["totals"]["cost"]:
            console.print(_time(plan))
        estimate = plan["totals"]["estimate"]
        _note(console, EXTRAPOLATED if plan["totals"]["cost"] else _estimated(plan, estimate) if estimate else UNKNOWN)
    for other in plan["others"]:
        _note(console, f"{other['kind']} {other['what']}")
    if plan["not_implemented"]:
        console.print("\nThis recipe cannot run yet, these parts of it are not built:", style="bold")
        for part in plan["not_implemented"]:
            console.print(f"  {part}")


def _table(title: str, *columns: str) -> Table:
    """A table whose first column holds names, and whose others hold numbers."""
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _models(plan: dict[str, Any]) -> Table:
    table = _table("models", "parameters", "non-embedding", "state of a text", "download")
    models = [(-1, "at first", plan["model"]["parameters"], "", "")]
    for growth in plan["growths"]:
        if growth["before"] != growth["after"]:
            models.append((growth["index"], f"after {growth['name']}", growth["after"], "", ""))
    for release in plan["releases"]:
        download = f"{size(release['download_bytes'])} in {release['dtype']}"
        state = _state(release["state_bytes"])
        models.append((release["index"], release["name"], release["parameters"], state, download))
    for _, name, parameters, state, download in sorted(models, key=lambda model: model[0]):
        table.add_row(name, f"{parameters['total']:,}", f"{parameters['non_embedding']:,}", state, download)
    return table


def _state(state: dict[str, int]) -> str:
    if "fp16" in state:
        return f"{size(state['fp16'])} in fp16"
    return f"{size(state['bf16_per_token'])} a token,\n{size(state['bf16_at_context'])} at {state['context']:,}"


def _corpora(plan: dict[str, Any]) -> Table:
    table = _table("corpora", "tokens", "passes", "text", "on disk")
    table.add_column("source", overflow="fold")
    table.add_column("license", overflow="fold")
    for corpus in plan["corpora"]:
        about = "~" if corpus["estimated"] else ""
        passes, text = corpus["passes"], corpus["text_bytes"]
        table.add_row(
            corpus["name"],
            number(corpus["tokens_read"]),
            "?" if passes is None else f"{about}{passes:,.{1 if passes >= 0.1 or not passes else 2}f}",
            "?" if corpus["unknown"] else "" if text is None else f"{about}{size(text)}",  # of chats tokens are counted
            _token_files(corpus),
            corpus["source"],
            ",\n".join(corpus["licenses"]) or "?",
        )
    together = plan["totals"]["token_file_bytes"]
    if len(plan["corpora"]) > 1 and together is not None:
        about = "~" if any(corpus["estimated"] for corpus in plan["corpora"]) else ""
        table.add_section()
        table.add_row("in all", number(plan["totals"]["tokens"]), "", "", f"{about}{size(together)}")
    return table


def _token_files(corpus: dict[str, Any]) -> str:
    """Return how large they are, or will be; of those that are being written also how much is there."""
    written, expected = corpus["there"], corpus["token_file_bytes"]
    if not corpus["estimated"]:
        return size(expected)
    awaited = "?" if expected is None else f"~{size(expected)}"
    return f"{size(written)} of\n{awaited}" if written else awaited


def _phases(plan: dict[str, Any]) -> Table:
    bagged = any(phase["tokens"] != phase["positions"] for phase in plan["phases"])
    counts = ("tokens", "positions") if bagged else ("tokens",)
    table = _table("phases", "steps", "rows x len", "micro-batch", *counts, "a parameter", "operations")
    for phase in plan["phases"]:
        table.add_row(
            phase["name"],
            f"{phase['steps']:,}",
            f"{phase['rows']:,} x {phase['length']:,}",
            "what fits" if phase["micro_batches"]["rows"] is None else _some(phase["micro_batches"]["rows"], "row"),
            *(number(phase[key]) for key in counts),
            f"{phase['tokens_per_parameter']:,.1f}",
            flops(phase["operations"]),
        )
        if len({(stage["tokens_per_position"], stage["length"]) for stage in phase["stages"]}) > 1:
            for stage in phase["stages"]:
                name = f"  bags of {stage['tokens_per_position']}"
                shorter = stage["length"] != phase["length"]
                rows = f"{phase['rows']:,} x {stage['length']:,}" if shorter else ""
                cells = (*(number(stage[key]) for key in counts), "", flops(stage["operations"]) if shorter else "")
                table.add_row(name, f"{stage['steps']:,}", rows, "", *cells, style="dim")
        if (replaced := phase["replaced"])["steps"]:
            cells = (*(f"-{number(replaced[key])}" for key in counts), "", f"-{flops(replaced['operations'])}")
            table.add_row("  replaced", f"-{replaced['steps']:,}", "", "", *cells, style="dim")
    if len(plan["phases"]) > 1:
        totals = plan["totals"]
        table.add_section()
        table.add_row(
            "in all",
            f"{totals['steps']:,}",
            "",
            "",
            *(number(totals[key]) for key in counts),
            "",
            flops(totals["operations"]),
        )
    return table


def _estimated(plan: dict[str, Any], estimate: dict[str, Any]) -> str:
    money = "" if estimate["kwh"] is None else f", {energy(estimate['kwh'])}"
    if estimate["price"] is not None:
        low, high = (price(one, None) for one in estimate["price"])
        told = f", by {estimate['price_source']}" if estimate["price_source"] else ""
        money += f", {low}{'' if low == high else f' to {high}'} {estimate['currency'] or ''}".rstrip() + told
    return ESTIMATED.format(
        time=duration(estimate["seconds"]),
        machine=plan["machine"],
        price=money,
        utilization=estimate["utilization"],
        peak=f"{estimate['peak'] / 1e12:,.1f} TFLOP/s",
        source=estimate["source"],
        tested="" if estimate["is_tested"] else "Lilliput has not run on this machine. ",
    )


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _memory(plan: dict[str, Any]) -> Table:
    probed = plan["totals"]["cost"] is not None
    table = _table("memory", *HELD, *(("activations", "peak") if probed else ("together", "checkpoints")))
    for phase in plan["phases"]:
        memory = phase["memory"]
        held = [size(memory[part]) for part in HELD]
        measured = [memory["activations"], memory["peak"]]
        last = measured if probed else [sum(memory[part] for part in HELD), phase["checkpoints"]["bytes"]]
        table.add_row(phase["name"], *held, *("?" if value is None else size(value) for value in last))
    return table


def _about_memory(phases: list[dict[str, Any]]) -> str:
    measured = [phase for phase in phases if phase["cost"]]
    if not measured:
        return EXACT
    if any(phase["cost"]["updates"] for phase in measured):
        return AT_LEAST
    return UNSEEN if any(phase["memory"]["peak"] is None for phase in measured) else WHOLE


def _time(plan: dict[str, Any]) -> Table:
    total = plan["totals"]["cost"]
    table = _table(f"time on {plan['machine']}", "what was run", "a step", "tokens/s", "time", *_bill(total))
    for phase in plan["phases"]:
        cost = phase["cost"]
        if cost is None:
            table.add_row(phase["name"], "nothing")
            continue
        table.add_row(
            phase["name"],
            _what_was_run(cost),
            duration(cost["seconds_per_step"]),
            number(round(cost["tokens_per_second"])),
            duration(cost["seconds"]),
            *_bill(cost).values(),
        )
    if total["of_phases"] > 1:
        is_all = total["phases"] == total["of_phases"]
        table.add_section()
        name = "in all" if is_all else f"these {total['phases']} of {total['of_phases']}"
        table.add_row(name, "", "", "", duration(total["seconds"]), *_bill(total).values())
    return table


def _what_was_run(cost: dict[str, Any]) -> str:
    """Describe the stage of a phase that was run least."""
    least = min(cost["passes"], key=lambda one: one["count"] * one["rows"])
    if not cost["updates"]:
        return _some(least["count"], "step")
    passes = f"{least['count']} x {least['rows']:,} of {_some(least['of_rows'], 'row')}"
    return f"{passes},\n{_some(cost['updates']['count'], 'update')}"


def _bill(cost: dict[str, Any]) -> dict[str, str]:
    """Cells of what was told a price, or watts, for."""
    bill = {}
    if cost["kwh"] is not None:
        bill["energy"] = energy(cost["kwh"])
    if cost["price"] is not None:
        bill["price"] = price(cost["price"], cost["currency"])
    return bill


def _note(console: Terminal, text: str) -> None:
    console.print(text, style="dim")
