"""Does `lilliput eval` on local files say what lm-evaluation-harness says by itself, to the last item?

    python benchmarks/eval_parity.py DATA MODEL [--suite open-slm] [--tasks A,B] [--limit N] [--out FILE.json]

DATA is a folder as --eval-data takes it, MODEL a published model. Each task of the suite whose file is in DATA is asked
twice, in processes of their own without network: by `lilliput eval --model-code transformers`, and by the harness's own
command on its own task files, unchanged; `eval_speed.py` compares Lilliput's own forward pass. The harness reads the
same questions from a folder named like its dataset on the hub, where `datasets` looks before it asks the network. Every
item is compared: the question, the log-likelihood of each choice, the choice that is predicted, and each metric. --out
writes a table in Markdown beside the JSON.
"""

import argparse
import bz2
import gzip
import json
import lzma
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lilliput.base.environment import environment
from lilliput.base.files import sha256, write_json, write_text
from lilliput.evals.local_files import FILES
from lilliput.evals.question_files import Folder
from lilliput.evals.suites import TaskUse, named
from lilliput.publish.remote_code import check_code

OPENED: dict[str, Callable[..., Any]] = {".jsonl": open, ".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
Row = dict[str, Any]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--suite", default="open-slm")
    arguments.add_argument("--tasks", default="", help="only these, separated by commas")
    arguments.add_argument("--limit", type=int, help="only the first so many items of each task")
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    suite, chosen = named(given.suite), [name for name in given.tasks.split(",") if name]
    uses = [use for use in (*suite.tasks, *suite.optional) if not chosen or use.task in chosen]
    there = [use for use in uses if use.shipped and Folder(given.data).missing(use) is None]
    result: dict[str, Any] = {
        "suite": given.suite,
        "left out": [use.task for use in uses if use not in there],
        "model": {"folder": given.model.name, "weights": sha256(given.model / "model.safetensors")},
        "batch size": given.batch_size,
        "limit": given.limit,
        "tasks": {},
    }
    settings = ["--device", "cpu", "--batch_size", str(given.batch_size)]
    settings += ["--limit", str(given.limit)] if given.limit else []
    for use in there:
        with TemporaryDirectory() as work:
            result["tasks"][use.task] = compare(use, given.data, given.model, given.suite, settings, Path(work))
        print(line(use.task, result["tasks"][use.task]), flush=True)
    result["environment"] = environment()
    print(f"\n{table(result)}")
    if given.out:
        write_json(given.out, result)
        write_text(given.out.with_suffix(".md"), page(result))
    sys.exit(0 if all(is_equal(found) for found in result["tasks"].values()) and there else 1)


def compare(use: TaskUse, data: Path, model: Path, suite: str, settings: Sequence[str], work: Path) -> Row:
    """Ask a task both ways and compare the items."""
    count = write_dataset(use, data, work / "hub")
    records, logs = work / "records.jsonl", work / "logs"
    ours = [sys.executable, "-m", "lilliput", "eval", str(model.resolve()), "--suite", suite, "--tasks", use.task]
    ours += ["--eval-data", str(data.resolve()), "--records", str(records), "--json"]
    ours += ["--model-code", "transformers"]
    ours += [word.replace("_", "-") if word.startswith("--") else word for word in settings]
    theirs = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", use.task, "--log_samples"]
    loaded = f"pretrained={model.resolve()},dtype=float32,softmax_dtype=float32,trust_remote_code={check_code(model)}"
    theirs += ["--model_args", loaded, "--output_path", str(logs), *settings]
    first, our_times = timed(ours, work)
    _, their_times = timed(theirs, work / "hub")
    found = {score["metric"]: score["value"] for score in json.loads(first)["scores"]}
    reported = json.loads(max(logs.rglob("results_*.json")).read_text(encoding="utf-8"))["results"][use.task]
    items = compared(read_lines(records), read_lines(max(logs.rglob("samples_*.jsonl"))))
    return {
        "items in the file": count,
        **items,
        "scores": {name: {"lilliput": value, "lm_eval": reported[f"{name},none"]} for name, value in found.items()},
        "seconds": {"lilliput": our_times, "lm_eval": their_times},
    }


def compared(ours: list[Row], theirs: list[Row]) -> Row:
    """How many items, and choices, are the same."""
    theirs = sorted(theirs, key=lambda sample: sample["doc_id"])
    same = {"questions": 0, "log-likelihoods": 0, "predictions": 0, "metrics": 0}
    choices, farthest = 0, 0.0
    for one, other in zip(sorted(ours, key=lambda record: record["doc_id"]), theirs, strict=True):
        totals = [float(total) for total, _ in other["filtered_resps"]]
        pairs = list(zip(one["log_likelihoods"], totals, strict=True))
        choices += len(pairs)
        farthest = max([farthest, *(abs(mine - its) for mine, its in pairs)])
        hashes = [(record["doc_id"], record["doc_hash"]) for record in (one, other)]
        same["questions"] += hashes[0] == hashes[1] and str(one["target"]) == other["target"]
        same["log-likelihoods"] += sum(mine == its for mine, its in pairs)
        same["predictions"] += one["prediction"] == totals.index(max(totals))
        same["metrics"] += all(one[metric] == float(other[metric]) for metric in other["metrics"])
    return {"items": len(theirs), "choices": choices, "equal": same, "largest difference": farthest}


def read_lines(path: Path) -> list[Row]:
    """The objects of a JSON Lines file; what stands in one may hold other ends of lines."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").split("\n") if text]


def write_dataset(use: TaskUse, data: Path, hub: Path) -> int:
    """Put a task's file where its dataset is looked for; the number of its rows."""
    import lm_eval.tasks

    shipped = Path(lm_eval.tasks.__file__).parent / str(use.shipped)
    manager: Any = lm_eval.tasks.TaskManager(include_path=[shipped], include_defaults=False)
    settings, file = manager.task_index[use.task].cfg, FILES[use.task]
    found = next(path for path in sorted(data.glob(f"{file.name}.jsonl*")) if path.suffix in OPENED)
    with OPENED[found.suffix](found, "rt", encoding="utf-8") as lines:
        rows = [file.rewrite(json.loads(text)) for text in lines if text.strip()]
    folder = hub / settings["dataset_path"]
    folder.mkdir(parents=True)
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    # Training questions are loaded too, and not asked without examples in the prompt.
    splits = "".join(f"  - split: {split}\n    path: all.jsonl\n" for split in ("train", "validation", "test"))
    name = settings.get("dataset_name") or "default"
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {name}\n  data_files:\n{splits}---\n")
    return len(rows)


def timed(command: list[str], folder: Path) -> tuple[str, dict[str, float]]:
    """What a command printed, run in a folder without network, and its seconds: by the clock, and of all processors."""
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, {"wall": round(wall, 1), "processor": round(processor, 1)}


def is_equal(found: Row) -> bool:
    """Whether every item that was asked came out the same; a log-likelihood may differ by its rounding."""
    same = found["equal"]
    whole = all(same[name] == found["items"] for name in ("questions", "predictions", "metrics"))
    return whole and found["largest difference"] < 1e-3


def line(task: str, found: Row) -> str:
    """A row of the table."""
    same = found["equal"]
    scores = "; ".join(f"{name} {value['lilliput']:.4f}" for name, value in found["scores"].items())
    cells = [
        task,
        f"{found['items']:,} of {found['items in the file']:,}",
        *(f"{same[name]:,}" for name in ("questions", "predictions", "metrics")),
        f"{same['log-likelihoods']:,} of {found['choices']:,}",
        f"{found['largest difference']:.1e}" if found["largest difference"] else "0",
        scores,
        *(f"{times['wall']:,.0f} s ({times['processor']:,.0f})" for times in found["seconds"].values()),
    ]
    return f"| {' | '.join(cells)} |"


def table(result: Row) -> str:
    """All tasks, in Markdown."""
    columns = ["task", "items", "same question", "same prediction", "same metrics", "log-likelihoods equal to the bit"]
    columns += ["largest difference, nats", "score", "`lilliput eval`", "`lm-eval run`"]
    rule = ["---", *["--:"] * 6, "---", "--:", "--:"]
    rows = [line(task, found) for task, found in result["tasks"].items()]
    return "\n".join([f"| {' | '.join(columns)} |", f"|{'|'.join(rule)}|", *rows])


def page(result: Row) -> str:
    """The table with what it was made from."""
    packages = ", ".join(f"{name} {version}" for name, version in result["environment"]["packages"].items())
    model = f"`{result['model']['folder']}`, weights {result['model']['weights'][:12]}"
    asked = "all items" if result["limit"] is None else f"the first {result['limit']:,} items of each task"
    left_out = f" Not in the folder: {', '.join(result['left out'])}." if result["left out"] else ""
    return (
        f"# `lilliput eval` beside lm-evaluation-harness by itself: {result['suite']} ({date.today()})\n\n"
        f"`python benchmarks/eval_parity.py DATA MODEL --suite {result['suite']}`: {asked}, in batches of "
        f"{result['batch size']} rows,\nfp32; model {model}.{left_out}\n\n"
        f"{table(result)}\n\n"
        f"Seconds are those of whole commands, one task each, with what they load before the first question: by the "
        f"clock,\nand in brackets of all cores together, which other work on the machine lengthens less.\n"
        f"{result['environment']['processor']}, {result['environment']['cores']} cores; {packages}.\n"
    )


if __name__ == "__main__":
    main()
