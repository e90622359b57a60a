"""A conversation in the terminal."""

from collections.abc import Callable, Iterator

from rich.console import Console

Answer = Callable[[list[dict[str, str]], int], Iterator[str]]
"""Messages so far and a seed -> the assistant's next message, piece by piece."""


def converse(answer: Answer, console: Console, *, seed: int) -> None:
    """Ask, answer, remember, until the input ends or a line is empty; `/new` forgets what was said."""
    messages: list[dict[str, str]] = []
    console.print("[dim]An empty line ends it, /new begins again.[/dim]")
    while True:
        try:
            said = console.input("[bold]you[/bold]  ").strip()
        except (EOFError, KeyboardInterrupt):
            said = ""
        if not said:
            return
        if said == "/new":
            messages = []
            continue
        messages.append({"role": "user", "content": said})
        console.print("[bold]model[/bold] ", end="")
        reply = ""
        for piece in answer(messages, seed + len(messages)):
            reply += piece
            console.print(piece, end="", highlight=False, markup=False)
        console.print()
        messages.append({"role": "assistant", "content": reply})
