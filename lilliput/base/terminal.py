"""The terminal: one kind of console, which shows any text and obeys none.

Names in other people's recipes and runs, texts that a model wrote, choices as they were typed: none of them is markup
(`[red]`, `:smile:`), and none reaches the terminal as a command to move, to color, or to turn letters around.
"""

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.status import Status
from rich.table import Table
from rich.text import Text

from lilliput.base.tables import fitted

ACTING = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but for tab and line feed
    "\xad\u061c\u180e\u200b\u200e\u200f\u2060-\u206f\ufeff\ufff9-\ufffb"  # unseen, or turning letters around
    "\u2028-\u202e"  # ends of lines and paragraphs; embeddings and overrides of direction
    "\ud800-\udfff"  # halves of a character, which no encoding has
    "\U000e0000-\U000e0fff"  # invisible letters
    "]"
)
"""Characters that are not shown as they are. Joiners (U+200C, U+200D) are: words of many languages and emoji are
spelled with them.
"""


def visible(text: str) -> str:
    """Text whose every character is seen and none acts: `\\x1b` for the one that begins a command to the terminal."""
    return ACTING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class Terminal(Console):
    """A console for text of any origin; of markup, emoji codes and numbers it makes nothing.

    Args:
        settings: of `rich.console.Console`.
    """

    def __init__(self, **settings: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print; tables as they fit (`tables.py`), and long lines in a terminal cut between words.

        A line that is cut goes on below its beginning. In a file or a pipe those with `soft_wrap` are whole, however
        long, so that they are found there.
        """
        if self.is_terminal and "end" not in how:
            how |= {"soft_wrap": False}
            objects = tuple(_hanging(one) for one in objects)
        super().print(*(fitted(one, self) if isinstance(one, Table) else one for one in objects), **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Text to show; escaped here, before rich measures it and leaves some controls out."""
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The same for what was no string; rich's own document_ids of control remain."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def status(self, status: RenderableType, **how: Any) -> Status:
        """A line that changes, beside a spinner."""
        return _Status(_plain(status), console=self, **how)


def _hanging(shown: Any) -> Any:
    """A line with blanks before it, so that all it is cut into has them."""
    if not isinstance(shown, str) or "\n" in shown or not (blanks := len(shown) - len(shown.lstrip(" "))):
        return shown
    return Padding(_plain(shown.lstrip(" ")), (0, 0, 0, blanks), expand=False)


class _Status(Status):
    """rich's own takes every string for markup, whatever its console does."""

    def update(self, status: RenderableType | None = None, **how: Any) -> None:
        super().update(_plain(status), **how)


def _plain(shown: Any) -> Any:
    return Text(visible(shown)) if isinstance(shown, str) else shown
