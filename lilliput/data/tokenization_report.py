"""Reports the tokenization of a corpus: its progress, and in the end the contents of each side."""

from collections.abc import Iterator, Mapping
from typing import Any

from lilliput.base.progress import Progress
from lilliput.base.text_units import duration, size
from lilliput.data.lost_conversations import in_words, lost
from lilliput.data.split import Split
from lilliput.data.token_files import SIDES
from lilliput.data.tokenization_progress import TokenizationProgress

COUNTED = ("bytes", "documents", "conversations", "pairs", "rows", "tokens")
"""Counts of a side, by the keys of a token index."""
_HELD_OUT = {
    "ends": "few texts, so the last {:.4g}% of each is held out",
    "large": "some texts are more than {0:.4g}% of all, so the last {0:.4g}% of each of these is held out, too",
    "lowest": "few, so whole ones are held out, {:.4g}% but at least one, by the lowest hashes of their names",
}


def lines_of(outputs: Mapping[str, Any], split: Split) -> Iterator[str]:
    """Yield what became of a corpus, by the outputs of its part of the run."""
    sides = outputs["sides"]
    parts = [
        f"{side} " + ", ".join(_counted(sides[side][key], key) for key in COUNTED if key in sides[side])
        for side in SIDES
    ]
    yield f"{'; '.join(parts)}; text {outputs['text_sha256'][:12]}"
    if outputs.get("held_out"):
        yield _HELD_OUT[outputs["held_out"]].format(100 * split.share)
    if outputs.get("dropped"):
        yield f"dropped: {', '.join(f'{count:,} {reason}' for reason, count in outputs['dropped'].items())}"
    if sets := outputs.get("decontaminated", {}).get("compared"):
        absent = outputs["decontaminated"]["absent"]
        yield f"compared with {', '.join(sets)}" + (f"; absent: {', '.join(absent)}" if absent else "")
    for side in SIDES:
        if counts := lost(sides[side]):
            yield f"{side} {in_words(counts)}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"


class ProgressLines:
    """Shows what is told of an encoding: at first what is there already, then how far it is."""

    def __init__(self, shown: Progress):
        self._shown, self._begun = shown, False

    def __call__(self, encoding: TokenizationProgress) -> None:
        if not self._begun and encoding.kept:
            self._shown.say(f"{encoding.kept:,} documents are encoded already, in {encoding.shards:,} closed files")
        for name in encoding.damaged if not self._begun else ():
            self._shown.say(f"the file {name} is damaged, what it stands for is encoded again")
        self._begun = True
        self._shown.show(_how_far(encoding))


def _how_far(encoding: TokenizationProgress) -> str:
    if encoding.documents < encoding.kept:
        return f"{encoding.documents:,} of {encoding.kept:,} documents read again, not encoded again"
    parts = [f"{encoding.documents:,} documents encoded"]
    if encoding.speed is not None:
        parts.append(f"{size(encoding.speed)}/s")
    if encoding.share is not None:
        parts.append(f"{100 * encoding.share:.0f}% of the corpus")
    if encoding.left is not None:
        parts.append(f"{duration(max(1.0, encoding.left))} left")
    return ", ".join(parts)
