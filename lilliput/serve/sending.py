"""Sends an answer, whole or as server-sent events, for as long as there is a client to take it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from lilliput.serve.answer import Answer
from lilliput.serve.api_error import ApiError, OutOfTime
from lilliput.serve.call import Call
from lilliput.serve.replies import Replies
from lilliput.serve.token_text import TokenText

DONE = b"data: [DONE]\n\n"
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class Sending:
    """A response that is being written: what Starlette is given to send.

    Args:
        call: that is answered.
        replies: what the engine writes for it.
        token_text: names tokens, for log-probabilities.
    """

    def __init__(self, call: Call, replies: Replies, token_text: TokenText):
        self._call, self._replies, self._answer = call, replies, Answer(call, token_text)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(_until_gone(receive, self._replies))
        try:
            if self._call.stream:
                await self._stream(send)
            else:
                await self._send_whole(scope, receive, send)
        finally:
            watch.cancel()
            self._replies.close()
            scope["state"]["tokens"] = self._call.prompt_tokens, self._answer.completion_tokens

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async for batch in self._replies.batches():
                self._answer.add(batch)
        except OutOfTime:
            if not self._answer.has_begun:
                raise
            self._answer.end()
        await JSONResponse(self._answer.whole())(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        """Send events as tokens come. Before the first one, an error is an HTTP status."""
        is_begun = False
        try:
            async for batch in self._replies.batches():
                pieces = self._answer.add(batch)
                if not is_begun:
                    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
                    pieces = [*self._answer.first(), *pieces]
                    is_begun = True
                await send(_body(b"".join(map(_event, pieces))))
            pieces = self._answer.last()
        except OutOfTime:
            if not is_begun:
                raise
            pieces = [*self._answer.end(), *self._answer.last()]
        except ApiError as error:
            if not is_begun:
                raise
            pieces = [error.body]
        await send(_body(b"".join(map(_event, pieces)) + DONE, more=False))


async def _until_gone(receive: Receive, replies: Replies) -> None:
    """Wait until the client has gone, and want no more of its answer then."""
    while (await receive())["type"] != "http.disconnect":
        pass
    replies.fail(ApiError(499, "The client has gone."))


def _event(piece: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(piece, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _body(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
