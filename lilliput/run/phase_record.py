"""A trained phase as its metrics and its own record tell it: cost, end and incidents, for cards."""

from typing import Any

from lilliput.base.run_folder import RunFolder
from lilliput.train.metrics_file import (
    Line,
    headline_entry,
    headline_of,
    measured_of,
    positions_of,
    read_metrics,
    recent_loss,
    released,
    steps_of,
)


def phase_record(run: RunFolder, name: str, left_at: int | None) -> dict[str, Any]:
    """Return what a card says of a phase, as far as the model was there for it.

    Args:
        run: the run folder.
        name: folder of the phase, relative to the run.
        left_at: the step that a later phase resumes from; None where none does.
    """
    lines = read_metrics(run.path / name / "metrics.jsonl")
    steps, measured = steps_of(lines), measured_of(lines)
    inherited = [step for step in steps if left_at is None or step["step"] <= left_at]
    seconds = sum(step["seconds"] for step in inherited)
    left = {"step": left_at, **_read(inherited[-1]), "seconds": seconds}
    return ({} if left_at is None else {"resumed_at": left}) | {
        "name": name.rpartition("/")[2].partition("-")[2],
        "steps": steps[-1]["step"],
        **_read(steps[-1]),
        "seconds": sum(step["seconds"] for step in steps),
        "loss": recent_loss(steps),
        **headline_entry(headline_of(steps[-1])),
        "heldout": released(measured[-1]) if measured else {},
        "incidents": run.record(name)["outputs"].get("incidents", []),
    }


def _read(step: Line) -> dict[str, int]:
    """Tokens that were read by a step, and the positions where these are others: with bags of tokens."""
    positions = positions_of(step)
    return {"tokens": step["tokens"]} | ({} if positions == step["tokens"] else {"positions": positions})
