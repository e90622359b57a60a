"""`record.json`: the record that a card was made from, beside the card, so that anybody can make the card again.

It says what the card says and no more: of folders of somebody's machine it has as much as the card shows.
"""

import re
from pathlib import Path
from typing import Any

from lilliput.base.errors import ExportError, reading
from lilliput.base.files import read_json, verify_checksum, with_checksum, write_json
from lilliput.publish.card.record import Part, Timeline
from lilliput.publish.card.reproduce import PRIVATE, shown_paths

RECORD_FILE = "record.json"
HINT = "publish the release again, or fetch the folder again"


def public_record(record: dict[str, Any]) -> dict[str, Any]:
    """The same record for others to read: without what comes after the release, and of paths from a root or a home
    only the end that the card shows.
    """
    timeline = Timeline(Part(record))
    names, recipe = timeline.corpora(), record["recipe"]
    kept = {
        "corpora": {name: recipe["corpora"][name] for name in names},
        "timeline": recipe["timeline"][: timeline.end + 1],
        "tokenizer": recipe["tokenizer"],
        "model": recipe["model"],
    }
    return record | {
        "recipe": recipe | _shortened(kept),
        "corpora": {name: record["corpora"][name] for name in names},
        "command": record["command"] and _command(record["command"]),
    }


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a release into its folder."""
    write_json(folder / RECORD_FILE, with_checksum(public_record(record)))


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a release.

    Raises:
        ExportError: there is none, or it is not as it was written.
    """
    file = folder / RECORD_FILE
    if not file.is_file():
        raise ExportError(
            f"there is no {RECORD_FILE}, so that no figure of the card can be traced",
            where=str(folder),
            hint="releases of earlier versions have none: `lilliput publish` on the run writes it",
        )
    with reading(file, HINT, "the record is damaged", kind=ExportError):
        record = verify_checksum(read_json(file))
        if not isinstance(record, dict):
            raise ValueError("it is no object")
        return record


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and re.match(r"[/~]|[A-Za-z]:\\", value):
        return "/" + re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def _command(command: dict[str, Any]) -> dict[str, Any]:
    """The command with its paths as the card types them, but for the root that says that they were shortened."""
    sources = [source.partition("=") for source in command["sources"]]
    machine = command.get("machine")
    paths = [command["recipe"], *([machine] if machine else []), *(path for _, _, path in sources)]
    ends = {path: f"/{end}" if PRIVATE.match(path) else path for path, end in shown_paths(paths).items()}
    return command | {
        "recipe": ends[command["recipe"]],
        "machine": machine and ends[machine],
        "sources": [f"{name}={ends[path]}" for name, _, path in sources],
    }
