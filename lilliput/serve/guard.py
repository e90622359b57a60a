"""The guard before the application: refuses who may not ask, and logs one line for each request."""

import hmac
import re
import sys
import traceback
from collections.abc import Callable, Collection
from ipaddress import ip_address
from time import monotonic
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lilliput.serve.api_error import ApiError

OPEN = ("/", "/health")
"""Paths that need no key: the page asks for one, and whoever watches a server has none."""
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
METHODS, ALLOWED = "GET, POST", "authorization, content-type"


class Guard:
    """Passes on requests that have the key, come by a name of this machine, and from no other site's page.

    Args:
        app: what answers them.
        key: bearer token; None to ask for none.
        hosts: names in the header Host; None for any. A page elsewhere can have its name point to this machine, but
            not change that header.
        origins: sites whose pages may ask; `*` for any.
        log: is called with a line for each request: method, path, status, seconds and tokens, nothing that was said.
        see: is called with path and status of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str | None,
        hosts: Collection[str] | None,
        origins: Collection[str],
        log: Callable[[str], None],
        see: Callable[[str, int], None],
    ):
        self._app, self._key, self._hosts, self._origins = app, key, hosts, origins
        self._log, self._see = log, see

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status, headers = monotonic(), 499, Headers(scope=scope)
        state: dict[str, Any] = scope.setdefault("state", {})
        origin = headers.get("origin")

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(self._headers(origin))
            await send(message)

        try:
            response = self._refuse(scope, headers, origin)
            await (response or self._app)(scope, receive, tell)
        except Exception:
            traceback.print_exc(file=sys.stderr)
        finally:
            route = state.get("route", "other")
            tokens = state.get("tokens")
            counts = f" {tokens[0]} tokens in, {tokens[1]} out" if tokens else ""
            path = scope["path"][:100].encode("unicode_escape").decode("ascii")
            self._log(f"{scope['method']} {path} {status} {monotonic() - began:.3f} s{counts}")
            self._see(route, status)

    def _refuse(self, scope: Scope, headers: Headers, origin: str | None) -> Response | None:
        """Return the answer to a request that may not pass."""
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return _response(
                ApiError(
                    403, f"This server is not {host[:100]!r}; ask it by the address that it printed.", code="wrong_host"
                )
            )
        if origin is not None and not self._may(origin, host):
            return _response(
                ApiError(403, "Pages of other sites may not ask this server; see --allow-origin.", code="wrong_origin")
            )
        if scope["method"] == "OPTIONS" and origin is not None and "access-control-request-method" in headers:
            return Response(status_code=204)
        if self._key is not None and scope["path"] not in OPEN and not self._has_key(headers):
            return _response(
                ApiError(
                    401,
                    "Send the key of this server: Authorization: Bearer KEY.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            )
        return None

    def _has_key(self, headers: Headers) -> bool:
        assert self._key is not None
        kind, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._key.encode())
        return same and kind.lower() == "bearer"

    def _may(self, origin: str, host: str) -> bool:
        """Return whether a page of that origin may ask: the server's own, or one that is allowed."""
        own = re.fullmatch(r"https?://([^/]+)", origin)
        return "*" in self._origins or origin in self._origins or (own is not None and own[1] == host)

    def _headers(self, origin: str | None) -> dict[str, str]:
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        if origin is not None and ("*" in self._origins or origin in self._origins):
            headers |= {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Methods": METHODS,
                "Access-Control-Allow-Headers": ALLOWED,
                "Vary": "Origin",
            }
        return headers


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: str) -> str:
    """Return the name in a header Host, without its port."""
    return (host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]).lower()


def _response(error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, headers=error.headers)
