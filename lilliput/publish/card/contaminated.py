"""Benchmark items that a model's training text gives away, as its card tells of them."""

from typing import Any

from lilliput.publish.card.markdown import NOTHING
from lilliput.publish.card.record import Part


def contaminated(evaluation: Part) -> dict[str, Any] | None:
    """Return what was found, as cells of a table, and what was not; None of an evaluation that did not search."""
    found = evaluation.plain.get("contamination")
    if not found:
        return None
    if "unknown" in found:
        return {"unknown": found["unknown"]}
    rows = [
        {
            "task": score["task"],
            "metric": score["metric"],
            "overlapped": f"{score['overlapped']:,} of {score['items']:,}",
            "value": f"{score['value']:.1%}",
            "clean": _percent(score["clean"]),
            "stderr": _percent(score["clean_stderr"]),
        }
        for score in found["scores"]
        if score["overlapped"]
    ]
    return {
        "unknown": None,
        "rows": rows,
        "free": list(dict.fromkeys(score["task"] for score in found["scores"] if not score["overlapped"])),
        "texts": [(name, f"{tokens:,}") for name, tokens in found["texts"].items()],
        "short": [(task, f"{count:,}") for task, count in found["short"].items() if count],
    }


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.1%}"
