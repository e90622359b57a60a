"""Checks a published folder against its records: the card is made again, and its figures, tables and scores are theirs.

The record lies beside the card. Where the folder is still in its run, the record itself is compared with what the run
measured: the metrics of each phase, the text, the scores, and the items that these count.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import ExportError, reading
from lilliput.base.files import read_json
from lilliput.base.run_folder import RunFolder, differences
from lilliput.base.safetensors_headers import read_headers
from lilliput.evals.recount import ITEMS_FILE, contradictions, recounted
from lilliput.evals.suites import Suite, named
from lilliput.publish.card.altered import compare
from lilliput.publish.card.card import card
from lilliput.publish.card.travelling import HINT, read_record
from lilliput.publish.export import CARD_FILE, WEIGHTS_FILE
from lilliput.publish.load import verified
from lilliput.run.phase_record import phase_record

AGAIN = "undo these edits, or remove README.md and publish the release again, which writes the card again"
MOST = 8
"""Contradictions that an error names."""


@dataclass(frozen=True, kw_only=True)
class TracedCard:
    """A published folder whose figures were found true to its records."""

    folder: Path
    figures: int
    """Numbers on the card that are those of the card made again."""
    parameters: int
    items: int | None
    """Items whose scores were counted again; None where the folder is not in its run, or has none."""
    added: tuple[str, ...]
    """Lines with numbers that somebody added to the card."""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"folder": str(self.folder), "added": list(self.added)}

    def __str__(self) -> str:
        said = [
            f"{self.figures:,} figures on the card are those of the record",
            f"{self.parameters:,} parameters in the weights",
            *([] if self.items is None else [f"scores counted again from {self.items:,} items"]),
        ]
        return f"{self.folder}: {', '.join(said)}"


def verify_release(folder: Path) -> TracedCard:
    """Check a published folder.

    Args:
        folder: of a release, in its run or anywhere else.

    Raises:
        ExportError: there is no record, a figure of the card is not the record's, or the records contradict each other
            or the weights.
        RunError: a file of the folder is missing or changed.
        RecipeError: the record needs a type that is not installed.
    """
    release = verified(folder)
    record = read_record(folder)
    run = _run_of(folder)
    with reading(folder, HINT, "the record is not one of a card", kind=ExportError):
        suite = named(record["release"]["suite"])
        found = [*_of_weights(folder, release, record), *contradictions(record["evaluation"], suite)]
        items = None
        if run is not None:
            found += _of_run(run, folder.resolve().name, record)
            items, more = _of_items(run, folder.resolve().name, record, suite)
            found += more
        try:
            fresh = card(record)
        except ExportError as error:
            raise _refusal(folder, [*found, error.what]) from error
    with reading(folder / CARD_FILE, AGAIN, "the card cannot be read", kind=ExportError):
        compared = compare(_read_card(folder), fresh)
    if found or compared.altered:
        raise _refusal(folder, [*compared.altered, *found])
    return TracedCard(
        folder=folder,
        figures=compared.figures,
        parameters=record["release"]["parameters"]["total"],
        items=items,
        added=compared.added,
    )


def _of_weights(folder: Path, release: dict[str, Any], record: dict[str, Any]) -> Iterator[str]:
    """Say what the weights are other than the record has it."""
    stored, said = folder / WEIGHTS_FILE, record["release"]
    if release["files"].get(WEIGHTS_FILE) != said["sha256"]:
        yield f"{WEIGHTS_FILE} has the SHA-256 {release['files'].get(WEIGHTS_FILE)}, the record {said['sha256']}"
    if stored.stat().st_size != said["bytes"]:
        yield f"{WEIGHTS_FILE} has {stored.stat().st_size:,} bytes, the record {said['bytes']:,}"
    for file in (*said.get("gguf", []), *said.get("int8", [])):
        if release["files"].get(file["file"]) != file["sha256"]:
            yield f"{file['file']} has another SHA-256 than the record"
    counted = sum(tensor.elements for tensor in read_headers(folder).values())
    if counted != said["parameters"]["total"]:
        yield f"the headers of {WEIGHTS_FILE} hold {counted:,} parameters, the record {said['parameters']['total']:,}"
    if record["evaluation"].get("weights", said["sha256"]) != said["sha256"]:
        yield "the scores are those of other weights"


def _of_run(run: RunFolder, name: str, record: dict[str, Any]) -> Iterator[str]:
    """Say what the run has measured other than the record has it."""
    scores = run.read(f"evals/{name}.json") or {}
    measured = {key: scores.get(key) for key in ("scores", "averages", "baselines", "versions", "contamination")}
    yield from differences(measured, {key: record["evaluation"].get(key) for key in measured}, "evaluation")
    folders = {path.name.partition("-")[2]: f"phases/{path.name}" for path in (run.path / "phases").glob("*-*")}
    for index, phase in enumerate(record["phases"]):
        left_at = phase.get("resumed_at", {}).get("step")
        if phase["name"] not in folders:
            yield f"the run has no phase {phase['name']}"
        else:
            yield from differences(phase_record(run, folders[phase["name"]], left_at), phase, f"phases.{index}")
    for corpus, sides in record["corpora"].items():
        yield from differences(run.record(f"shards/{corpus}").get("outputs"), sides, f"corpora.{corpus}")


def _of_items(run: RunFolder, name: str, record: dict[str, Any], suite: Suite) -> tuple[int | None, list[str]]:
    items = run.path / "evals" / name / ITEMS_FILE
    return recounted(record["evaluation"], suite, items) if items.is_file() else (None, [])


def _run_of(folder: Path) -> RunFolder | None:
    """The run that a release is in; None for a folder elsewhere."""
    path = folder.resolve()
    run = path.parent.parent
    is_in_run = path.parent.name == "releases" and (run / "recipe.json").is_file()
    return RunFolder(run) if is_in_run and "timeline" in (read_json(run / "recipe.json") or {}) else None


def _read_card(folder: Path) -> str:
    file = folder / CARD_FILE
    if not file.is_file():
        raise ExportError(f"there is no {CARD_FILE}", where=str(folder), hint=HINT)
    with reading(file, HINT, "the card cannot be read", kind=ExportError):
        return file.read_text(encoding="utf-8")


def _refusal(folder: Path, found: list[str]) -> ExportError:
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return ExportError(
        f"the card and its records contradict each other: {'; '.join(found[:MOST])}{more}",
        where=str(folder / CARD_FILE),
        hint=f"{AGAIN}; figures of your own belong in sentences, and new scores in an evaluation",
    )
