"""Two releases are compared item by item where their items were recorded."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.files import write_json
from lilliput.cli.app import app
from lilliput.report.release_scores import differences_table, is_record, paired


def release(run: Path, name: str, right: int, *, items: bool = True) -> str:
    folder = run / "releases" / name
    folder.mkdir(parents=True)
    write_json(folder / "lilliput.json", {})
    score = {"task": "PIQA", "metric": "acc", "value": right / 40, "stderr": 0.07, "chance": 0.5}
    write_json(run / "evals" / f"{name}.json", {"scores": [score | {"higher_is_better": True}]})
    if items:
        rows = [
            {"task": "piqa", "doc_id": number, "doc_hash": str(number), "acc": float(number < right)}
            for number in range(40)
        ]
        (run / "evals" / name).mkdir()
        (run / "evals" / name / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "evals").mkdir()
    return tmp_path


def test_releases_are_compared_on_the_same_items(run: Path) -> None:
    folders = [release(run, "base", 20), release(run, "tuned", 30)]
    (found,) = paired(folders)
    assert (found.task, found.items, found.difference) == ("piqa", 40, 0.25) and 0 < found.low < 0.25 < found.high
    row = differences_table([found]).rows[0]
    assert row[2:5] == ("50.0%", "75.0%", "+25.00") and row[-1] == "clear"
    told = CliRunner().invoke(app, ["compare", *folders, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["paired"] == [found.plain()]
    assert "+25.00" in CliRunner().invoke(app, ["compare", *folders]).output


def test_files_of_items_are_compared_and_releases_without_them_still_side_by_side(run: Path) -> None:
    base, tuned = release(run, "base", 20), release(run, "tuned", 30, items=False)
    file = str(run / "evals" / "base" / "items.jsonl")
    assert is_record(file) and not is_record(base)
    told = CliRunner().invoke(app, ["compare", file, file])
    assert told.exit_code == 0 and "+0.00 to +0.00" in told.output
    told = CliRunner().invoke(app, ["compare", base, tuned])
    assert told.exit_code == 0 and "75.0%" in told.output and "95%" not in told.output
    with pytest.raises(RunError, match="not recorded"):
        paired([base, tuned])
    refused = CliRunner().invoke(app, ["compare", file])
    assert isinstance(refused.exception, LilliputError) and "1 files" in str(refused.exception)
