"""A corpus seen through its filters, written to shards: in stages, by any number of tasks, with the same result.

    OUT/NAME/00000.jsonl.zst     the documents, a shard a task, in the order of the corpus
    OUT/NAME.json                what was read, kept and dropped, by reason and with samples
    OUT/.NAME/                   stages, their records and datatrove's logs

A stage's tasks that have completed are not run again, so that the same command resumes after any interruption.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lilliput.base.environment import usable_cores
from lilliput.base.errors import RecipeError, RunError
from lilliput.base.files import hash_of, read_json, sha256, write_json
from lilliput.base.spec import is_lilliputs, to_plain, types_in
from lilliput.data.corpora.concatenated import at_revision
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.corpora.filters.datatrove_filter import EXTRA
from lilliput.data.curate.executors import run_stages
from lilliput.data.curate.shard_files import SUFFIX, Drops
from lilliput.data.curate.stages import DOCUMENTS, DROPPED, KEYS, REPEATED, Stage, stages
from lilliput.data.curate.task_source import file_rows, innermost, most_tasks

_RECORD = "begun.json"


def evaluation_sets(corpus: Any) -> dict[str, list[str]] | None:
    """Return the evaluation sets that all shards which a corpus reads were `compared` with, and those `absent`.

    None where the corpus reads other files, or shards that were compared with nothing.
    """
    source, _ = innermost(corpus)
    if not isinstance(source, TextFiles):
        return None
    try:
        sets = [read_json(path.with_name(f"{path.name}.json"))["benchmarks"] for path in map(Path, source.paths)]
        compared = set.intersection(*(set(one["items"]) for one in sets))
        absent = set().union(*(one["absent"] for one in sets))
        return {"compared": sorted(map(str, compared)), "absent": sorted(map(str, absent))}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # some other file of that name, or none
        return None


@dataclass(frozen=True, kw_only=True)
class Curate:
    """One corpus to curate."""

    corpus: Filtered
    out: Path
    """Folder for all corpora of a recipe."""
    name: str
    tasks: int = 0
    """Tasks that share the corpus; 0 for one a core. There are never more than files."""
    executor: str = "local"
    settings: Mapping[str, str] = field(default_factory=dict)
    """Arguments of datatrove's executor."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Other facts for the report; documents depend on them, too."""

    @property
    def report(self) -> Path:
        """The file that is written last."""
        return self.out / f"{self.name}.json"

    @property
    def shards(self) -> Path:
        """The folder of documents: `--source NAME=` it."""
        return self.out / self.name

    def run(self) -> dict[str, Any] | None:
        """Run what has not been run, and return the report; None while a cluster still works.

        Raises:
            RecipeError: datatrove is not installed, or a filter is one that other processes do not know.
            RunError: the folder holds another curation, or a task failed.
        """
        try:
            import datatrove  # noqa: F401, imported again where it is called
        except ImportError as error:
            raise RecipeError("datatrove is not installed", where="lilliput curate", hint=EXTRA) from error
        source, filters = innermost(self.corpus)
        if strange := sorted(name for name in types_in(to_plain(self.corpus)) if not is_lilliputs(name)):
            raise RecipeError(
                f"{', '.join(strange)} is not known to other processes",
                where=f"the corpus {self.name!r}",
                hint="filters of your own run while a recipe's texts are read; curate with the others first",
            )
        content, work = source.identity(), self.out / f".{self.name}"
        source = at_revision(source, content)  # tasks that begin tomorrow read the same
        record = self._begin(work, source, content)
        if self.report.is_file():
            return read_json(self.report)
        made = stages(source, record.get("rows", []), filters, work, self.shards, record["tasks"])
        if not run_stages(made, work / "logs", self.executor, self.settings):
            if self.executor == "slurm":
                return None
            raise RunError(
                "not all tasks have completed",
                where=str(work / "logs"),
                hint="look into the logs of the tasks there; the same command runs those that are left",
            )
        return self._finish(work, made, record)

    def _begin(self, work: Path, source: Any, content: Any) -> dict[str, Any]:
        """The record of what is curated here, which is written by the first command."""
        inputs = hash_of({"corpus": to_plain(self.corpus), "content": content, "facts": dict(self.facts)})
        if not (work / _RECORD).is_file():
            if self.report.is_file() or self.shards.exists():
                raise self._other()
            rows = file_rows(source)
            write_json(work / _RECORD, {"inputs": inputs, "tasks": self._tasks(source, rows), "rows": rows})
        record = read_json(work / _RECORD)
        if record["inputs"] != inputs:
            raise self._other()
        if self.tasks and record["tasks"] != self._tasks(source, record.get("rows", [])):
            raise self._other()
        return record

    def _tasks(self, source: Any, rows: list[int]) -> int:
        return max(1, min(self.tasks or usable_cores(), most_tasks(source, rows)))

    def _other(self) -> RunError:
        return RunError(
            f"the folder holds another curation of {self.name!r}, or one with other tasks",
            where=str(self.out),
            hint="give another --out, or the recipe, files and --tasks that this one began with",
        )

    def _finish(self, work: Path, made: list[Stage], record: dict[str, Any]) -> dict[str, Any]:
        drops, read = Drops(), 0
        for folder in sorted(work.glob(f"*/{DROPPED}")):
            for path in sorted(folder.glob("*.json")):
                one = read_json(path)
                drops.merge(one)
                read += one.get("documents", 0)
        shards = sorted(self.shards.glob(f"*{SUFFIX}"))
        report = {
            "corpus": to_plain(self.corpus),
            "tasks": record["tasks"],
            "documents": {"read": read, "kept": read - sum(drops.counts.values())},
            "dropped": drops.counts,
            "samples": drops.samples,
            "shards": {shard.name: {"bytes": shard.stat().st_size, "sha256": sha256(shard)} for shard in shards},
        } | dict(self.facts)
        for stage in made:  # all have completed, and the report is what ends the work
            for leftover in (DOCUMENTS, KEYS, REPEATED):
                shutil.rmtree(work / stage.name / leftover, ignore_errors=True)
        write_json(self.report, report)
        return report
