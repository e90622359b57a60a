"""A teacher behind a real HTTP server on the loopback, which answers as badly as it is told to, and counts."""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from typing import Any

KEY = "sk-secret-of-the-tests"
Behavior = Callable[[str, int], str]
"""What becomes of a prompt's attempt, from 1: `ok`, `slow`, `cut`, an HTTP status, `malformed`, `close`, `half`."""


def well(prompt: str, attempt: int) -> str:
    return "ok"


def reply_to(prompt: str) -> str:
    return f"It is told that {prompt.rstrip('?').lower()} is a question with an answer of its own, as they all are."


class TinyTeacher:
    """The server; a context manager.

    Args:
        behavior: of every attempt.
        reply: to a prompt.
        headers: of answers that are errors.
    """

    def __init__(
        self,
        behavior: Behavior = well,
        reply: Callable[[str], str] = reply_to,
        headers: dict[str, str] | None = None,
        port: int = 0,
    ):
        self.behavior, self.reply, self.headers = behavior, reply, headers or {}
        self.asked: Counter[str] = Counter()
        """Attempts by prompt."""
        self.answered: Counter[str] = Counter()
        """Whole replies by prompt: those that somebody pays for."""
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.most_at_a_time = self._at_a_time = 0
        self._lock = threading.Lock()
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                teacher._answer(self)

            def log_message(self, format: str, *args: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None: ...

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "TinyTeacher":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self._at_a_time += 1
            self.most_at_a_time = max(self.most_at_a_time, self._at_a_time)
        try:
            request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
            prompt = request["messages"][-1]["content"]
            with self._lock:
                self.requests.append(request | {"path": handler.path})
                self.keys.add(handler.headers.get("Authorization", ""))
                self.asked[prompt] += 1
                attempt = self.asked[prompt]
            self._behave(handler, prompt, self.behavior(prompt, attempt), request)
        finally:
            with self._lock:
                self._at_a_time -= 1

    def _behave(self, handler: BaseHTTPRequestHandler, prompt: str, what: str, request: dict[str, Any]) -> None:
        if what == "close":
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if what == "slow":
            sleep(0.3)
        status = int(what) if what.isdecimal() else 200
        text = self.reply(prompt)
        choice = {
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if what == "cut" else "stop",
        }
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
        answer = {"model": f"{request['model']}-as-served", "choices": [choice], "usage": usage}
        body = json.dumps(
            answer if status == 200 else {"error": f"no, {handler.headers.get('Authorization')}"}
        ).encode()
        if what == "malformed":
            body = body[: len(body) // 2]
        handler.send_response(status)
        for name, value in self.headers.items() if status != 200 else ():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if status == 200 and what in ("ok", "slow", "cut"):
            with self._lock:
                self.answered[prompt] += 1
        handler.wfile.write(body[: len(body) // 2] if what == "half" else body)
        handler.wfile.flush()
        if what == "half":
            handler.connection.shutdown(socket.SHUT_RDWR)
