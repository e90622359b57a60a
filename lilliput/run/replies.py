"""A teacher's replies as a lasting part of a run: `replies/<corpus>/replies.jsonl`, asked for once, filtered at will.

Every reply is on the disk before it counts, so that an interrupted run asks for those that are missing and for no other
twice. Filters, and overlaps with evaluation sets (`parts/overlaps.<corpus>.json`), are functions of what is kept.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from lilliput.base.errors import DataError
from lilliput.base.files import sha256
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.data.corpora.concatenated import at_revision
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.replies.asking import ask_and_keep
from lilliput.data.replies.prompts import Prompt, Prompts
from lilliput.data.replies.reply import FAILED, Reply
from lilliput.data.replies.reply_file import REPLIES, ReplyFile, read_replies
from lilliput.data.replies.teacher_replies import TeacherReplies
from lilliput.evals.benchmark_index import benchmark_index
from lilliput.evals.question_files import Folder
from lilliput.evals.suites import SUITES, Suite, named
from lilliput.recipe import Recipe
from lilliput.run.asking import Asking, answering
from lilliput.run.reply_progress import ReplyProgress

_FREE = ("filters", "license", "replies")
"""Fields of a teacher that do not change what a prompt is answered: more prompts may be asked at any time."""


class RunReplies:
    """The replies of the teachers of a recipe.

    Args:
        run: the open run.
        recipe: names the teachers.
        asking: means to ask them.
        console: where progress is shown.
    """

    def __init__(self, run: RunFolder, recipe: Recipe, asking: Asking, console: Console):
        self._run, self._recipe, self._asking, self._console = run, recipe, asking, console
        self._suites = tuple(named(release.suite) for release in recipe.releases.values())
        self._known: dict[str, TeacherReplies] = {}

    def readable(self, name: str) -> Any:
        """A corpus of the recipe as it can be read: of a teacher, the replies that it gave, or gives now.

        Raises:
            DataError: the teacher, or its prompts, are out of reach.
            RunError: the run was begun with another teacher, or other prompts.
        """
        corpus = self._recipe.corpora[name]
        if not isinstance(corpus, Teacher):
            return corpus
        if name not in self._known:
            replies = _CorpusReplies(
                run=self._run,
                name=name,
                teacher=corpus,
                asking=self._asking,
                suites=self._suites,
                decontaminate=self._recipe.decontaminate,
                console=self._console,
            )
            self._known[name] = replies.corpus()
        return self._known[name]


@dataclass(frozen=True, kw_only=True)
class _CorpusReplies:
    """The replies of one corpus of a run.

    A run that has them needs no teacher, no prompts and no evaluation sets.
    """

    run: RunFolder
    name: str
    """Name of the corpus."""
    teacher: Teacher
    asking: Asking
    suites: tuple[Suite, ...]
    """Suites that the recipe's releases are judged by."""
    decontaminate: bool
    """As of the recipe; without it no filter drops a reply for an overlap."""
    console: Console

    def corpus(self) -> TeacherReplies:
        """The replies as a chat corpus; what is missing is asked for."""
        outputs = self._asked()
        path = self.run.path / self._part / REPLIES
        is_compared = self.decontaminate and self.teacher.filters.benchmarks
        return TeacherReplies(
            path=path,
            sha256=outputs["sha256"],
            count=self.teacher.replies,
            filters=self.teacher.filters,
            overlaps=self._overlaps(path, outputs["sha256"]) if is_compared else {},
            evaluation_sets=self._evaluation_sets() if is_compared else None,
        )

    @property
    def _part(self) -> str:
        return f"replies/{self.name}"

    def _asked(self) -> dict[str, Any]:
        """The outputs of the part, which is made if it is not there."""
        plain = to_plain(self.teacher)
        asked = {key: value for key, value in plain.items() if key not in _FREE}
        begun = self.run.record(self._part).get("from")
        inputs = {"teacher": asked, "prompts": begun["prompts"] if begun else self.teacher.identity()}
        self.run.refuse_change(self._part, inputs)
        with self.run.part(self._part, inputs, self._is_whole) as part:
            if part.is_missing:
                part.outputs = self._ask(part.folder / REPLIES, inputs["prompts"])
        self._say(_summary(part.outputs, self.teacher))
        return part.outputs

    def _ask(self, path: Path, prompts_identity: Any) -> dict[str, Any]:
        prompts = Prompts(at_revision(self.teacher.prompts, prompts_identity), self.teacher.replies)
        with self.console.status(f"{self.name}: reading the prompts"):
            every = list(prompts)
        if not every:
            raise DataError(
                "there is no prompt to ask a teacher",
                where=f"the prompts of {self.name!r}: {_counted(prompts.skipped) or 'no conversation'}",
                hint="give a chat corpus with turns of a user",
            )
        with ReplyFile(path) as file:
            left = [prompt for prompt in every if prompt.key not in file.keys]
            if left:
                teacher, price = self.teacher, self.asking.price
                with ReplyProgress(self.console, self.name, left, teacher.asked, teacher.max_tokens, price) as progress:
                    if len(left) < len(every):
                        progress.say(f"{len(every) - len(left):,} replies are there, and are not asked for again")
                    self._collect(left, file, progress)
        return _outputs(path) | {"asked": self.teacher.replies, "skipped": dict(prompts.skipped)}

    def _is_whole(self, folder: Path, outputs: Any) -> bool:
        """Return whether as many prompts were asked as the recipe says, and their replies are there."""
        path = folder / REPLIES
        return outputs["asked"] == self.teacher.replies and path.is_file() and sha256(path) == outputs["sha256"]

    def _collect(self, prompts: list[Prompt], file: ReplyFile, progress: ReplyProgress) -> None:
        ask_and_keep(answering(self.teacher, self.asking), prompts, file, progress.add)
        if missing := [prompt for prompt in prompts if prompt.key not in file.keys]:
            raise DataError(
                f"{len(missing):,} prompts were not answered", where=str(file.path), hint="repeat the command"
            )

    def _overlaps(self, path: Path, replies: str) -> Mapping[str, list[str]]:
        """Tasks that a prompt or its reply overlaps, by key: looked for once, and again when an absent set is there."""
        name = f"overlaps/{self.name}"
        known = self.run.record(name)
        is_done = known.get("done") and known["from"]["replies"] == replies
        if is_done and not self._has_more(known["outputs"]["tasks"]):
            outputs = known["outputs"]
        else:
            with self.console.status(f"{self.name}: reading the evaluation sets"), TemporaryDirectory() as work:
                found = benchmark_index(self.suites, self.asking.questions, Path(work))
            inputs = {"replies": replies, "index": found.index.sha256, "absent": sorted(found.absent)}

            def build(folder: Path) -> dict[str, Any]:
                rows = list(read_replies(path))
                tasks = found.index.overlaps_of(map(_said, rows))
                overlaps = {row.key: list(each) for row, each in zip(rows, tasks, strict=True) if each}
                return {"tasks": list(found.index.items), "overlaps": overlaps}

            outputs = self.run.cached(name, inputs, build)
        absent = self.run.record(name)["from"]["absent"]
        compared = f"compared with {', '.join(outputs['tasks']) or 'no evaluation set'}"
        self._say(f"{compared}; absent: {', '.join(absent)}" if absent else compared)
        return outputs["overlaps"]

    def _evaluation_sets(self) -> dict[str, list[str]]:
        """The sets that replies were `compared` with, and those `absent`, once they have been."""
        record = self.run.record(f"overlaps/{self.name}")
        return {"compared": record["outputs"]["tasks"], "absent": record["from"]["absent"]}

    def _has_more(self, tasks: list[str]) -> bool:
        """Return whether the folder of evaluation sets has one that was not compared with."""
        source = self.asking.questions
        known = {use.task: use for suite in SUITES.values() for use in (*suite.tasks, *suite.optional)}
        others = [use for task, use in known.items() if task not in tasks]
        return isinstance(source, Folder) and any(source.missing(use) is None for use in others)

    def _say(self, line: str) -> None:
        self.console.print(f"{self.name}: {line}", highlight=False, markup=False, soft_wrap=True)


def _said(reply: Reply) -> str:
    """Everything that a student reads of a reply and its prompt."""
    return "\n".join(chain((content for _, content in reply.prompt), (reply.text,)))


def _outputs(path: Path) -> dict[str, Any]:
    replies = list(read_replies(path))
    return {
        "sha256": sha256(path),
        "replies": len(replies),
        "failed": sum(reply.finish == FAILED for reply in replies),
        "teachers": dict(Counter(reply.teacher for reply in replies)),
        "hosts": sorted({reply.host for reply in replies if reply.host}),
        "prompt_tokens": sum(reply.prompt_tokens or 0 for reply in replies),
        "completion_tokens": sum(reply.tokens for reply in replies),
    }


def _summary(outputs: Mapping[str, Any], teacher: Teacher) -> str:
    of = ", ".join(outputs["teachers"])
    instead = f", in the place of {teacher.model}" if teacher.stand_in else ""
    failed = f", {outputs['failed']:,} prompts without an answer" if outputs["failed"] else ""
    skipped = f"; passed over: {_counted(outputs['skipped'])}" if outputs["skipped"] else ""
    return f"{outputs['replies']:,} replies of {of}{instead}{failed}{skipped}; {outputs['sha256'][:12]}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
