"""The logger of a phase in a run: its own on ranks that write the run, one that writes nothing on others."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from lilliput.run.context import RunContext
from lilliput.run.phase_lines import resuming
from lilliput.train.alarms import AlarmWatch
from lilliput.train.loggers.logger import LoggerGroup, RunInfo
from lilliput.train.metrics_file import last_step
from lilliput.train.metrics_log import MetricsLogger, NullLogger
from lilliput.train.phase import Phase, StepPlan

METRICS = "metrics.jsonl"
"""In the folder of a phase."""


def phase_logger(
    context: RunContext, phase: Phase, folder: Path, bytes_per_token: float | None
) -> Callable[[int], MetricsLogger]:
    """Return what opens the logger of a phase, given the step that training begins at.

    Args:
        context: of the run.
        phase: about to be trained.
        folder: of the phase, in the run.
        bytes_per_token: of its text; None where bits per byte are no measure.
    """
    if not context.writes:
        return lambda step: cast(MetricsLogger, NullLogger())
    steps, metrics = StepPlan(phase).steps, folder / METRICS
    left_at = last_step(metrics)

    def open_at(step: int) -> MetricsLogger:
        nonlocal left_at
        folder.mkdir(parents=True, exist_ok=True)
        if left_at:
            context.say(f"{phase.name}: {resuming(step, steps, left_at)}")
            left_at = 0  # a later return to a checkpoint is reported by training itself
        shown = RunInfo(run=context.run.path, recipe=context.recipe.name, phase=folder.name, step=step)
        return MetricsLogger(
            metrics,
            context.console,
            phase.name,
            steps,
            step,
            bytes_per_token,
            device=context.machine.device,
            after=context.report,
            feed=LoggerGroup(context.loggers, shown, context.say),
            alarms=AlarmWatch(stage.objective for stage in phase.stages),
        )

    return open_at
