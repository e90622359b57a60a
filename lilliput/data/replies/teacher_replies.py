"""Replies that a teacher has given, as the chat corpus that the recipe's `Teacher` stands for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.conversations import Conversation
from lilliput.data.corpora.filters.decontaminate import Decontaminate, overlapping
from lilliput.data.dropped import Dropped, kept
from lilliput.data.replies.reply import Reply
from lilliput.data.replies.reply_file import read_replies
from lilliput.data.replies.reply_filters import OVERLAP, ReplyFilters


@dataclass(frozen=True, kw_only=True)
class TeacherReplies:
    """Replies of a file, seen through filters."""

    path: Path
    sha256: str
    """Hash of the file."""
    count: int
    """Prompts whose replies are read: the file may have more, from when more were wanted."""
    filters: ReplyFilters
    overlaps: Mapping[str, Sequence[str]]
    """Tasks of evaluation that a prompt or its reply overlaps, by key."""
    evaluation_sets: Mapping[str, Sequence[str]] | None = None
    """The sets that prompts and replies were `compared` with, and those `absent`; None where they were not."""

    def identity(self) -> Any:
        """Return what the conversations depend on besides the filters."""
        return {"replies": self.sha256, "overlaps": {key: list(tasks) for key, tasks in self.overlaps.items()}}

    def judged(self) -> Iterator[tuple[Reply, str]]:
        """Every reply with the reason for dropping it, empty for one that is kept."""
        replies = (reply for reply in read_replies(self.path) if reply.number < self.count)
        return self.filters.judge(replies, self.overlaps)

    def conversations(self) -> Iterator[Conversation]:
        """Prompts with the replies that are kept, which alone are learned, in the order of the prompts.

        Raises:
            DataError: none is kept.
        """
        return kept(self.iterate())

    def iterate(self) -> Iterator[Conversation | Dropped]:
        """The same, and the reasons for dropping the others; with the tasks, where they overlap evaluation sets.

        Raises:
            DataError: none is kept.
        """
        dropped: Counter[str] = Counter()
        is_none_kept = True
        for reply, reason in self.judged():
            if reason:
                dropped[reason] += 1
                yield Dropped.of(self._with_tasks(reason, reply), reply.id, reply.text)
            else:
                is_none_kept = False
                yield Conversation(reply.messages(), reply.id, reply.group)
        if is_none_kept:
            raise DataError(
                f"no reply is kept: {', '.join(f'{count:,} {reason}' for reason, count in dropped.items())}",
                where=str(self.path),
                hint="look at them with `lilliput replies RUN`; change the Teacher's filters, or ask another one",
            )

    def _with_tasks(self, reason: str, reply: Reply) -> str:
        """A reason as texts are dropped for it."""
        return f"{Decontaminate.name}: {overlapping(self.overlaps[reply.key])}" if reason == OVERLAP else reason
