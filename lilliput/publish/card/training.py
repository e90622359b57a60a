"""Course of the training, for the card: cost and end of each phase, and incidents."""

from itertools import pairwise
from typing import Any

from lilliput.base.text_units import duration
from lilliput.publish.card.record import Part, Timeline
from lilliput.train.metrics_file import HEADLINE, WINDOW, positions_of

WHOLE = 0.99
"""Share of a recipe's tokens that counts as all of them: phases read whole steps."""
COUNTED = ("steps", "tokens", "positions", "seconds")
"""Costs of a phase that add up."""
LEAST = 0.01
"""Least share that a card states as a number, in percent."""


def training(run: Part, timeline: Timeline) -> dict[str, Any]:
    """Cost and end of each phase."""
    parameters = run["release"]["parameters"]["total"]

    def cost(phase: dict[str, Any]) -> dict[str, str]:
        return {
            "steps": f"{phase['steps']:,}",
            "tokens": f"{phase['tokens']:,}",
            "positions": f"{phase['positions']:,}",
            "per_parameter": f"{phase['tokens'] / parameters:,.2f}",
            "time": duration(phase["seconds"]),
        }

    def headline(phase: Part) -> str | None:
        return phase.plain.get(HEADLINE)

    def loss(phase: Part) -> str:
        return " ".join(filter(None, (headline(phase), f"{phase['loss']:.4f}")))

    def heldout(phase: Part) -> str:
        values = []
        for name, value in phase["heldout"].items():
            is_text = "bytes" in run["corpora"][name]["sides"]["heldout"]
            unit = "bits per byte" if is_text else "nats per token"
            values.append(f"{name} {value:.4f} {headline(phase) or unit}")
        return "; ".join(values) or "not defined"

    phases = run["phases"]
    wholes, line = ([of(phase) for phase in phases] for of in (_whole, _on_the_line))
    sums = {key: sum(phase[key] for phase in line) for key in COUNTED}
    return {
        "phases": [
            cost(whole) | {"name": phase["name"], "loss": loss(phase), "heldout": heldout(phase)}
            for phase, whole in zip(phases, wholes, strict=True)
        ],
        "together": cost(sums),
        "counts_positions": any(phase["positions"] != phase["tokens"] for phase in wholes),
        "budget": _budget(run, sums["tokens"]),
        "window": WINDOW,
        "resumed": [
            {
                "name": phase["name"],
                "by": after["name"],
                "step": f"{phase['resumed_at']['step']:,}",
                "left": f"{phase['steps'] - phase['resumed_at']['step']:,}",
            }
            for phase, after in pairwise(phases)
            if "resumed_at" in phase
        ],
        "length": f"{max((phase['length'] for phase in timeline.phases), default=0):,}",
    }


def _budget(run: Part, tokens: int) -> dict[str, str] | None:
    """Tokens of the recipe as it comes, where they are more than were read; None where that is not known."""
    whole = run.plain.get("budget")
    if whole is None or tokens >= WHOLE * whole["tokens"]:
        return None
    share = 100 * tokens / whole["tokens"]
    return {
        "tokens": f"{whole['tokens']:,}",
        "per_parameter": f"{whole['tokens'] / whole['parameters']:,.2f}",
        "share": f"{share:.2f}%" if share >= LEAST else f"less than {LEAST}%",
    }


def _on_the_line(phase: Part) -> dict[str, Any]:
    """Cost of a phase up to the released model: to the step that a later phase resumes from."""
    if "resumed_at" not in phase:
        return _whole(phase)
    left = phase["resumed_at"]
    return {
        "steps": left["step"],
        "tokens": left["tokens"],
        "positions": positions_of(left),
        "seconds": left["seconds"],
    }


def _whole(phase: Part) -> dict[str, Any]:
    """Cost of all steps of a phase."""
    return {key: phase[key] for key in ("steps", "tokens", "seconds")} | {"positions": positions_of(phase)}


def course(run: Part) -> dict[str, Any]:
    """Incidents during training.

    Returns:
        `made_with` in words (None where the record is of a run that did not note it), `changes` as pairs of a phase and
        what differs from there on, and `incidents` as rows of a table.

    Raises:
        ExportError: the record lacks something.
    """
    made_with = run.optional("made_with")
    return {
        "made_with": made_with and _made_with(made_with),
        "changes": [(_phase(change["phase"]), text) for change in run["changes"] for text in change["changed"]],
        "incidents": [
            _incident(phase["name"], incident, run["corpora"])
            for phase in run["phases"]
            for incident in phase["incidents"]
        ],
    }


def _made_with(made_with: Part) -> dict[str, str]:
    versions = {name: made_with[name] for name in ("lilliput", "torch")}
    versions |= {name: made_with[name] for name in ("triton", "cuda") if made_with.plain.get(name)}
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {"processor": made_with["processor"], "versions": words}


def _phase(folder: str) -> str:
    """The name of a phase, from the part of the run that it is."""
    return folder.rpartition("/")[2].partition("-")[2]


def _incident(phase: str, incident: Part, corpora: Part) -> dict[str, str]:
    return {
        "phase": phase,
        "step": f"{incident['step']:,}",
        "why": incident["why"],
        "back_to": f"{incident['back_to']:,}",
        "steps": f"{incident['step'] - incident['back_to']:,}",
        "left_out": ", ".join(_left_out(incident, corpora)),
    }


def _left_out(incident: Part, corpora: Part) -> list[str]:
    """Return the amount of text of each corpus between two cursors; for packed rows, the number of rows."""
    begin = incident["from"].plain
    read = ((name, end - begin.get(name, 0)) for name, end in incident["to"].items())
    return [
        f"{count:,} {'rows' if 'rows' in corpora[name]['sides']['train'] else 'tokens'} of {name}"
        for name, count in read
        if count
    ]
