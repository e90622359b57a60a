"""README.md of a release: the model card, or what somebody has made of it.

A run keeps each card as it wrote it last, `cards/<release>.md`. A README.md that differs from it is somebody's own: it
stays, also when its release is exported again, and the new card is kept beside the others only.
"""

from pathlib import Path

from lilliput.base.files import write_text
from lilliput.publish.export import CARD_FILE


def card_of(run: Path, release: str) -> Path:
    """Path of a release's card as it was last written, in the run and not in the uploaded folder."""
    return run / "cards" / f"{release}.md"


def edited(run: Path, release: str) -> bytes | None:
    """The edited README.md of a release; None if it is as it was written, or missing."""
    readme, last = run / "releases" / release / CARD_FILE, card_of(run, release)
    if not readme.is_file():
        return None
    own = readme.read_bytes()
    return None if last.is_file() and last.read_bytes() == own else own


def write_card(run: Path, release: str, text: str) -> bool:
    """Write the card of a release, whose folder is there; whether it became its README.md."""
    own = edited(run, release)
    is_ours = own is None or own == text.encode()  # equal where a kill came between the two lines below
    if is_ours:
        write_text(run / "releases" / release / CARD_FILE, text)
    write_text(card_of(run, release), text)
    return is_ours
