"""Puts a server together: model, engine, thread, application."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lilliput.base.text_units import size
from lilliput.generate.dtypes import states_dtype, weights_dtype
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.publish.loaded_model import LoadedModel
from lilliput.serve.app import Access, App, Limits
from lilliput.serve.engine_thread import EngineThread
from lilliput.serve.metrics import Metrics
from lilliput.serve.served_model import ServedModel, default_rows
from lilliput.serve.server import Server

BODY_BYTES = 1 << 20
BODY_BYTES_PER_TOKEN = 64
"""Six for each of ten characters, as JSON may spell them."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a server."""

    name: str
    """As clients have it."""
    device: str = "cpu"
    dtype: str = "fp32"
    state_dtype: str | None = None
    """Dtype that states are stored in; None for that in which they are computed."""
    compile: bool = False
    rows: int | None = None
    """Answers that are written at the same time; None for as many as the device is good for."""
    queue: int = 256
    """Requests that may wait."""
    seconds: float = 300.0
    """That a request may take."""
    body_seconds: float = 30.0
    """Time for a client to send a request's body."""
    grace_seconds: float = 5.0
    """Time for texts to end by themselves when the server stops."""
    keep_bytes: int = 256 << 20
    """Size of the states kept for later requests."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A server that is ready to run."""

    server: Server
    about: str
    """A line about what it serves."""


def serving(published: LoadedModel, settings: Settings, access: Access, *, log: Callable[[str], None]) -> Serving:
    """Make the server of a model.

    Args:
        published: the model.
        settings: how it is served.
        access: who may ask.
        log: is called with a line for each request.

    Raises:
        LilliputError: there is no such dtype.
    """
    device, states = torch.device(settings.device), states_dtype(settings.state_dtype, where="--state-dtype")
    published.model.to(device, weights_dtype(settings.dtype, where="--dtype"))
    served, metrics = ServedModel(published, settings.name, state_dtype=states), Metrics()
    rows = settings.rows or default_rows(device, served.state_bytes)
    engine = served.engine(
        rows, cache_bytes=settings.keep_bytes, compile=settings.compile, int8=settings.dtype == "int8"
    )
    if settings.compile:
        _compile(engine, rows, published.end_id)
    thread = EngineThread(engine, rows=rows, queue=settings.queue, seconds=settings.seconds, metrics=metrics)
    body_bytes = BODY_BYTES + BODY_BYTES_PER_TOKEN * served.context
    limits = Limits(body_bytes=body_bytes, body_seconds=settings.body_seconds)
    app = App(served, thread, metrics, limits).build(access, log)
    server = Server(app, most_requests=rows + settings.queue, end_all=thread.end_all, grace=settings.grace_seconds)
    kind = "chat" if served.has_chat else "completions only: it is a base model"
    about = (
        f"{settings.name} ({kind}): {rows} {'rows' if rows > 1 else 'row'}, states of "
        f"{size(served.state_bytes)} for {served.context:,} tokens, {size(settings.keep_bytes)} of states kept"
    )
    return Serving(server=server, about=about)


def _compile(engine: Engine, rows: int, token: int) -> None:
    """Compile the step for each number of rows that it will have, so that no request waits for that."""
    counts = [*(1 << power for power in range(rows.bit_length())), rows]
    for count in dict.fromkeys(counts):
        for _ in engine.tokens([Request(prompt=[token], max_new_tokens=3)] * count):
            pass
