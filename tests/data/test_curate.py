"""A curation by any number of tasks, anywhere and after any interruption: the documents of the filters in order."""

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_curating
from tiny_curating import corpus, curate, killed, write_corpus, write_hub_corpus, written

from lilliput.base.errors import DataError, RecipeError, RunError
from lilliput.base.units import Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import FilterChain, SeenParagraphs
from lilliput.data.corpora.stand_in import StandIn
from lilliput.data.curate.curation import Curate, evaluation_sets
from lilliput.data.curate.task_source import file_rows, innermost, most_tasks, task_items

pytest.importorskip("datatrove")
pytest.importorskip("rensa")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("curate") / "texts")


@pytest.fixture(scope="module")
def hub(texts, tmp_path_factory) -> Path:
    """Return the folder of a dataset that the library `datasets` reads as one of the hub."""
    return write_hub_corpus(texts, tmp_path_factory.mktemp("hub") / "set")


@pytest.fixture(scope="module")
def whole(texts, tmp_path_factory) -> Path:
    """Return a curation by three tasks."""
    out = tmp_path_factory.mktemp("whole")
    assert curate(texts, out, tasks=3)
    return out


def read(out: Path) -> list[tuple[str, str, int]]:
    shards = TextFiles(paths=(str(out / "texts"),), columns=("n",))
    return [(document.id, document.text, document.metadata["n"]) for document in shards.documents()]


@pytest.mark.parametrize("tasks", [1, 2, 5, 9])
def test_any_number_of_tasks_write_what_one_process_reads(texts, tmp_path, tasks) -> None:
    report = curate(texts, tmp_path, tasks=tasks)
    chain = FilterChain(corpus(texts).filters)
    expected = [
        (document.id, document.text, document.metadata["n"]) for document in chain.run(corpus(texts).source.documents())
    ]
    assert read(tmp_path) == expected and len(expected) > 60
    dropped = {reason: count for reason, count in chain.counts.items() if reason != "kept"}
    assert report["dropped"] == dropped and min(dropped.values()) > 0 and len(dropped) >= 4
    assert report["documents"] == {"read": 145, "kept": len(expected)}
    assert report["tasks"] == min(tasks, tiny_curating.FILES) == len(report["shards"])
    assert all(0 < len(samples) <= 5 for samples in report["samples"].values())
    left = {path.name for path in (tmp_path / ".texts").rglob("*") if path.is_file()}
    assert not any(name.endswith((".keys", ".repeated", ".partial", ".zst")) for name in left)


def test_tasks_share_the_files_in_order(texts) -> None:
    source = corpus(texts).source
    for tasks in (1, 2, 3, 7):
        parts = [[item for item in task_items(source, rank, tasks)] for rank in range(tasks)]
        assert [item for part in parts for item in part] == list(source.documents())
    other = StandIn(source=source, missing="nothing")
    assert [len(list(task_items(other, rank, 2))) for rank in range(2)] == [145, 0]
    assert innermost(StandIn(source=corpus(texts), missing="nothing")) == (source, corpus(texts).filters)


@pytest.mark.parametrize("tasks", [1, 2, 9])
def test_tasks_share_the_parquet_files_of_the_hub(hub, tmp_path, tasks) -> None:
    report = curate(hub, tmp_path, tasks=tasks)
    assert report["tasks"] == min(tasks, tiny_curating.FILES) == len(report["shards"])
    expected = [(one.id, one.text, one.metadata["n"]) for one in corpus(hub).documents()]
    assert read(tmp_path) == expected and len(expected) > 50
    assert report["documents"] == {"read": 140, "kept": len(expected)}
    before = written(tmp_path)
    assert curate(hub, tmp_path, tasks=tasks) == report and written(tmp_path) == before


def test_shares_of_the_hub_are_the_corpus_with_the_numbers_of_its_rows(hub, tmp_path) -> None:
    source = corpus(hub).source
    rows = file_rows(source)
    assert rows == [28] * tiny_curating.FILES and most_tasks(source, rows) == tiny_curating.FILES
    for tasks in range(1, 6):
        parts = [list(task_items(source, rank, tasks, rows)) for rank in range(tasks)]
        assert [item for part in parts for item in part] == list(source.documents()) and all(parts)
    assert next(item.id for item in task_items(source, 4, 5, rows)) == f"{hub}/train:113"
    for budget in ({"rows": 9}, {"bytes": 5}, {"tokens": Tokens(5)}):
        assert file_rows(replace(source, **budget)) == [], "who knows in which file it ends"
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.jsonl").write_text('{"text": "a", "n": 1}\n')
    lines = replace(source, dataset=str(tmp_path / "lines"))
    assert file_rows(lines) == [] and most_tasks(lines, []) == 1
    assert [len(list(task_items(lines, rank, 2))) for rank in range(2)] == [1, 0]


def test_what_is_done_is_not_done_again_and_never_replaced(texts, whole) -> None:
    before = written(whole)
    assert curate(texts, whole, tasks=3)["documents"] and written(whole) == before
    for other in (replace(corpus(texts), filters=()), replace(corpus(texts), filters=corpus(texts).filters[:2])):
        with pytest.raises(RunError, match="another curation"):
            Curate(corpus=other, out=whole, name="texts", tasks=3).run()
    with pytest.raises(RunError, match="another curation"):
        curate(texts, whole, tasks=2)
    (whole / "mine").mkdir()
    with pytest.raises(RunError, match="another curation"):
        Curate(corpus=corpus(texts), out=whole, name="mine", tasks=3).run()
    (whole / "mine").rmdir()


def test_errors_of_tasks_arrive(tmp_path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jsonl").write_text('{"text": "fine", "id": "a", "n": 1}\n{"text": 5, "id": "b", "n": 1}\n')
    (tmp_path / "texts" / "b.jsonl").write_text('{"text": "fine", "id": "c", "n": 1}\n')
    with pytest.raises(DataError, match="is 5, not text"):
        curate(tmp_path / "texts", tmp_path / "out", tasks=2)
    (tmp_path / "texts" / "a.jsonl").write_text('{"text": "fine", "id": "a", "n": 1}\n')
    with pytest.raises(RunError, match="another curation"):
        curate(tmp_path / "texts", tmp_path / "out", tasks=2)
    assert curate(tmp_path / "texts", tmp_path / "other", tasks=2)["documents"] == {"read": 2, "kept": 0}


def test_filters_that_have_to_see_everything_take_one_task(texts, tmp_path) -> None:
    seen = replace(corpus(texts), filters=(*corpus(texts).filters, SeenParagraphs()))
    with pytest.raises(RecipeError, match="SeenParagraphs has to see all documents"):
        Curate(corpus=seen, out=tmp_path / "two", name="texts", tasks=2).run()
    made = Curate(corpus=seen, out=tmp_path / "one", name="texts", tasks=1, settings={"workers": "1"}).run()
    assert made is not None and made["documents"]["kept"] == len(list(seen.documents()))


def test_an_executor_that_is_not_there_is_refused(texts, tmp_path) -> None:
    with pytest.raises(RunError, match="no executor 'cloud'"):
        curate(texts, tmp_path, tasks=1, executor="cloud")
    with pytest.raises(RunError, match="does not take these settings"):
        curate(texts, tmp_path, tasks=1, executor="local", partition="a")
    with pytest.raises(RunError, match="does not take these settings"):
        curate(texts, tmp_path, tasks=1, executor="slurm")


def test_slurm_is_given_a_job_a_stage(texts, tmp_path, monkeypatch) -> None:
    """Its command is a script here, that writes down what it is given."""
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/given\necho Submitted batch job 7\n')
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    made = curate(texts, tmp_path / "out", tasks=2, executor="slurm", time="01:00:00", partition="cpu")
    assert made is None and not (tmp_path / "out" / "texts.json").exists()
    jobs = [line for line in (tmp_path / "given").read_text().splitlines() if "RUN_OFFSET" in line]
    assert len(jobs) == 5 and ["afterok:7" in job for job in jobs] == [False, True, True, True, True]


@pytest.mark.slow
def test_sigkill_anywhere_leaves_what_the_same_command_makes_whole(texts, whole, tmp_path) -> None:
    count = killed(texts, tmp_path / "count", 3, 0)
    assert count > 60 and written(tmp_path / "count") == written(whole)
    for place in range(2, count + 1, max(1, count // 8)):
        out = tmp_path / str(place)
        assert killed(texts, out, 3, place) == place
        assert killed(texts, out, 3, 0) <= count and written(out) == written(whole), place


@pytest.mark.slow
def test_sigkill_anywhere_leaves_what_the_same_command_makes_whole_of_the_hub(hub, tmp_path) -> None:
    count = killed(hub, tmp_path / "count", 3, 0)
    for place in range(2, count + 1, max(1, count // 4)):
        out = tmp_path / str(place)
        assert killed(hub, out, 3, place) == place
        assert killed(hub, out, 3, 0) <= count and written(out) == written(tmp_path / "count"), place


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_executors_write_the_same_shards(texts, whole, tmp_path, executor) -> None:
    """A process of its own begins the others, as the command does."""
    if executor == "ray":
        pytest.importorskip("ray")
    call = f"curate(Path({str(texts)!r}), Path({str(tmp_path)!r}), 3, {executor!r}, workers='2')"
    code = f"from pathlib import Path\nfrom tiny_curating import curate\nif __name__ == '__main__':\n    {call}\n"
    (tmp_path / ".main.py").write_text(code)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    made = subprocess.run(
        [sys.executable, str(tmp_path / ".main.py")], env=environment, capture_output=True, text=True, timeout=240
    )
    assert made.returncode == 0, made.stderr
    (tmp_path / ".main.py").unlink()
    assert written(tmp_path) == written(whole)


def test_a_run_knows_what_its_shards_were_compared_with(texts, tmp_path) -> None:
    facts = {"benchmarks": {"items": {"piqa": 3, "copa": 2}, "absent": {"boolq": "it is not there"}}}
    made = Curate(
        corpus=replace(corpus(texts), filters=()), out=tmp_path, name="texts", settings={"workers": "1"}, facts=facts
    ).run()
    assert made is not None and made["benchmarks"] == facts["benchmarks"]
    shards = str(tmp_path / "texts")
    known = {"compared": ["copa", "piqa"], "absent": ["boolq"]}
    assert evaluation_sets(TextFiles(paths=(shards,))) == known
    assert evaluation_sets(StandIn(source=TextFiles(paths=(shards,)), missing="x")) == known
    assert evaluation_sets(TextFiles(paths=(shards, str(texts)))) is None
    for strange in ("[", "[]", '{"benchmarks": 5}', '{"benchmarks": {"items": [[]], "absent": 1}}'):
        (tmp_path / "texts.json").write_text(strange)
        assert evaluation_sets(TextFiles(paths=(shards,))) is None
