"""Results of an evaluation: scores, averages, and a record of every item, from the harness's answers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lilliput.base.files import write_text
from lilliput.evals.averages import Average, AverageScore, averaged
from lilliput.evals.score import Score, against_chance, jackknife_stderr, mean_stderr, when_alike
from lilliput.evals.suites import TaskUse

ModelCode = Literal["lilliput", "transformers"]
"""The code that computed log-likelihoods: Lilliput's own forward pass, or the model class of transformers."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of one model."""

    scores: tuple[Score, ...]
    averages: tuple[AverageScore, ...] = ()
    versions: Mapping[str, str]
    """Versions of the libraries that a score depends on."""
    questions: Mapping[str, str] = field(default_factory=dict)
    """Hash of all public questions of a task, whatever the limit, by the harness's name of the task."""
    model_code: ModelCode
    absent: Mapping[str, str] = field(default_factory=dict)
    """Missing files of tasks that were left out, by the name of the task on cards."""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "scores": [asdict(score) for score in self.scores],
            "averages": [asdict(average) for average in self.averages],
            "versions": dict(self.versions),
            "questions": dict(self.questions),
            "absent": dict(self.absent),
            "model_code": self.model_code,
        }


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A task after the model went through it."""

    use: TaskUse
    task: Any
    """The harness's task."""
    answer: Any
    """Answer of the harness for it alone."""
    note: str
    """Note about its items for readers."""
    identity: str | None
    """Hash of all its questions where they are public ones."""

    def scores(self) -> list[Score]:
        """A score for every metric that the suite reports."""
        return [self._score(metric) for metric in self.use.metrics]

    def records(self) -> Iterator[dict[str, Any]]:
        """One JSON value an item: log-likelihoods, what was predicted, and what the metrics say."""
        delimiter = len(self.task.config.target_delimiter)
        for sample in self._samples():
            # A rolling log-likelihood is a number, that of a choice comes with whether greedy decoding finds it.
            totals = [answer[0] if isinstance(answer, tuple) else answer for answer in sample["filtered_resps"]]
            record = {"task": self.use.task, "doc_id": sample["doc_id"], "doc_hash": sample["doc_hash"]}
            record |= {"log_likelihoods": [float(total) for total in totals]}
            if len(totals) > 1:
                record |= {"target": sample["target"], "prediction": int(np.argmax(totals))}
                if "acc_norm" in sample["metrics"]:
                    lengths = [len(continuation) - delimiter for _, continuation in sample["arguments"]]
                    record["prediction_norm"] = int(np.argmax(np.asarray(totals) / np.asarray(lengths)))
            yield record | {metric: _number(sample[metric]) for metric in sample["metrics"]}

    def _samples(self) -> list[dict[str, Any]]:
        return self.answer["samples"][self.use.task]

    def _score(self, metric: str) -> Score:
        samples = [sample[metric] for sample in self._samples()]
        value = float(self.answer["results"][self.use.task][f"{metric},none"])
        if isinstance(samples[0], tuple):
            # (log-likelihood, bytes or words): these metrics are functions of the two sums alone.
            aggregate = self.task.aggregation()[metric]
            total, size = (sum(column) for column in zip(*samples, strict=True))
            without = [aggregate([(total - one, size - its)]) for one, its in samples if len(samples) > 1]
            stderr = jackknife_stderr(without) if without else None
        else:
            stderr = mean_stderr(samples)
        alike = "" if isinstance(samples[0], tuple) else when_alike(samples)
        chance, majority = self.use.chance, self.use.majority
        guessed = against_chance(value, stderr=stderr, chance=chance, majority=majority, items=len(samples))
        return Score(
            task=self.use.display,
            metric=metric,
            value=value,
            stderr=stderr,
            chance=chance,
            items=len(samples),
            higher_is_better=self.task.higher_is_better()[metric],
            note="; ".join(note for note in (self.note, alike, guessed) if note),
        )


def summed_up(answered: list[Answered], averages: tuple[Average, ...], model_code: ModelCode) -> Evaluation:
    """The scores of all tasks in their order, and the averages whose inputs are all there."""
    scores = [(one.use.task, score) for one in answered for score in one.scores()]
    found = {(task, score.metric): score for task, score in scores}
    values = (averaged(average, found) for average in averages)
    return Evaluation(
        scores=tuple(score for _, score in scores),
        averages=tuple(value for value in values if value is not None),
        versions=versions(),
        questions={one.use.task: one.identity for one in answered if one.identity is not None},
        model_code=model_code,
    )


def write_records(answered: list[Answered], path: Path) -> None:
    """Write the record of every item as JSON lines, to be compared item by item with another model's."""
    records = (record for one in answered for record in one.records())
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def versions() -> dict[str, str]:
    """Versions of the libraries that a score depends on, for the card."""
    return {name: version(name) for name in ("lm_eval", "transformers", "torch", "datasets", "tokenizers")}


def _number(value: Any) -> Any:
    return [float(part) for part in value] if isinstance(value, tuple) else float(value)
