"""A conversation in the terminal."""

import json
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from lilliput.base.errors import LilliputError
from lilliput.base.files import write_text
from lilliput.base.terminal import Terminal
from lilliput.generate.wrapping import Wrapping

Messages = list[dict[str, str]]
Answer = Callable[[Messages, int], Generator[str, None, str]]
"""Messages so far and a seed -> what the model writes, piece by piece, and why it ended."""

NAME = "model "
CUTS = {
    "interrupt": "Ctrl-C",
    "length": "its limit: --max-new-tokens allows more",
    "context": "the end of the context: /reset makes room",
}
"""Reasons for an answer to be cut, by why it ended."""
HELP = """\
/help         this list
/regenerate   another answer to the last message
/reset        forget what was said
/save FILE    add the conversation to a .jsonl file, a row of which can be trained on
/quit, /exit  end, as Ctrl-D does
Ctrl-C ends an answer that is being written. Arrow keys edit the line, and bring earlier ones back."""


class Chat:
    """A conversation that is held line by line.

    Args:
        answer: writes the model's messages.
        console: where it takes place.
        seed: with it, and with how many answers there were, an answer is decided.
        system: what the model is told before everything else; empty for nothing.
        max_new_tokens: counts those of a conversation.
        context: of a conversation that leave room for the answer in what the model was trained to read at once.
    """

    def __init__(
        self,
        answer: Answer,
        console: Terminal,
        *,
        seed: int,
        system: str = "",
        max_new_tokens: Callable[[Messages], int],
        context: int,
    ):
        self._answer, self._console, self._seed = answer, console, seed
        self._tokens, self._most = max_new_tokens, context
        self._begin: Messages = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._begin)
        self._answers = 0
        """Number of answers asked for."""

    def hold(self, read: Callable[[str], str] = input) -> None:
        """Read lines and answer them until the input ends.

        Args:
            read: shows a prompt and returns a line; raises EOFError at the end.
        """
        is_watched = sys.stdin.isatty()
        if is_watched:
            with suppress(ImportError):  # Windows has an editor of its own
                import readline  # noqa: F401 - `input` has arrow keys and history from then on
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no UTF-8 is refused, and no more than that
        self._console.print("Ctrl-D ends it, /help says what else there is.", style="dim")
        while True:
            try:
                said = read("you   " if is_watched else "").strip()
            except EOFError:
                if is_watched:
                    self._console.print()  # the prompt stands on the line
                return
            except KeyboardInterrupt:
                self._console.print("\nCtrl-D ends it.", style="dim")
                continue
            if said in ("/quit", "/exit"):
                return
            try:
                self._obey(said) if said.startswith("/") else self._say(said)
            except LilliputError as error:
                self._console.print(str(error), style="red")

    def _say(self, said: str) -> None:
        if said:
            self._reply([*self._messages, {"role": "user", "content": said}])

    def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        match command:
            case "/help":
                self._console.print(HELP, style="dim")
            case "/reset":
                self._messages = list(self._begin)
                self._console.print("what was said is forgotten", style="dim")
            case "/regenerate":
                if self._messages == self._begin:
                    raise _refused("there is no answer yet", line, "say something first")
                self._reply(self._messages[:-1])
            case "/save":
                self._save(rest.strip(), line)
            case _:
                raise _refused("there is no such command", line, "see /help; a message does not begin with /")

    def _reply(self, messages: Messages) -> None:
        """Answer what was said last, and remember both, unless it cannot be answered."""
        self._answers += 1
        written, ended = "", "length"
        pieces = self._answer(self._read(messages), self._seed + self._answers)
        self._console.print(NAME, style="bold", end="")
        shown = Wrapping(self._console.width, len(NAME)) if self._console.is_terminal else None
        try:
            while True:
                piece = next(pieces)
                written += piece
                self._console.print(shown.add(piece) if shown else piece, end="", soft_wrap=True)
        except StopIteration as end:
            ended = end.value
        except KeyboardInterrupt:
            ended = "interrupt"
        finally:
            self._console.print(shown.rest() if shown else "", soft_wrap=True)
        if ended != "stop":
            why = CUTS[ended]
            self._console.print(f"(cut by {why})", style="dim")
        self._messages = [*messages, {"role": "assistant", "content": written}]

    def _read(self, messages: Messages) -> Messages:
        """Return the part of a conversation to read: all of it, or the last turns that leave room for the answer."""
        begin, read = len(self._begin), messages
        while len(read) > begin + 1 and self._tokens(read) > self._most:
            read = [*self._begin, *read[begin + 2 :]]
        if len(read) < len(messages):
            turns = (len(messages) - len(read)) // 2
            self._console.print(f"(the first {turns} of your messages are too far back to be read)", style="dim")
        return read

    def _save(self, name: str, line: str) -> None:
        if not name.endswith(".jsonl"):
            raise _refused("that is no .jsonl file", line, "/save talks.jsonl adds the conversation to that file")
        if self._messages == self._begin:
            raise _refused("nothing was said yet", line, "say something first")
        try:
            path = Path(name).expanduser()
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            before += "\n" if before and not before.endswith("\n") else ""
            write_text(path, before + json.dumps({"messages": self._messages}, ensure_ascii=False) + "\n")
        except (OSError, ValueError, RuntimeError) as error:  # a null byte, a home of nobody
            raise _refused(f"it cannot be written ({error})", line, "name another file") from error
        self._console.print(f"saved in {path}", style="dim")


def _refused(what: str, where: str, hint: str) -> LilliputError:
    return LilliputError(what, where=where, hint=hint)
