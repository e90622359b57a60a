"""The routes of the server, as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lilliput.serve.api_error import SERVER, ApiError
from lilliput.serve.body import parse, read_body
from lilliput.serve.call import Call, chat_call, completion_call
from lilliput.serve.engine_thread import EngineThread
from lilliput.serve.guard import Guard
from lilliput.serve.metrics import CONTENT_TYPE, Metrics
from lilliput.serve.openapi import openapi
from lilliput.serve.page import page, policy
from lilliput.serve.sending import Sending
from lilliput.serve.served_model import ServedModel
from lilliput.serve.token_text import TokenText

READING = 4
"""Bodies that are parsed and encoded at the same time: a value takes many times the memory of its JSON."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Rules about who may ask, see `Guard`."""

    key: str | None = None
    hosts: Collection[str] | None = None
    origins: Collection[str] = ()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a request's body."""

    body_bytes: int
    body_seconds: float
    """Time for a client to send it."""


class App:
    """Routes of one model.

    Args:
        served: the model.
        thread: what writes; begun and ended with the application.
        metrics: what is counted.
        limits: of requests.
    """

    def __init__(self, served: ServedModel, thread: EngineThread, metrics: Metrics, limits: Limits):
        self._served, self._thread, self._metrics, self._limits = served, thread, metrics, limits
        self._names = TokenText(served.published.tokenizer)
        self._schema: dict[str, Any] = {}
        self._reading = asyncio.Semaphore(READING)

    def build(self, access: Access, log: Callable[[str], None]) -> ASGIApp:
        """Return the application, behind its guard."""
        self._schema = openapi(self._served.name, has_key=access.key is not None)
        routes = [
            ("/v1/chat/completions", self._chat, "POST"),
            ("/v1/completions", self._complete, "POST"),
            ("/v1/models", self._models, "GET"),
            ("/v1/models/{id:path}", self._model, "GET"),
            ("/health", self._health, "GET"),
            ("/metrics", self._show_metrics, "GET"),
            ("/openapi.json", self._openapi, "GET"),
            ("/", self._show_page, "GET"),
        ]
        app = Starlette(
            routes=[Route(path, _named(path, endpoint), methods=[method]) for path, endpoint, method in routes],
            exception_handlers={ApiError: _tell, HTTPException: _tell_http, Exception: _tell_failure},
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False
        about = {"key": access.key, "hosts": access.hosts, "origins": access.origins}
        return Guard(app, log=log, see=self._metrics.see_request, **about)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._thread.end_all()
            await asyncio.to_thread(self._thread.join)

    async def _chat(self, request: Request) -> Any:
        return await self._answer(request, chat_call)

    async def _complete(self, request: Request) -> Any:
        return await self._answer(request, completion_call)

    async def _answer(self, request: Request, read: Callable[[ServedModel, Any], Call]) -> Sending:
        body = await read_body(request, most_bytes=self._limits.body_bytes, seconds=self._limits.body_seconds)
        self._thread.check_room(1)  # before anything is parsed
        async with self._reading:
            call = await asyncio.to_thread(lambda: read(self._served, parse(body)))
        replies = self._thread.submit(call.requests)
        self._metrics.see_prompt(call.prompt_tokens)
        return Sending(call, replies, self._names)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def _model(self, request: Request) -> Response:
        if request.path_params["id"] != self._served.name:
            raise ApiError(404, f"There is no such model; this server has {self._served.name}.", code="model_not_found")
        return JSONResponse(self._about())

    async def _health(self, request: Request) -> Response:
        if not self._thread.is_alive:
            raise ApiError(503, "The thread that writes has ended; start the server again.", type=SERVER, code="failed")
        return JSONResponse({"status": "ok", "model": self._served.name})

    async def _show_metrics(self, request: Request) -> Response:
        active, waiting = self._thread.active, self._thread.waiting
        kept, kept_bytes = self._thread.kept
        gauges = {
            "rows_busy": ("Answers that are being written.", active - waiting),
            "requests_waiting": ("Requests that wait for a row.", waiting),
            "kept_states": ("States kept for later requests.", kept),
            "kept_states_bytes": ("Bytes of the states kept.", kept_bytes),
        }
        return PlainTextResponse(self._metrics.text(gauges), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(self._schema)

    async def _show_page(self, request: Request) -> Response:
        return HTMLResponse(page(), headers={"Content-Security-Policy": policy(), "Referrer-Policy": "no-referrer"})

    def _about(self) -> dict[str, Any]:
        served = self._served
        return {
            "id": served.name,
            "object": "model",
            "created": 0,
            "owned_by": "lilliput",
            "context": served.context,
            "chat": served.has_chat,
            "parameters": served.parameters,
            "state_bytes": served.state_bytes,
            "states_grow": served.states_grow,
        }


def _named(path: str, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Return an endpoint that says which route was taken, for counts."""

    async def named(request: Request) -> Any:
        request.scope["state"]["route"] = path
        return await endpoint(request)

    return named


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "There is nothing at this path.", 405: "This path takes another method."}
    code = "not_found" if error.status_code == 404 else "method_not_allowed"
    made = ApiError(error.status_code, said.get(error.status_code, error.detail), code=code)
    return JSONResponse(made.body, made.status, headers=error.headers)


async def _tell_failure(request: Request, error: Exception) -> Response:
    """Answer after a mistake of the server, which the guard logs."""
    made = ApiError(500, "The server failed; its log says why.", type=SERVER, code="failed")
    return JSONResponse(made.body, made.status)
