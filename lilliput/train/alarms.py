"""Alarms of objectives: a line where the mean of a recorded term over the last steps lies beyond its limit.

A limit that was passed is doubled, so that a term that keeps drifting is reported a few times and not at each step.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite

from lilliput.objectives.objective import Alarm, Objective
from lilliput.train.metrics_file import WINDOW

FEWEST = 10
"""Steps before a mean says anything."""


class AlarmWatch:
    """Watches the terms of the steps of a phase."""

    def __init__(self, objectives: Iterable[Objective]):
        alarms = dict.fromkeys(alarm for objective in objectives for alarm in getattr(objective, "alarms", ()))
        self._watched = [_Watched(alarm) for alarm in alarms]

    def see(self, numbers: Mapping[str, float]) -> Iterator[str]:
        """Yield a line for each alarm that the numbers of one more step set off."""
        for watched in self._watched:
            if watched.alarm.number in numbers and (line := watched.see(numbers[watched.alarm.number])):
                yield line


class _Watched:
    def __init__(self, alarm: Alarm):
        self.alarm, self._recent, self._factor = alarm, deque[float](maxlen=WINDOW), 1.0

    def see(self, value: float) -> str | None:
        if isfinite(value):
            self._recent.append(value)
        mean = sum(self._recent) / max(1, len(self._recent))
        if len(self._recent) < FEWEST or not self._is_beyond(mean):
            return None
        while self._is_beyond(mean):
            self._factor *= 2
        return self.alarm.says.format(amount=abs(mean))

    def _is_beyond(self, mean: float) -> bool:
        below, above = self.alarm.below, self.alarm.above
        is_low = below is not None and mean < below * self._factor
        return is_low or (above is not None and mean > above * self._factor)
