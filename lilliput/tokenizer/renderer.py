"""Renders chat templates of strangers in a process of its own, which `template.py` starts: JSON lines in and out.

Jinja's sandbox keeps a template from the machine, but not from its time and memory. Therefore this process has little
of both, ends with its parent, and knows nothing but Jinja: it starts in a tenth of a second.
"""

import faulthandler
import json
import os
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

if __name__ == "__main__":  # isolated, so it is told where Jinja lies
    sys.path += sys.argv[1].split(os.pathsep)

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """The tag `{% generation %}`: transformers makes a mask of what it holds; here it renders as its content."""

    tags = {"generation"}  # noqa: RUF012 (Jinja reads a set of the class)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class TooLong(Exception):
    """The text has more characters than it may."""


def rendered(template: str, values: Mapping[str, Any], characters: int) -> str:
    """The text that a template makes, with the tags, filters and functions that transformers gives it.

    Raises:
        TemplateError, KeyError: the template refuses the values.
        TooLong: the text is longer than so many characters.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    environment.filters["tojson"] = _json
    pieces, left = [], characters
    for piece in environment.from_string(template).generate(**values):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise TooLong
    return "".join(pieces)


def _refuse(says: str) -> NoReturn:
    raise TemplateError(says)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Jinja's own is for HTML, and spells < and & otherwise."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": rendered(request["template"], request["values"], request["characters"])}
    except (TemplateError, KeyError) as error:
        return {"refused": str(error)[:1_000]}
    except TooLong:
        return {"exceeds": "characters"}
    except MemoryError:
        return {"exceeds": "bytes"}
    except Exception as error:
        return {"broken": f"{type(error).__name__}: {error}"[:1_000]}


def _limit_memory(more: int) -> None:
    """Take at most so many bytes more than now, where the system can tell and limit it."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
    except (ImportError, OSError, ValueError):
        return


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that of the terminal is for the parent
    nowhere = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    limited = False
    for line in sys.stdin:
        request = json.loads(line)
        if not limited:
            _limit_memory(request["bytes"])
            limited = True
        # A thread of C's, which no loop holds up: at the end of the time it ends the process, with or without a parent.
        faulthandler.dump_traceback_later(request["seconds"], exit=True, file=nowhere)
        answer = _answer(request)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
