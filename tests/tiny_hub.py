"""A stand-in for the Hugging Face hub on this machine: it takes commits, and counts requests."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(kw_only=True)
class TinyHub:
    """A hub that runs."""

    address: str
    requests: list[str] = field(default_factory=list)
    """Paths that were asked for."""
    commits: list[list[dict[str, Any]]] = field(default_factory=list)

    def environment(self, home: Path) -> dict[str, str]:
        """Variables with which a process takes it for the hub."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "OFFLINE" not in key}
        return own | {"HF_ENDPOINT": self.address, "HF_TOKEN": "hf_x", "HF_HOME": str(home)}

    def files(self) -> dict[str, str]:
        """Contents of the only commit's files in base 64, by name."""
        (commit,) = self.commits
        return {one["value"]["path"]: one["value"]["content"] for one in commit if one["key"] == "file"}


@contextmanager
def hub() -> Iterator[TinyHub]:
    """Serve a hub on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    server.hub = TinyHub(address=f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


class _Answer(BaseHTTPRequestHandler):
    """As much of the hub as takes a commit."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        found: TinyHub = self.server.hub  # type: ignore[attr-defined]
        found.requests.append(self.path)
        page = f"{found.address}/me/garden"
        if self.path.endswith("/preupload/main"):
            names = [one["path"] for one in json.loads(body)["files"]]
            reply = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        elif self.path.endswith("/commit/main"):
            found.commits.append([json.loads(line) for line in body.splitlines()])
            reply = {"success": True, "commitOid": "1" * 40, "commitUrl": f"{page}/commit/1"}
        elif self.path == "/api/validate-yaml":
            reply = {"errors": [], "warnings": []}
        else:
            reply = {"url": page, "id": "1", "name": "me/garden"}
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""
