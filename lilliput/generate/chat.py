"""A conversation in the terminal."""

from collections.abc import Callable, Iterator

from rich.text import Text

from lilliput.base.terminal import Terminal

Answer = Callable[[list[dict[str, str]], int], Iterator[str]]
"""Messages so far and a seed -> the assistant's next message, piece by piece."""


def converse(answer: Answer, console: Terminal, *, seed: int) -> None:
    """Ask, answer, remember, until the input ends or a line is empty; `/new` forgets what was said."""
    messages: list[dict[str, str]] = []
    console.print("An empty line ends it, /new begins again.", style="dim")
    while True:
        try:
            said = console.input(Text("you  ", style="bold")).strip()
        except (EOFError, KeyboardInterrupt):
            said = ""
        if not said:
            return
        if said == "/new":
            messages = []
            continue
        messages.append({"role": "user", "content": said})
        console.print("model ", style="bold", end="")
        reply = ""
        for piece in answer(messages, seed + len(messages)):
            reply += piece
            console.print(piece, end="", soft_wrap=True)
        console.print()
        messages.append({"role": "assistant", "content": reply})
