"""A conversation through a chat template, with the names that Hugging Face templates expect."""

import atexit
import difflib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import jinja2
import markupsafe
from jinja2 import TemplateError
from tokenizers import Tokenizer

from lilliput.base.errors import LilliputError, RunError, reading
from lilliput.base.limits import limit, raising
from lilliput.base.untrusted import shown
from lilliput.tokenizer import renderer
from lilliput.tokenizer.chatml import CHAT_TEMPLATE
from lilliput.tokenizer.encoder import Encoder

ROLES = ("system", "user", "assistant", "tool")
"""Roles of messages, whatever the template."""
_HINT = "fetch the folder again, or use a chat template of your own"


def render_template(
    template: str, messages: Sequence[Mapping[str, str]], *, tokens: Mapping[str, str], where: str
) -> str:
    """The text of a conversation, ending in the header of the assistant's next message.

    Our own template is rendered here. Another one may come from anywhere, loop for ever or write without end, so it
    runs in a sandbox in a process of its own, which stays for the next conversation.

    Args:
        template: Jinja.
        messages: each with a role and a content.
        tokens: special tokens by the names that templates use, such as `bos_token`.
        where: the model, for the error.

    Raises:
        LilliputError: the template refuses the conversation, fails, or exceeds a limit: `template_characters`,
            `template_seconds`, `template_bytes`.
    """
    try:
        values = {"messages": [dict(message) for message in messages], "add_generation_prompt": True, **tokens}
        if template == CHAT_TEMPLATE:
            return renderer.rendered(template, values, sys.maxsize)
    except (TemplateError, LookupError, TypeError, ValueError) as error:
        raise _refused(str(error), where) from error
    return _result(_elsewhere(check_template(template, where), values, where), where)


def encode_template(
    tokenizer: Tokenizer,
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    tokens: Mapping[str, str],
    where: str,
    encoder: Encoder | None = None,
) -> list[int]:
    """The ids of what `render_template` makes of a conversation.

    Special tokens that a message spells out stay plain characters, as training reads them: whoever types `<|im_end|>`
    ends nothing.

    Args:
        tokenizer: of the model.
        template, messages, tokens, where: see `render_template`.
        encoder: of the tokenizer, where there is one already; to make one takes as long as to encode a long text.
    """
    check_messages(messages, template, where)
    known = (token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
    typed = "".join(value for message in messages for value in message.values() if isinstance(value, str))
    spelled = sorted((token for token in known if token in typed), key=len, reverse=True)
    if not spelled:
        text = render_template(template, messages, tokens=tokens, where=where)
        return (encoder or Encoder(tokenizer, where)).encode(text).tolist()
    free = (chr(point) for point in range(_PRIVATE, sys.maxunicode) if chr(point) not in typed)
    marks = dict(zip(spelled, free, strict=False))
    hidden = [{key: _replaced(value, marks) for key, value in message.items()} for message in messages]
    text = render_template(template, hidden, tokens=tokens, where=where)
    special, spelling = encoder or Encoder(tokenizer, where), {mark: token for token, mark in marks.items()}
    ids: list[int] = []
    for piece in re.split(f"([{''.join(spelling)}])", text):
        ids += (special.plain if piece in spelling else special).encode(spelling.get(piece, piece))
    return ids


def check_messages(messages: Any, template: str, where: str) -> None:
    """Refuse what is no conversation: a list of mappings, each with a role and a content that are text.

    A role is one of `ROLES`, or one that the template names: most templates write any other into the text as it is.

    Raises:
        LilliputError: it is none.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise _refused("there is no message", where)
    for message in messages:
        for key in ("role", "content"):
            value = message.get(key) if isinstance(message, Mapping) else None
            if not isinstance(value, str):
                raise _refused(f"the {key} of a message is {shown(value)}", where)
            check_text(value, where)
        role = message["role"]
        if role not in ROLES and not re.search(rf"""['"]{re.escape(role)}['"]""", template):
            near = difflib.get_close_matches(role, ROLES, n=1)
            raise LilliputError(
                f"there is no role {shown(role)}",
                where=where,
                hint=f"{f'nearest: {near[0]}; ' if near else ''}roles are {', '.join(ROLES)}",
            )


def check_text(text: str, where: str) -> None:
    """Refuse what is no text, and text that no encoding has.

    Raises:
        LilliputError: it is none, or holds half a surrogate pair.
    """
    if not isinstance(text, str):
        raise LilliputError(f"{shown(text)} is not a text", where=where, hint="give a str")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LilliputError(
            f"the text has an unpaired surrogate at character {error.start}",
            where=where,
            hint="type it again, or read it as UTF-8",
        ) from error


def _replaced(value: Any, marks: Mapping[str, str]) -> Any:
    for token, mark in marks.items():
        value = value.replace(token, mark) if isinstance(value, str) else value
    return value


_PRIVATE = 0xF0000
"""From here on, characters mean nothing: they stand for what must not be taken for a special token."""


def read_template(path: Path) -> str:
    """A chat template from a file of its own.

    Raises:
        RunError: it is too long or no text.
    """
    with reading(str(path), _HINT):
        most = limit("template_characters")
        with open(path, encoding="utf-8") as file:
            return check_template(file.read(most + 1), str(path))


def check_template(template: Any, where: str) -> str:
    """A chat template as a file gives it.

    Raises:
        RunError: it is too long or no text.
    """
    if not isinstance(template, str):
        raise RunError(f"chat_template is {shown(template)}", where=where, hint=_HINT)
    most = limit("template_characters")
    if len(template) > most:
        raise RunError(
            f"the chat template has more than {most:,} characters",
            where=where,
            hint=raising("template_characters"),
        )
    return template


def _result(answer: Mapping[str, str], where: str) -> str:
    match answer:
        case {"text": text}:
            return text
        case {"refused": says}:
            raise _refused(says, where)
        case {"exceeds": most}:
            name = f"template_{most}"
            raise LilliputError(
                f"the chat template takes more than {limit(name):,} {most}", where=where, hint=raising(name)
            )
    says = answer.get("broken", "the process that renders it ended")
    raise LilliputError(f"the chat template fails ({says})", where=where, hint=_HINT)


def _refused(says: str, where: str) -> LilliputError:
    return LilliputError(
        f"the chat template refuses these messages: {says}",
        where=where,
        hint='give a list of {"role": "user" or "assistant", "content": "..."}, the last one a user\'s',
    )


def _elsewhere(template: str, values: Mapping[str, Any], where: str) -> Mapping[str, str]:
    """Return what the process that renders answers; nothing if it ended."""
    limits = {name: limit(f"template_{name}") for name in ("characters", "seconds", "bytes")}
    try:
        request = json.dumps({"template": template, "values": values} | limits)
    except (TypeError, ValueError) as error:
        raise _refused(f"they hold what is no JSON ({error})", where) from error
    with _LOCK:
        process, began = _renderer(), time.monotonic()
        if answer := _ask(process, request):
            return json.loads(answer)
    return {"exceeds": "seconds"} if time.monotonic() - began >= limits["seconds"] else {}


_LOCK = Lock()
_running: dict[int, subprocess.Popen[str]] = {}
"""The process that renders for a process, by the number of the latter: a fork needs one of its own."""


def _ask(process: subprocess.Popen[str], request: str) -> str:
    assert process.stdin and process.stdout
    answer = ""
    try:
        with suppress(OSError):  # it ended
            process.stdin.write(request + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
    finally:
        if not answer.endswith("\n"):  # interrupted, or half an answer: the next would not be to the next question
            _end(process)
    return answer


def _renderer() -> subprocess.Popen[str]:
    process = _running.get(os.getpid())
    if process is None or process.poll() is not None:
        libraries = os.pathsep.join({str(Path(module.__file__ or "").parents[1]) for module in (jinja2, markupsafe)})
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", renderer.__file__, libraries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
        )
        _running[os.getpid()] = process
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was not written yet
            if pipe:
                pipe.close()
    process.wait()


@atexit.register
def _end_own() -> None:
    if (process := _running.pop(os.getpid(), None)) is not None:
        _end(process)
