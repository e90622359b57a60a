"""A server of a tiny model in a thread, on a port of its own."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from threading import Thread
from time import monotonic, sleep
from typing import Any

import openai
import tiny

from lilliput.model import ModelSpec
from lilliput.publish.export import Generation
from lilliput.publish.loaded_model import LoadedModel
from lilliput.serve.app import Access
from lilliput.serve.server import listen
from lilliput.serve.serving import Settings, serving
from lilliput.tokenizer.bpe import BPE, END
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, CHATML, MESSAGE_END

CONTEXT = 512
SECONDS = 60.0
"""Longer than anything takes on a loaded machine."""


def published(spec: ModelSpec = tiny.HGRN2_SPEC, *, chat: bool = True, context: int = CONTEXT) -> LoadedModel:
    """A tiny model with first weights."""
    tokenizer = BPE(vocab=tiny.VOCAB - len(CHATML)).train([" ".join(tiny.WORDS)] * 3)
    tokenizer.add_special_tokens([*CHATML])
    ends = (MESSAGE_END, END) if chat else (END,)
    ids = tuple(tokenizer.token_to_id(one) for one in ends)
    return LoadedModel(
        model=spec.build(seed=1).eval(),
        tokenizer=tokenizer,
        context=context,
        layout=None,
        generation=Generation(max_new_tokens=24),
        chat_template=CHAT_TEMPLATE if chat else None,
        stop_ids=ids,
        end_id=ids[-1],
        special_tokens={"eos_token": ends[0]},
    )


class TinyServer:
    """A server that runs.

    Args:
        port: where it listens.
        log: the lines that it wrote so far.
        stop: tells it to stop.
    """

    def __init__(self, port: int, log: list[str], stop: Callable[[], None]):
        self.stop = stop
        self.port, self.log, self.url = port, log, f"http://127.0.0.1:{port}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=SECONDS)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Return status, value and headers of an answer; a body that is not bytes is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if data is not None else {}
        try:
            connection.request(method, path, data, kind | {key.replace("_", "-"): one for key, one in headers.items()})
            response = connection.getresponse()
            said = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(said) if is_json else said.decode(), dict(response.headers)
        finally:
            connection.close()

    def gauge(self, name: str) -> float:
        """Return a metric."""
        (value,) = (
            line.split()[1]
            for line in self.ask("GET", "/metrics")[1].splitlines()
            if line.startswith(f"lilliput_{name} ")
        )
        return float(value)

    def wait_for(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        end = monotonic() + SECONDS
        while self.gauge(name) != value:
            assert monotonic() < end, (name, self.gauge(name), value)
            sleep(0.01)

    def raw(self, data: bytes) -> socket.socket:
        """Return a connection on which something was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        connection.sendall(data)
        return connection


@contextmanager
def running(model: LoadedModel, *, access: Access | None = None, **settings: Any) -> Iterator[TinyServer]:
    """A server while the block runs."""
    log: list[str] = []
    listener = listen("127.0.0.1", 0)
    made = serving(model, Settings(name="tiny", **settings), access or Access(), log=log.append)
    thread = Thread(target=made.server.run, args=([listener],), daemon=True)
    thread.start()

    def stop() -> None:
        made.server.should_exit = True

    try:
        yield TinyServer(listener.getsockname()[1], log, stop)
    finally:
        stop()
        thread.join(SECONDS)
        assert not thread.is_alive()
