"""Executors of datatrove that run stages: processes of this machine, a Slurm cluster, or Ray."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from lilliput.base.environment import usable_cores
from lilliput.base.errors import RunError
from lilliput.data.curate.stages import Stage

ExecutorName = Literal["local", "slurm", "ray"]
"""Place where tasks run."""


def run_stages(made: Sequence[Stage], logs: Path, executor: str, settings: Mapping[str, str]) -> bool:
    """Run stages one after the other, tasks that have completed aside; return whether all have by now.

    Args:
        made: the stages.
        logs: folder for datatrove's logs and marks of completed tasks.
        executor: where they run. Slurm's jobs are submitted and not waited for.
        settings: arguments of the executor of datatrove, such as Slurm's `time` and `partition`.

    Raises:
        RunError: there is no such executor, or a setting of it is missing or unknown.
    """
    if executor not in get_args(ExecutorName):
        raise RunError(
            f"there is no executor {executor!r}",
            where="--executor",
            hint=f"one of: {', '.join(get_args(ExecutorName))}",
        )
    logs.mkdir(parents=True, exist_ok=True)
    with _into(logs / "datatrove.log"):
        if executor == "ray":
            _begin_ray()
        last = None
        for stage in made:
            last = _executor(stage, logs / stage.name, executor, settings, last)
            if executor != "slurm":
                last.run()
                if last.get_incomplete_ranks():
                    return False
        if executor == "slurm" and last is not None:
            last.run()  # submits those that it depends on first
        return last is None or not last.get_incomplete_ranks()


def _executor(stage: Stage, logs: Path, name: str, settings: Mapping[str, str], before: Any) -> Any:
    given: dict[str, Any] = {"pipeline": stage.steps, "tasks": stage.tasks, "logging_dir": str(logs)}
    if name == "local":
        from datatrove.executor import LocalPipelineExecutor as Executor

        given["workers"] = min(stage.tasks, usable_cores())
    elif name == "ray":
        from datatrove.executor.ray import RayPipelineExecutor as Executor
    else:
        from datatrove.executor.slurm import SlurmPipelineExecutor as Executor

        given |= {"job_name": f"lilliput-{stage.name}", "depends": before, "slurm_logs_folder": str(logs / "slurm")}
        given["env_command"] = f"export PATH={Path(sys.executable).parent}:$PATH"
    given |= {key: int(value) if value.isdecimal() else value for key, value in settings.items()}
    try:
        return Executor(**given)
    except TypeError as error:
        raise RunError(
            f"the executor does not take these settings ({error})",
            where=f"--executor {name}",
            hint="give --executor-setting NAME=VALUE; Slurm needs time and partition",
        ) from error


def _begin_ray() -> None:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RunError("ray is not installed", where="--executor ray", hint="pip install ray") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)


@contextmanager
def _into(path: Path) -> Iterator[None]:
    """Send what libraries and their processes write to stderr to a file: datatrove tells every step of every task."""
    sys.stderr.flush()
    with path.open("ab") as file:
        kept = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
