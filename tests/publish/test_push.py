"""An upload is shown and not made unless it is asked for; a stand-in for the hub gets every file in one commit."""

import base64
import subprocess
import sys

import pytest
from card_records import record_of
from tiny_hub import hub
from tiny_releases import RELEASES, awake, tokenizer

from lilliput.base.errors import ExportError
from lilliput.base.files import write_text
from lilliput.publish.card.card import card
from lilliput.publish.card.travelling import write_record
from lilliput.publish.export import Generation, export
from lilliput.publish.push import planned


@pytest.fixture
def release(tmp_path):
    spec, layout = RELEASES["qwen3"]
    folder, record = tmp_path / "garden-base", record_of(chat=False)
    folder.mkdir()
    export(awake(spec), tokenizer(), folder, layout=layout, dtype="BF16", generation=Generation(), chat_template=None)
    write_record(folder, record)
    write_text(folder / "README.md", card(record))
    (folder / "notes.txt").write_text("somebody's own")
    return folder


def test_what_would_be_uploaded_is_the_release_and_nothing_else(release):
    push = planned(release, "me/garden")
    names = {path.name for path in push.files}
    assert {"README.md", "record.json", "lilliput.json", "model.safetensors", "tokenizer.json"} <= names
    assert push.left_out == ("notes.txt",) and "notes.txt" in push.lines()[-1]
    assert push.lines()[0].startswith(f"{len(push.files)} files (") and "me/garden" in push.lines()[0]
    with pytest.raises(ExportError, match="no name on the hub"):
        planned(release, "garden")


@pytest.mark.slow
def test_an_upload_is_one_commit_of_every_file(release, tmp_path):
    program = (
        "from pathlib import Path; from lilliput.publish.push import planned, upload; "
        f"print(upload(planned(Path({str(release)!r}), 'me/garden'), private=True))"
    )
    with hub() as there:
        made = subprocess.run(
            [sys.executable, "-c", program], env=there.environment(tmp_path), capture_output=True, text=True
        )
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == f"{there.address}/me/garden/commit/1"
    files = there.files()
    assert set(files) == {path.name for path in planned(release, "me/garden").files}
    for name in ("README.md", "model.safetensors"):
        assert base64.b64decode(files[name]) == (release / name).read_bytes()
