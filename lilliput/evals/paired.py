"""Two models on the same items: the difference of their scores, and an interval from the items' own differences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lilliput.base.errors import DataError

SAMPLES = 10_000
"""Draws of the bootstrap; the ends of an interval are then known to about a fiftieth of its width."""
LEVEL = 0.95
Records = Mapping[str, Sequence[Mapping[str, Any]]]
"""Records of items, as `write_records` writes them, by task."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A score of the second model less that of the first."""

    task: str
    metric: str
    items: int
    """Items that both models answered."""
    first: float
    second: float
    difference: float
    low: float
    high: float
    """Ends of the interval of the difference, at 95%."""

    @property
    def is_clear(self) -> bool:
        """Return whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, seed: int = 0, samples: int = SAMPLES
) -> tuple[float, float]:
    """Return the interval of the mean difference of paired values, at 95%, by resampling the items.

    Percentiles of the means of resampled differences (Efron 1979; for two systems on one test set, Koehn 2004).

    Args:
        first: values of one model, an item each.
        second: values of the other, in the same order.
        seed: of the draws.
        samples: number of draws.
    """
    values, counts = np.unique(np.asarray(second, dtype=np.float64) - np.asarray(first), return_counts=True)
    # Items with equal differences are alike to a mean, so that a draw is one of how often each of them comes.
    draws = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=samples)
    low, high = np.quantile(draws @ values / counts.sum(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def differences(first: Records, second: Records, *, seed: int = 0) -> list[Difference]:
    """Return the differences of every task and metric that is a mean of items, on the items of both.

    Args:
        first: records of one model.
        second: of the other.
        seed: of the draws.

    Raises:
        DataError: they have no item in common, or items of one number are others.
    """
    found = []
    for task, records in first.items():
        others = {record["doc_id"]: record for record in second.get(task, ())}
        pairs = [(record, others[record["doc_id"]]) for record in records if record["doc_id"] in others]
        for one, other in pairs:
            if one["doc_hash"] != other["doc_hash"]:
                raise DataError(
                    f"item {one['doc_id']} of {task} is another one in the second record",
                    where="the records of items",
                    hint="evaluate both models on the same questions",
                )
        metrics = [name for name in ("acc", "acc_norm", "acc_bytes") if pairs and name in pairs[0][0]]
        found += [_difference(task, name, pairs, seed) for name in metrics]
    if not found:
        raise DataError(
            "the two records have no scored item in common",
            where="the records of items",
            hint="evaluate both models on the same suite, or with --records on the same tasks",
        )
    return found


def _difference(
    task: str, metric: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], seed: int
) -> Difference:
    first, second = ([float(pair[side][metric]) for pair in pairs] for side in (0, 1))
    low, high = paired_bootstrap(first, second, seed=seed)
    means = float(np.mean(first)), float(np.mean(second))
    return Difference(
        task=task,
        metric=metric,
        items=len(pairs),
        first=means[0],
        second=means[1],
        difference=means[1] - means[0],
        low=low,
        high=high,
    )
