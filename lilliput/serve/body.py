"""The body of a request: read within a size and a time, and parsed as strict JSON."""

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from lilliput.serve.api_error import ApiError

DEEPEST = 64
"""Lists and objects within each other; a conversation has five."""


async def read_body(request: Request, *, most_bytes: int, seconds: float) -> bytes:
    """Return the body of a request. What is beyond the size is read as well, so that a client gets the answer, and not
    kept.

    Args:
        request: nothing of it has been read.
        most_bytes: of the body.
        seconds: in which it has to come.

    Raises:
        ApiError: it is too large or too slow, or not declared as JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a browser sends anywhere without asking is of other kinds
        raise ApiError(415, "Send JSON, with the header Content-Type: application/json.", code="invalid_content_type")
    too_large = ApiError(413, f"The body has more than {most_bytes:,} bytes; send less.", code="body_too_large")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:18]) > most_bytes and "expect" in request.headers:
        raise too_large  # the client waits with the body until it hears that it may send it
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= most_bytes:
                    body += chunk
                else:
                    body.clear()
    except TimeoutError:
        if size > most_bytes:
            raise too_large from None
        raise ApiError(
            408, f"The body did not come within {seconds:g} seconds.", code="timeout", headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ApiError(499, "The client has gone.") from None
    if size > most_bytes:
        raise too_large
    return bytes(body)


def parse(body: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        ApiError: it is none, or too deep.
    """
    try:
        text = body.decode()
        value = json.loads(text, parse_constant=_no_constant)
        deep = _is_deep(value)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"The body is no UTF-8: see byte {error.start}.", code="invalid_json") from error
    except RecursionError:
        deep, value = True, None
    except ValueError as error:
        raise ApiError(400, f"The body is no JSON: {error}.", code="invalid_json") from error
    if deep:
        raise ApiError(400, f"The body has lists or objects more than {DEEPEST} deep.", code="invalid_json")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _is_deep(value: Any) -> bool:
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [one for each in inner for one in each], depth + 1
    return depth > DEEPEST
