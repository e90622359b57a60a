"""A server of the web chat that says what a test wants: pieces of text, errors, and ends in the middle."""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lilliput.serve.page import page, policy

MODEL = {
    "id": "tiny-chat",
    "parameters": 134_515_008,
    "chat": True,
    "context": 8192,
    "state_bytes": 6 << 20,
    "states_grow": False,
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to one request."""

    pieces: tuple[str, ...] = ()
    status: int = 200
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    cached: int = 0
    cut_off: bool = False
    """End the connection after the pieces."""
    hold: threading.Event | None = None
    """Wait for this after the pieces."""
    pause: float = 0.0
    """Seconds between pieces."""


class ScriptedServer(ThreadingHTTPServer):
    """The page, one model, and the answers in order; requests are kept."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model: dict[str, Any] = dict(MODEL)
        self.answers: list[Answer] = []
        self.requests: list[dict[str, Any]] = []
        self.key: str | None = None
        self.left = threading.Event()
        """Set when a reader went away in the middle of an answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


@contextmanager
def serving() -> Iterator[ScriptedServer]:
    """A server on a free port."""
    server = ScriptedServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        if self.path == "/":
            self._send(200, page(), "text/html; charset=utf-8", {"Content-Security-Policy": policy()})
        elif self.path == "/v1/models" and self._allowed():
            self._json(200, {"object": "list", "data": [self.server.model]})
        elif self.path != "/v1/models":
            self._json(404, {"error": {"message": "no such page", "code": 404}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        self.server.requests.append(body)
        answer = self.server.answers.pop(0)
        if answer.status != 200:
            self._json(answer.status, {"error": {"message": answer.message, "code": answer.status}}, answer.headers)
            return
        self._start(200, "text/event-stream", {})
        try:
            self._stream(body, answer)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.set()

    def _stream(self, body: dict[str, Any], answer: Answer) -> None:
        is_chat = "messages" in body
        for number, piece in enumerate(answer.pieces):
            logprob = math.log(0.95 - 0.17 * (number % 5))
            others = {piece: logprob} | {f" other{k}": logprob - k for k in range(1, 6)}
            choice: dict[str, Any] = {"index": 0, "finish_reason": None}
            if is_chat:
                top = [{"token": token, "logprob": value} for token, value in others.items()]
                choice["delta"] = {"content": piece}
                choice["logprobs"] = {"content": [{"token": piece, "logprob": logprob, "top_logprobs": top[:5]}]}
            else:
                choice["text"] = piece
                choice["logprobs"] = {"tokens": [piece], "token_logprobs": [logprob], "top_logprobs": [others]}
            self._event({"choices": [choice]})
            if answer.pause:
                threading.Event().wait(answer.pause)
        while answer.hold and not answer.hold.wait(0.05):
            self._write(b": waiting\n\n")
        if answer.cut_off:
            return
        end: dict[str, Any] = {"index": 0, "finish_reason": answer.finish}
        self._event({"choices": [end | ({"delta": {}} if is_chat else {"text": ""})]})
        usage = {
            "prompt_tokens": 120,
            "completion_tokens": len(answer.pieces),
            "total_tokens": 120 + len(answer.pieces),
            "prompt_tokens_details": {"cached_tokens": answer.cached},
        }
        self._event({"choices": [], "usage": usage})
        self._write(b"data: [DONE]\n\n")

    def _allowed(self) -> bool:
        if self.server.key is None or self.headers["Authorization"] == f"Bearer {self.server.key}":
            return True
        self._json(401, {"error": {"message": "a key is needed", "code": 401}})
        return False

    def _event(self, data: dict[str, Any]) -> None:
        self._write(b"data: " + json.dumps(data).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", headers or {})

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self._start(status, kind, headers | {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": kind} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the test does."""
