"""The description of the API for programs, `/openapi.json`, from the tables that check requests."""

from collections.abc import Sequence
from typing import Any

from lilliput.base import __version__
from lilliput.serve.answer import FINISH_REASONS
from lilliput.serve.api_error import TYPES
from lilliput.serve.fields import CHAT, COMPLETIONS, Field

TEXT = {"type": "string"}
NULL_TEXT = {"type": ["string", "null"]}
FLAG = {"type": "boolean"}
WHOLE = {"type": "integer", "minimum": 0}
ERRORS = {
    400: "A field is wrong, which `param` names.",
    401: "The key is missing or wrong.",
    403: "The request came by another name, or from another site's page.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    429: "All rows are busy and the queue is full; `Retry-After` says when to ask again.",
    503: "The server is stopping, or requests are being sent or answered on all its connections.",
    504: "No token was written in time.",
}


def openapi(model: str, *, has_key: bool) -> dict[str, Any]:
    """Return the description of a server of a model of that name, which may ask for a key."""
    security = {"security": [{"key": []}]} if has_key else {}
    return security | {
        "openapi": "3.1.0",
        "info": {"title": f"lilliput serve {model}", "version": __version__},
        "paths": {
            "/v1/chat/completions": {"post": _writing("Answer a conversation", "Chat", "chat.completion")},
            "/v1/completions": {"post": _writing("Continue a text", "Completion", "text_completion")},
            "/v1/models": {"get": _reading("List the one model", "Models", errors=(401, 403))},
            "/v1/models/{id}": {
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"enum": [model]}}],
                "get": _reading("Describe a model", "Model", errors=(401, 403, 404)),
            },
            "/health": {"get": _reading("Say that the server runs", "Health", errors=(403,))},
            "/metrics": {"get": _plain("Counts and durations, for Prometheus")},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}} if has_key else {},
            "schemas": {
                "ChatRequest": _request(CHAT),
                "CompletionRequest": _request(COMPLETIONS),
                "ChatAnswer": _answer("chat.completion", "message"),
                "CompletionAnswer": _answer("text_completion", "text"),
                "Model": _object(
                    id=TEXT,
                    object=TEXT,
                    created=WHOLE,
                    owned_by=TEXT,
                    context=WHOLE,
                    chat=FLAG,
                    parameters=WHOLE,
                    state_bytes=WHOLE,
                    states_grow=FLAG,
                ),
                "Models": _object(object=TEXT, data={"type": "array", "items": _ref("Model")}),
                "Health": _object(status=TEXT, model=TEXT),
                "Error": _object(error=_object(message=TEXT, type={"enum": [*TYPES]}, param=NULL_TEXT, code=NULL_TEXT)),
            },
        },
    }


def _request(fields: Sequence[Field]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: field.published_schema for field in fields},
        "required": [field.name for field in fields if field.is_required],
        "additionalProperties": False,
    }


def _answer(name: str, written: str) -> dict[str, Any]:
    message = _object(role={"enum": ["assistant"]}, content=TEXT, refusal={"type": "null"})
    choice = _object(
        index=WHOLE,
        logprobs={"type": ["object", "null"]},
        finish_reason={"enum": [*FINISH_REASONS]},
        **{written: message if written == "message" else TEXT},
    )
    usage = _object(
        prompt_tokens=WHOLE,
        completion_tokens=WHOLE,
        total_tokens=WHOLE,
        prompt_tokens_details=_object(cached_tokens=WHOLE),
    )
    choices = {"type": "array", "minItems": 1, "items": choice}
    return _object(id=TEXT, object={"enum": [name]}, created=WHOLE, model=TEXT, choices=choices, usage=usage)


def _writing(about: str, name: str, kind: str) -> dict[str, Any]:
    # Before OpenAPI 3.2, whose `itemSchema` says so, the schema of a stream is that of each of its events.
    event = {"type": "object", "properties": {"data": TEXT}, "required": ["data"]}
    events = {"schema": event, "example": {"data": f'{{"object": "{kind}"}}'}}
    return {
        "summary": about,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(f"{name}Request")}}},
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {"application/json": {"schema": _ref(f"{name}Answer")}, "text/event-stream": events},
            },
            **_errors(tuple(ERRORS)),
        },
    }


def _reading(about: str, name: str, *, errors: Sequence[int]) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(name)}}
    return {"summary": about, "responses": {"200": {"description": about, "content": content}, **_errors(errors)}}


def _plain(about: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": TEXT}}
    return {"summary": about, "responses": {"200": {"description": about, "content": content}, **_errors((401, 403))}}


def _errors(codes: Sequence[int]) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Error")}}
    return {str(code): {"description": ERRORS[code], "content": content} for code in codes}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
