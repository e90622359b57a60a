"""Where do the seconds of `lilliput eval` go besides the model's?

    python benchmarks/eval_command.py DATA [--suite open-slm] [--limit N] [--repeats 3] [--out FILE.json]

DATA is a folder as --eval-data takes it. The command runs in a process of its own each time, on a random model with one
narrow layer, whose forward passes are left out: likelihoods are made up. So what is timed is the same on every device.
The table has the median of each stage, by the clock and of all processors.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

STAGES = "imports, loading", "questions", "tasks", "requests", "encoding", "batches", "metrics", "records", "the rest"
Times = dict[str, list[float]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--suite", default="open-slm")
    arguments.add_argument("--limit", type=int, help="only the first so many items of each task")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--model", type=Path, help=argparse.SUPPRESS)  # given to the process that runs the command
    given = arguments.parse_args()
    if given.model:
        print(json.dumps(stages(given)))
        return
    from lilliput.base.environment import environment
    from lilliput.base.files import write_json

    with TemporaryDirectory() as work:
        again = [sys.executable, *sys.argv, "--model", str(narrow_model(given.data, Path(work) / "narrow"))]
        runs = [json.loads(subprocess.check_output(again, env=os.environ)) for _ in range(given.repeats)]
    if given.out:
        write_json(given.out, {"suite": given.suite, "limit": given.limit, "runs": runs, "environment": environment()})
    print(table(runs))


def stages(given: argparse.Namespace) -> Times:
    """Run the command in this process; return the seconds of each stage."""
    began = clocks()
    from lilliput.cli import app  # noqa: F401, the first of the imports
    from lilliput.cli.app import main as command

    found: Times = {stage: [0.0, 0.0] for stage in STAGES}
    leave_out_passes()
    import lm_eval.evaluator
    from lm_eval.api.task import Task

    from lilliput.evals import harness, lilliput_model, question_files, run_suite
    from lilliput.evals.request_tokens import RequestTokenizer

    def timed(owner: Any, name: str, stage: str, *inner: str) -> None:
        """Add the seconds of a function to a stage, less those that it adds to inner stages."""
        function: Callable[..., Any] = getattr(owner, name)

        def run(*given: Any, **settings: Any) -> Any:
            before, within = clocks(), [sum(found[one][clock] for one in inner) for clock in (0, 1)]
            result = function(*given, **settings)
            for clock, (start, end) in enumerate(zip(before, clocks(), strict=True)):
                spent = sum(found[one][clock] for one in inner) - within[clock]
                found[stage][clock] += end - start - spent
            return result

        setattr(owner, name, run)

    def begun(*given: Any, **settings: Any) -> Any:
        found[STAGES[0]] = [end - start for start, end in zip(began, clocks(), strict=True)]
        return evaluate(*given, **settings)

    evaluate, run_suite.evaluate = run_suite.evaluate, begun
    timed(question_files.Folder, "questions", "questions")
    timed(harness, "load_tasks", "tasks")
    timed(Task, "build_all_requests", "requests")
    timed(RequestTokenizer, "pairs", "encoding")
    timed(lilliput_model, "score", "batches")
    timed(lm_eval.evaluator, "evaluate", "metrics", "requests", "encoding", "batches")
    timed(harness, "write_records", "records")
    with TemporaryDirectory() as work, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        sys.argv = ["lilliput", "eval", str(given.model), "--suite", given.suite, "--eval-data", str(given.data)]
        sys.argv += ["--device", "cpu", "--records", f"{work}/records.jsonl"]
        sys.argv += ["--limit", str(given.limit)] if given.limit else []
        try:
            command()
        except SystemExit as ended:
            if ended.code:
                raise
        whole = [end - start for start, end in zip(began, clocks(), strict=True)]
    found["the rest"] = [whole[clock] - sum(each[clock] for each in found.values()) for clock in (0, 1)]
    return found


def leave_out_passes() -> None:
    """Make up the likelihoods of batches that are as large as on a GPU."""
    import numpy as np
    import torch

    from lilliput.generate import log_likelihood

    def made_up(self: Any, batch: list[Any]) -> Any:
        wanted = [one for group in batch for row in group.rows for one in self._wanted[row]]
        owners = np.concatenate([np.full(len(one.targets), one.request) for one in wanted])
        values = torch.from_numpy(owners * 7_919 % 1_013 / -100.0)
        return owners, values, torch.zeros(len(owners), dtype=torch.bool), sum(len(group.rows) for group in batch)

    log_likelihood._Scoring._scored = made_up
    log_likelihood.POSITIONS["cpu"] = log_likelihood.POSITIONS["cuda"]


def narrow_model(data: Path, folder: Path) -> Path:
    """SLM-10M's shape with one narrow layer, and its size of vocabulary."""
    import eval_speed

    from lilliput.nn.ffn import SwiGLU

    model = eval_speed.slm_10m
    mixer: Any = model.mixer
    narrow = replace(mixer, heads=2, kv_heads=1, head_width=16)
    eval_speed.slm_10m = replace(model, width=32, layers=1, mixer=narrow, ffn=SwiGLU(inner=64))
    return eval_speed.random_model(data, folder)


def clocks() -> tuple[float, float]:
    """Seconds by the clock, and of all processors."""
    return time.perf_counter(), time.process_time()


def table(runs: list[Times]) -> str:
    """The median of each stage, in Markdown."""
    whole = [{"all": [sum(each[clock] for each in run.values()) for clock in (0, 1)], **run} for run in runs]
    rows = [(stage, [median(run[stage][clock] for run in whole) for clock in (0, 1)]) for stage in (*STAGES, "all")]
    lines = [f"| {stage} | {wall:.1f} | {processor:.1f} |" for stage, (wall, processor) in rows]
    return "\n".join(["| stage | seconds | of all processors |", "|---|--:|--:|", *lines])


if __name__ == "__main__":
    main()
