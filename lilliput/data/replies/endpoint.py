"""A model behind an endpoint that speaks OpenAI's `/chat/completions`: a server of one's own, or somebody's service.

One request is one prompt, on a connection of its own. What may pass (a full queue, a restart, half an answer) is asked
again after a while that doubles, with jitter, or that the server names.
"""

import http.client
import json
import random
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.untrusted import shown
from lilliput.data.replies.prompts import Prompt
from lilliput.data.replies.reply import FAILED, Reply, now, reply_to

PASSING = (408, 409, 425, 429, *range(500, 600))
"""Statuses after which the same request may be answered."""
REFUSED = (400, 413, 422)
"""Statuses that are about one prompt, such as one that is too long."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second attempt, and before any."""
LONGEST_NAMED_WAIT = 600.0
"""Seconds that a server may ask for."""
MOST_BYTES = 64_000_000
"""Bytes of an answer."""


class Passing(Exception):
    """An attempt failed in a way that may pass.

    Args:
        why: it failed.
        wait: seconds that the server asked for; None where it did not.
    """

    def __init__(self, why: str, wait: float | None = None):
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Address of a model that answers."""

    url: str
    """Its base, such as `http://localhost:8000/v1`."""
    model: str
    """Name of the model there."""
    key: str | None = None
    """Sent as a bearer token, and written nowhere."""
    timeout: float = 600.0
    """Seconds without a byte after which an attempt has failed."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise RecipeError(
                f"{shown(self.url) if not parts.username else 'a URL with a password'} is no endpoint",
                where="the URL of the endpoint",
                hint="give its base, as in http://localhost:8000/v1; a key goes into OPENAI_API_KEY",
            )

    def __repr__(self) -> str:
        return f"Endpoint(url={self.url!r}, model={self.model!r})"

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def ask(self, prompt: Prompt, settings: Mapping[str, Any]) -> Reply:
        """The reply to a prompt, in one attempt.

        Args:
            prompt: to be answered.
            settings: fields of the request, such as `temperature`.

        Raises:
            Passing: another attempt may succeed.
            DataError: none will, whatever is asked.
        """
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        body = json.dumps({"model": self.model, "messages": messages, "stream": False, **settings}).encode()
        began = perf_counter()
        status, headers, answer = self._post(body, prompt.key)
        fields = {
            "host": self.host,
            "settings": dict(settings),
            "seconds": round(perf_counter() - began, 3),
            "at": now(),
        }
        if status in PASSING:
            raise Passing(f"HTTP {status}: {self._said(answer)}", named_wait(headers.get("Retry-After")))
        if status in REFUSED:
            error = f"HTTP {status}: {self._said(answer)}"
            return reply_to(prompt, text="", finish=FAILED, error=error, teacher=self.model, **fields)
        if status != 200:
            raise DataError(
                f"the endpoint answers HTTP {status}: {self._said(answer)}",
                where=f"{self.url}, the model {self.model!r}",
                hint="check the URL (it often ends in /v1), the model's name, and the key in OPENAI_API_KEY",
            )
        return reply_to(prompt, **self._parsed(answer), **fields)

    def _post(self, body: bytes, key: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self.timeout)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        headers |= {"Idempotency-Key": key}  # those who know it answer a repeated request once
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            connection.request("POST", f"{parts.path.rstrip('/')}/chat/completions", body, headers)
            response = connection.getresponse()
            answer = response.read(MOST_BYTES + 1)
            return response.status, response.headers, answer
        except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, cut short
            raise Passing(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
        finally:
            connection.close()

    def _parsed(self, answer: bytes) -> dict[str, Any]:
        """The fields of a reply that an answer has.

        Raises:
            Passing: it is none.
        """
        if len(answer) > MOST_BYTES:
            raise Passing(f"the answer is longer than {MOST_BYTES:,} bytes")
        try:
            plain = json.loads(answer)
            choice, usage = plain["choices"][0], plain.get("usage") or {}
            text, finish = choice["message"].get("content"), choice.get("finish_reason") or "stop"
            if not isinstance(text, str | None) or not isinstance(finish, str):
                raise TypeError("the content is no text")
            counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
            counts = {name: count if type(count) is int and count >= 0 else None for name, count in counts.items()}
            teacher = plain.get("model")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise Passing(f"no chat completion ({type(error).__name__}): {self._said(answer)}") from error
        name = teacher if isinstance(teacher, str) and teacher else self.model
        return {"text": text or "", "finish": finish, "teacher": name, **counts}

    def _said(self, answer: bytes) -> str:
        """The beginning of an answer, on one line, without the key, which some repeat."""
        said = " ".join(answer[:400].decode("utf-8", "replace").split())
        return said.replace(self.key, "(the key)") if self.key else said


def named_wait(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header names, as a number or as a date; None if it names none."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (at - datetime.now(at.tzinfo)).total_seconds()
    return min(max(0.0, seconds), LONGEST_NAMED_WAIT) if seconds == seconds else None


def wait_before(attempt: int, named: float | None) -> float:
    """Seconds after a failed attempt, the first is 1: those that the server named, or doubling ones with jitter."""
    if named is not None:
        return named + random.uniform(0, min(1.0, 0.25 * named))
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
