"""Errors that a client gets, in the form of OpenAI's API: a status, and an object that says what is wrong with what."""

from collections.abc import Mapping
from typing import Any

from lilliput.base.errors import LilliputError

INVALID = "invalid_request_error"
OVERLOADED = "overloaded_error"
SERVER = "server_error"
TYPES = (INVALID, OVERLOADED, SERVER)


class ApiError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: what is wrong with which value, and what to do.
        type: one of `TYPES`.
        param: the field that is wrong, as a path into the body; None where it is none of them.
        code: a word for programs.
        headers: of the response, besides the usual ones.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})
        named = None if param is None else param.encode(errors="backslashreplace").decode()  # JSON can name half a pair
        self.body: dict[str, Any] = {"error": {"message": message, "type": type, "param": named, "code": code}}


class OutOfTime(ApiError):
    """A request whose time is up. A text that has begun ends there instead."""

    def __init__(self, seconds: float):
        super().__init__(
            504,
            f"No token was written within {seconds:g} seconds. Send it again later, or start the server with a longer "
            "--timeout.",
            type=OVERLOADED,
            code="timeout",
        )


def refused(error: LilliputError, *, param: str | None = None) -> ApiError:
    """Make the answer to a request that the model cannot be given."""
    return ApiError(400, f"{error.what} ({error.hint})", param=param, code="invalid_value")
