"""`replies.html`: a teacher's replies by what became of them, on one page that needs nothing but itself."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.files import write_text
from lilliput.base.text_units import duration, number
from lilliput.data.replies.reply import Reply
from lilliput.data.replies.reply_filters import REASONS
from lilliput.data.replies.teacher_replies import TeacherReplies
from lilliput.report.page import render

PAGE = "replies.html"
SHOWN = 100
"""Replies of a reason on the page, drawn from all over them."""
KEPT = "kept"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The replies of a corpus by reason, `kept` first."""

    name: str
    by_reason: Mapping[str, list[Reply]]
    overlaps: Mapping[str, Any]
    """Tasks that a prompt or its reply overlaps, by key."""

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of replies by reason."""
        return {reason: len(replies) for reason, replies in self.by_reason.items()}


def judged(name: str, replies: TeacherReplies) -> Judged:
    """Sort the replies of a corpus by reason."""
    found: dict[str, list[Reply]] = {reason: [] for reason in (KEPT, *REASONS)}
    for reply, reason in replies.judged():
        found[reason or KEPT].append(reply)
    by_reason = {reason: some for reason, some in found.items() if some or reason == KEPT}
    return Judged(name=name, by_reason=by_reason, overlaps=replies.overlaps)


def write_replies_page(corpora: list[Judged], folder: Path) -> Path:
    """Write the page into the folder of a run, whole or not at all; the path of the page."""
    path = folder / PAGE
    facts = {"folder": folder.resolve().name, "corpora": [_corpus(one) for one in corpora], "shown": SHOWN}
    write_text(path, render("replies.html.jinja", facts))
    return path


def _corpus(corpus: Judged) -> dict[str, Any]:
    every = [reply for replies in corpus.by_reason.values() for reply in replies]
    kept = corpus.by_reason[KEPT]
    return {
        "name": corpus.name,
        "tiles": [
            (f"{len(every):,}", "replies"),
            (f"{len(kept):,}", "kept"),
            (f"{sum(reply.tokens for reply in kept) / max(1, len(kept)):,.0f}", "tokens of a kept one"),
            (number(sum(reply.tokens for reply in every)), "tokens written"),
        ],
        "teachers": [(name, f"{count:,}") for name, count in Counter(map(_teacher, every)).most_common()],
        "reasons": [
            {
                "name": reason,
                "key": f"{corpus.name}-{reason}".replace(" ", "-"),
                "count": f"{len(replies):,}",
                "replies": [_reply(reply, corpus.overlaps.get(reply.key, ())) for reply in _spread(replies)],
            }
            for reason, replies in corpus.by_reason.items()
        ],
    }


def _spread(replies: list[Reply]) -> list[Reply]:
    """As many as are shown, at equal distances."""
    step = max(1.0, len(replies) / SHOWN)
    return [replies[int(place * step)] for place in range(min(SHOWN, len(replies)))]


def _teacher(reply: Reply) -> str:
    return f"{reply.teacher} at {reply.host}" if reply.host else reply.teacher


def _reply(reply: Reply, overlaps: Any) -> dict[str, Any]:
    settings = ", ".join(f"{name} {value}" for name, value in reply.settings.items())
    facts = [
        _teacher(reply),
        settings,
        f"finish reason: {reply.finish}",
        *([f"{reply.tokens:,} tokens in {duration(reply.seconds)}"] if reply.seconds else []),
        reply.at,
        *([f"overlaps {', '.join(overlaps)}"] if overlaps else []),
        *([reply.error] if reply.error else []),
    ]
    return {"id": reply.id, "prompt": reply.prompt, "text": reply.text, "facts": [fact for fact in facts if fact]}
