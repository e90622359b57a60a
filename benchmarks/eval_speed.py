"""How long does an evaluation take through Lilliput's own forward pass, and through lm-evaluation-harness's `hf` model?

    python benchmarks/eval_speed.py DATA [MODEL] [--suite open-slm] [--tasks A,B] [--limit N] [--device cuda]
                                    [--batch-sizes 16,64,256] [--threads N] [--out FILE.json]

DATA is a folder as --eval-data takes it. MODEL is a folder that Lilliput can load; without one it is of SLM-10M's shape
and has random weights. Both models get the harness's own requests, task by task, in one process, and every item is
compared: the log-likelihood of each choice, and the choices predicted by acc and by acc_norm. The `hf` model runs at
the batch size that was fastest on some items of each task. The whole command is timed too: `lilliput eval`, from its
start to its table.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.evals.lilliput_model import LilliputModel
from lilliput.evals.load_tasks import compiled_once, load_tasks
from lilliput.evals.made_items import write_arithmetic
from lilliput.evals.offline import offline
from lilliput.evals.question_files import Folder, asked, from_file
from lilliput.evals.suites import ARITHMARK2_SYNTHETIC, TaskUse, named
from lilliput.nn.init import Normal
from lilliput.publish.export import Generation, export
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.publish.load import load
from lilliput.publish.remote_code import check_code
from lilliput.recipes.slm_10m import model as slm_10m
from lilliput.run.native import native
from lilliput.tokenizer.bpe import BPE

SAMPLE = {"cpu": 64, "cuda": 1024}
"""Items of each task that batch sizes are compared on: as many as the largest batch, at least."""
BATCH_SIZES = {"cpu": "1,4,16,32", "cuda": "64,256,1024"}
CLOSE = 1e-3
"""Nats that log-likelihoods may differ by."""
Row = dict[str, Any]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("model", type=Path, nargs="?")
    arguments.add_argument("--suite", default="open-slm")
    arguments.add_argument("--tasks", default="", help="only these, separated by commas")
    arguments.add_argument("--limit", type=int, help="only the first so many items of each task")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--batch-sizes", default="", help="of the hf model, separated by commas")
    arguments.add_argument("--threads", type=int)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = given.model or random_model(given.data, work / "random-slm-10m")
        result = {
            "command": timed_command(folder, given),
            **measured(folder, given, work),
            "environment": environment(),
        }
    if given.out:
        write_json(given.out, result)
    print(table(result))
    sys.exit(0 if all(row["same predictions"] for row in result["tasks"].values()) else 1)


def measured(folder: Path, given: argparse.Namespace, work: Path) -> Row:
    """Both models on every task."""
    sizes = [int(size) for size in (given.batch_sizes or BATCH_SIZES[given.device.partition(":")[0]]).split(",")]
    seconds: Row = {}
    with timed(seconds, "questions and requests"):
        tasks = requests_of(given, work)
    with offline(work):
        with timed(seconds, "loading the model, lilliput"):
            ours = LilliputModel(
                native(load(folder), folder), device=given.device, dtype="float32", batch_size=None, watcher=None
            )
        with timed(seconds, "loading the model, hf"):
            theirs = hf_model(folder, given.device)
        samples = [(use, part(requests, SAMPLE[given.device.partition(":")[0]])) for use, requests in tasks]
        for use, requests in samples:  # kernels are compiled, caches filled
            for model in (ours, theirs):
                answers(model, use, part(requests, 4))
        by_size: dict[int, float] = {}
        for size in sizes:
            theirs.batch_size_per_gpu = size
            by_size[size] = sum(answers(theirs, use, requests)[1]["wall"] for use, requests in samples)
        theirs.batch_size_per_gpu = best = min(by_size, key=by_size.__getitem__)
        rows = {}
        for use, requests in tasks:
            mine, my_times = answers(ours, use, requests)
            its, its_times = answers(theirs, use, requests)
            rows[use.task] = compared(requests, mine, its) | {"lilliput": my_times, "hf": its_times}
            print(f"{use.task}: {my_times['wall']:.1f} s and {its_times['wall']:.1f} s", file=sys.stderr, flush=True)
        encoded = [request.args for _, requests in tasks for request in requests]
        with timed(seconds, "encoding all requests, lilliput"):
            ours._tokenizer.pairs(encoded, "joined")
    return {
        "model": folder.name,
        "device": given.device,
        "threads": torch.get_num_threads(),
        "limit": given.limit,
        "hf seconds by batch size": by_size,
        "hf batch size": best,
        "stages": seconds,
        "tasks": rows,
    }


def requests_of(given: argparse.Namespace, work: Path) -> list[tuple[TaskUse, list[Any]]]:
    """The harness's requests of each task that is in the folder, and of generated arithmetic."""
    source, suite = Folder(given.data), named(given.suite)
    names = [name for name in given.tasks.split(",") if name]
    uses = [
        use
        for use in asked(suite, source, [ARITHMARK2_SYNTHETIC.task])
        if (not names or use.task in names) and (use == ARITHMARK2_SYNTHETIC or source.missing(use) is None)
    ]
    with offline(work), compiled_once():
        settings = {use.task: source.questions(use, work).settings for use in uses if use != ARITHMARK2_SYNTHETIC}
        if ARITHMARK2_SYNTHETIC in uses:
            made = write_arithmetic(work / "arithmetic.jsonl", seed=0)
            settings[ARITHMARK2_SYNTHETIC.task] = from_file(made, split="test", work=work)
        loaded = load_tasks(uses, settings, source=str(source))
        for task in loaded.values():
            task.build_all_requests(limit=given.limit)
    return [(use, loaded[use.task].instances) for use in uses]


def part(requests: Sequence[Any], items: int) -> list[Any]:
    """All requests of some items, spread over the task."""
    numbers = sorted({request.doc_id for request in requests})
    chosen = set(numbers[:: max(1, len(numbers) // items)][:items])
    return [request for request in requests if request.doc_id in chosen]


def hf_model(folder: Path, device: str) -> Any:
    """lm-evaluation-harness's `hf` model, with the encoding of ArithMark."""
    from lilliput.evals.hf_model import HFModel

    settings: dict[str, Any] = {"dtype": "float32", "batch_size": 1, "watcher": None}
    return HFModel(folder, device=device, trust_remote_code=check_code(folder), **settings)


def answers(model: Any, use: TaskUse, requests: Sequence[Any]) -> tuple[list[float], Row]:
    """The log-likelihood of each request, and the seconds for them: by the clock, and of all processors."""
    model.begin(use)
    began = time.perf_counter(), time.process_time()
    found = model.loglikelihood(list(requests), disable_tqdm=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    times = {"wall": time.perf_counter() - began[0], "processor": time.process_time() - began[1]}
    return [total for total, _ in found], times


def compared(requests: Sequence[Any], mine: Sequence[float], its: Sequence[float]) -> Row:
    """Count the items that both models predict alike."""
    items: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        items.setdefault(request.doc_id, []).append(index)
    lengths = [max(1, len(request.args[1].lstrip())) for request in requests]

    def predicted(totals: Sequence[float], score: Callable[[int], float]) -> list[int]:
        return [max(indices, key=lambda index: (score(index), -index)) for indices in items.values()]

    same = sum(
        one == other
        for one, other in zip(
            zip(*(predicted(mine, score) for score in (mine.__getitem__, lambda i: mine[i] / lengths[i])), strict=True),
            zip(*(predicted(its, score) for score in (its.__getitem__, lambda i: its[i] / lengths[i])), strict=True),
            strict=True,
        )
    )
    farthest = max(abs(one - other) for one, other in zip(mine, its, strict=True))
    return {
        "items": len(items),
        "same": same,
        "largest difference": farthest,
        "same predictions": same == len(items) and farthest < CLOSE,
    }


def timed_command(folder: Path, given: argparse.Namespace) -> Row:
    """Seconds of the whole command, in a process of its own."""
    command = [sys.executable, "-m", "lilliput", "eval", str(folder.resolve()), "--suite", given.suite, "--json"]
    command += ["--eval-data", str(given.data.resolve()), "--device", given.device]
    command += ["--tasks", given.tasks] if given.tasks else []
    command += ["--limit", str(given.limit)] if given.limit else []
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return {"seconds": time.perf_counter() - began, "model_code": json.loads(done.stdout)["model_code"]}


def random_model(data: Path, folder: Path) -> Path:
    """SLM-10M's shape with random weights, and a tokenizer of the questions' own text."""
    use = named("open-slm").tasks[0]
    with TemporaryDirectory() as work:
        texts = [json.dumps(row, ensure_ascii=False) for row in Folder(data).rows(use, Path(work))]
    model = replace(slm_10m, init=Normal(std=0.05)).build(0).eval()
    layout, generation = Qwen3Format(context=1_024), Generation()
    tokenizer = BPE(vocab=slm_10m.vocab).train(texts)
    export(model, tokenizer, folder, layout=layout, dtype="F32", generation=generation, chat_template=None)
    return folder


@contextmanager
def timed(seconds: Row, stage: str) -> Iterator[None]:
    """Add the seconds of a stage."""
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began


def table(result: Row) -> str:
    """All tasks, in Markdown."""
    lines = [
        f"{result['model']} on {result['device']}; hf in batches of {result['hf batch size']}, the fastest of "
        f"{', '.join(map(str, result['hf seconds by batch size']))}; seconds by the clock (of all processors)",
        "",
        "| task | items | same predictions | largest difference, nats | lilliput | hf | times as fast |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    rows = result["tasks"]
    sums = {side: {kind: sum(row[side][kind] for row in rows.values()) for kind in TIMES} for side in SIDES}
    whole = {
        "items": sum(row["items"] for row in rows.values()),
        "same": sum(row["same"] for row in rows.values()),
        "largest difference": max(row["largest difference"] for row in rows.values()),
    }
    for name, row in [*rows.items(), ("all", whole | sums)]:
        seconds = [f"{row[side]['wall']:.1f} ({row[side]['processor']:.1f})" for side in SIDES]
        ratio = row["hf"]["wall"] / row["lilliput"]["wall"]
        cells = [name, f"{row['items']:,}", f"{row['same']:,}", f"{row['largest difference']:.1e}", *seconds]
        lines.append(f"| {' | '.join(cells)} | {ratio:.2f} |")
    stages = "; ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result["stages"].items())
    command = result["command"]
    return "\n".join([*lines, "", stages, f"whole command `lilliput eval`: {command['seconds']:.1f} s"])


SIDES, TIMES = ("lilliput", "hf"), ("wall", "processor")

if __name__ == "__main__":
    main()
