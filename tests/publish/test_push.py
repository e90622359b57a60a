"""An upload is shown and not made unless it is asked for; a stand-in for the hub gets every file in one commit."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from card_records import record_of
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


class StandIn(BaseHTTPRequestHandler):
    """As much of the hub as takes a commit."""

    commits: ClassVar[list[list[dict]]] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self._answer(body)

    def _answer(self, body):
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            reply = {"files": files}
        elif self.path.endswith("/commit/main"):
            type(self).commits.append([json.loads(line) for line in body.splitlines()])
            reply = {"success": True, "commitOid": "1" * 40, "commitUrl": f"{self._hub()}/commit/1"}
        elif self.path == "/api/validate-yaml":
            reply = {"errors": [], "warnings": []}
        else:
            reply = {"url": self._hub(), "id": "1", "name": "me/garden"}
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _hub(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/me/garden"

    def log_message(self, *arguments):
        pass


@pytest.mark.slow
def test_an_upload_is_one_commit_of_every_file(release, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = (
        "from pathlib import Path; from lilliput.publish.push import planned, upload; "
        f"print(upload(planned(Path({str(release)!r}), 'me/garden'), private=True))"
    )
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("HF_") and "OFFLINE" not in key
    }
    environment |= {"HF_ENDPOINT": address, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path / "home")}
    made = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    server.shutdown()
    server.server_close()
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == f"{address}/me/garden/commit/1"
    (commit,) = StandIn.commits
    files = {one["value"]["path"]: one["value"] for one in commit if one["key"] == "file"}
    assert set(files) == {path.name for path in planned(release, "me/garden").files}
    assert base64.b64decode(files["README.md"]["content"]) == (release / "README.md").read_bytes()
    assert base64.b64decode(files["model.safetensors"]["content"]) == (release / "model.safetensors").read_bytes()
