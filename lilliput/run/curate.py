"""The filtered corpora of a recipe, written to a folder once, without the questions that its releases will be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from lilliput.base.errors import RecipeError
from lilliput.base.files import read_json, write_json
from lilliput.data.corpora.filters import Filtered
from lilliput.data.corpora.filters.decontaminate import Decontaminate
from lilliput.data.curate.curation import Curate
from lilliput.data.ngram_index import NgramIndex
from lilliput.evals.benchmark_index import benchmark_index
from lilliput.evals.question_files import QuestionSource
from lilliput.evals.suites import named
from lilliput.recipe import Recipe

_INDEX, _ABSENT = "index", "absent.json"


def curate(
    recipe: Recipe,
    out: Path,
    console: Console,
    *,
    questions: QuestionSource | None,
    tasks: int = 0,
    executor: str = "local",
    settings: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any] | None]:
    """Write every filtered corpus of a recipe to `out/<name>`, and return the reports by name; None while jobs run.

    Args:
        recipe: names the corpora and their filters.
        out: the folder; what it has is resumed.
        console: where progress is shown.
        questions: source of the evaluation sets, whose items no document may have; None for any document.
        tasks: tasks that share a corpus; 0 for one a core.
        executor: where tasks run: `local`, `slurm` or `ray`.
        settings: arguments of datatrove's executor.

    Raises:
        RecipeError: no corpus of the recipe has filters, or one has a filter that other processes do not know.
        RunError: the folder holds another curation, or a task failed.
    """
    filtered = {name: corpus for name, corpus in recipe.corpora.items() if isinstance(corpus, Filtered)}
    if not filtered:
        raise RecipeError(
            "no corpus of the recipe has filters",
            where=f"the recipe {recipe.name!r}",
            hint="give one filters: Filtered(source=..., filters=(...)), see docs/guides/curate.md",
        )
    facts: dict[str, Any] = {}
    if questions is not None:
        with console.status("reading the evaluation sets"):
            facts = {"benchmarks": _benchmarks(recipe, questions, out.resolve() / ".benchmarks")}
    reports: dict[str, dict[str, Any] | None] = {}
    for name, corpus in filtered.items():
        if questions is not None and not any(isinstance(one, Decontaminate) for one in corpus.filters):
            last = Decontaminate(index=str(out.resolve() / ".benchmarks" / _INDEX))
            corpus = replace(corpus, filters=_before_keys(corpus.filters, last))
        one = Curate(
            corpus=corpus,
            out=out,
            name=name,
            tasks=tasks,
            executor=executor,
            settings=settings or {},
            facts=facts,
        )
        with console.status(f"{name}: curating, logs in {out / f'.{name}' / 'logs'}"):
            reports[name] = one.run()
    return reports


def _before_keys(filters: Sequence[Any], last: Decontaminate) -> tuple[Any, ...]:
    """The filters with one more, before those that remember: what it drops is no earlier document to them."""
    first = next((index for index, one in enumerate(filters) if getattr(one, "remembers", True)), len(filters))
    return (*filters[:first], last, *filters[first:])


def _benchmarks(recipe: Recipe, questions: QuestionSource, folder: Path) -> dict[str, Any]:
    """Facts of the index of evaluation sets, which is made once."""
    if not (folder / _ABSENT).is_file():
        suites = [named(release.suite) for release in recipe.releases.values()]
        with TemporaryDirectory() as work:
            found = benchmark_index(suites, questions, Path(work))
        found.index.write(folder / _INDEX)
        write_json(folder / _ABSENT, dict(found.absent))
    index = NgramIndex.read(folder / _INDEX)
    return {
        "sha256": index.sha256,
        "items": {task: counts.indexed for task, counts in index.items.items()},
        "short": {task: counts.short for task, counts in index.items.items() if counts.short},
        "absent": read_json(folder / _ABSENT),
    }
