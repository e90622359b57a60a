"""Rolls back to the last checkpoint after a step that the guard refused, and skips the text since then.

The step itself is only where it showed: the weights were led there by the text before it, too. So all that was read
since the checkpoint is left out. `checkpoints/incidents.json` has what happened, written before anything goes on:
whoever reads the text where an incident's window begins reads where it ends, in this process and in every later one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lilliput.base.errors import DivergenceError, RunError
from lilliput.base.files import read_json, verify_checksum, with_checksum, write_json
from lilliput.data.batch import Cursor
from lilliput.train.checkpoint import Progress

FILE = "incidents.json"


class LossSpike(Exception):
    """A step that was not taken.

    Args:
        why: what is wrong with it.
        step: it, from 1.
        cursor: after its text.
    """

    def __init__(self, why: str, step: int, cursor: Cursor):
        super().__init__(why)
        self.why, self.step, self.cursor = why, step, cursor


class Incidents:
    """Incidents of a phase, in order, and the windows of text that they left out."""

    def __init__(self, folder: Path, *, writes: bool = True):
        """Read the incidents of a folder of checkpoints, also on ranks that do not write."""
        self._path, self._writes = folder / FILE, writes
        self.records = read_incidents(folder)

    def skip(self, cursor: Cursor) -> Cursor:
        """Return where to read on: behind the last window that begins here, if one does."""
        windows = {Cursor.from_plain(record["from"]): Cursor.from_plain(record["to"]) for record in self.records}
        return windows.get(cursor, cursor)

    def numbers(self, step: int) -> dict[str, float]:
        """Return what to record of step `step` (from 1): how many of them it comes after, if any."""
        count = sum(record["back_to"] < step for record in self.records)
        return {"incidents": count} if count else {}

    def add(self, incident: LossSpike, back: Progress, most: int, where: str) -> None:
        """Note one that leads back to a checkpoint.

        Raises:
            DivergenceError: it is the `most`-th that leads there, and is not noted: the same would happen again.
        """
        again = sum(record["back_to"] == back.step for record in self.records) + 1
        if again >= most:
            raise DivergenceError(
                f"{incident.why}; this is incident {again} after the checkpoint of step {back.step}",
                where=f"step {incident.step} of {where}",
                hint=f"the checkpoint is intact; {_advice(incident.why)}",
            )
        record = {
            "step": incident.step,
            "why": incident.why,
            "back_to": back.step,
            "from": back.cursor.to_plain(),
            "to": incident.cursor.to_plain(),
        }
        self.records = [*self.records, record]
        if self._writes:
            write_json(self._path, with_checksum({"incidents": self.records}))


def _advice(why: str) -> str:
    if "not finite" in why:
        return "begin the phase again with a lower learning rate, or with --machine of another precision (bf16, fp32)"
    return (
        "the learning rate is too high (lower it, or warm up longer), or the text there is unlike what came before "
        "(look at it; guard=NoGuard() in the phase takes it as it is)"
    )


def read_incidents(folder: Path) -> Sequence[dict[str, Any]]:
    """The incidents of a phase whose checkpoints are in a folder: `step`, `why`, `back_to`, `from` and `to` of each.

    Raises:
        RunError: the record of them is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        return verify_checksum(read_json(path))["incidents"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"the record of incidents is damaged ({error})",
            where=str(path),
            hint="put it back from a copy; without it, text that was skipped would be read",
        ) from error
