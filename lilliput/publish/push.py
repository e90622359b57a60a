"""Uploads a release to the Hugging Face hub, in one commit, by the hub's own library."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from lilliput.base.errors import ExportError
from lilliput.base.text_units import size
from lilliput.publish.card.travelling import RECORD_FILE
from lilliput.publish.export import CARD_FILE, RELEASE_FILE
from lilliput.publish.load import verified

BESIDE = (CARD_FILE, RELEASE_FILE, RECORD_FILE, "loss.png")
"""Files of a release that its list of hashes does not name."""


@dataclass(frozen=True, kw_only=True)
class Push:
    """An upload that could be made."""

    folder: Path
    name: str
    """Owner and name on the hub."""
    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    """Names of what else is in the folder, and stays here."""

    def lines(self) -> list[str]:
        """Say what would be uploaded."""
        total = sum(path.stat().st_size for path in self.files)
        rows = [f"  {path.name}  {path.stat().st_size:,} bytes" for path in self.files]
        left = [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        return [f"{len(self.files)} files ({size(total)}) to {self.name}, one commit:", *rows, *left]


def planned(folder: Path, name: str) -> Push:
    """Return the upload of a release; asks no network.

    Raises:
        ExportError: the name is none of the hub's.
        RunError: a file of the release is missing or changed.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ExportError(
            f"{name!r:.80} is no name on the hub", where="--push", hint="give OWNER/NAME, as in me/garden"
        )
    names = dict.fromkeys([*verified(folder)["files"], *BESIDE])
    files = tuple(folder / one for one in names if (folder / one).is_file())
    others = sorted(path.name for path in folder.iterdir() if path.name not in names)
    return Push(folder=folder, name=name, files=files, left_out=tuple(others))


def upload(push: Push, *, private: bool) -> str:
    """Upload a release, to a repository that is made if there is none; the address of the commit.

    The token is the hub library's own: HF_TOKEN, or that of `hf auth login`.

    Raises:
        ExportError: the hub refuses, or is out of reach.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="lilliput", library_version=_version(push.folder))
    operations = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in push.files]
    try:
        api.create_repo(push.name, private=private, exist_ok=True)
        made = api.create_commit(push.name, operations, commit_message="Release by Lilliput")
    except Exception as error:  # the library raises what its own libraries do
        raise ExportError(
            f"the hub did not take it: {error}",
            where=push.name,
            hint="log in with `hf auth login`, check the network and that the name is yours; nothing is there by half",
        ) from error
    return str(made.commit_url)


def _version(folder: Path) -> str:
    return str(json.loads((folder / RELEASE_FILE).read_text(encoding="utf-8")).get("lilliput", ""))
