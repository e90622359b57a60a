"""The table of the README: it is what the committed records say, ours stand with their errors, and others as quoted."""

import runpy
import shutil
from pathlib import Path

import pytest
from card_records import record_of, score

from lilliput.base.errors import ExportError, LilliputError
from lilliput.publish.card.travelling import write_record

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "small_models.py"))
table_of, with_table = SCRIPT["table_of"], SCRIPT["with_table"]
SHARES = {"HellaSwag": 0.281, "ARC-Easy": 0.39, "ARC-Challenge": 0.231, "PIQA": 0.589}


def record_in(folder, name, tags=(), shares=SHARES, headline=0.3936):
    record = record_of(chat=False)
    scores = [score(task, "acc_norm", value, 0.01, 1_000, 0.25) for task, value in shares.items()]
    record["evaluation"]["scores"] += scores
    averages = [{"name": "headline", "value": headline, "stderr": 0.0049, "formula": ""}]
    record["evaluation"]["averages"] = averages if headline else []
    record["release"]["name"] = record["recipe"]["timeline"][1]["name"] = name
    record["release"]["suite"] = "open-slm"
    record["recipe"]["notes"] = (record["recipe"].get("notes") or {}) | {"tags": list(tags)}
    record["environment"]["accelerators"] = ["NVIDIA H200"]
    (folder / name).mkdir(parents=True)
    write_record(folder / name, record)
    return record


def cells(table):
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def test_the_readme_has_the_table_of_the_committed_records():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_table(readme, table_of(SCRIPT["RECORDS"])) == readme, "run python benchmarks/small_models.py"


def test_without_a_record_of_ours_there_is_no_table(tmp_path):
    assert table_of(tmp_path) == "" == table_of(tmp_path / "missing")


def test_ours_stand_with_errors_minutes_command_and_commit_among_others(tmp_path):
    record_in(tmp_path, "small")
    table = table_of(tmp_path)
    rows = cells(table)
    ours, card, chance = rows["small (ours)"], rows["SLM-10M"], rows["chance"]
    assert next(iter(rows)) == "small (ours)" and list(rows)[-1] == "chance", "by headline"
    assert ours["HellaSwag"] == "28.10 ± 1.00" and ours["headline"] == "39.36 ± 0.49"
    assert ours["arithmark2-synthetic"] == "25.40 ± 1.95, chance" and ours["ArithMark-2.0"] == "—"
    assert ours["minutes of training"] == "3.4, NVIDIA H200" and ours["tokens"] == "0.00B"
    assert (card["HellaSwag"], card["headline"], card["ArithMark-2.0"]) == ("26.53", "35.06", "24.32")
    assert rows["GPT-S2-5M"]["headline"] == "37.94" and rows["Quark-50m"]["headline"] == "39.05"
    assert rows["Pythia-14M"]["headline"] == "—", "its ARC-Challenge is not known"
    assert (chance["headline"], chance["PIQA"]) == ("33.33", "50.00")
    line = next(line for line in table.splitlines() if line.startswith("- small"))
    assert "`lilliput run garden.py --set seed=1 --machine cpu`" in line and "commit `3f2a1bc`" in line
    assert "benchmarks/results/models/small/README.md" in line


def test_a_row_trained_on_the_task_stands_below_the_others_and_says_so(tmp_path):
    record_in(tmp_path, "plain")
    record_in(tmp_path, "tuned", tags=["task-trained"], headline=0.45)
    names = list(cells(table_of(tmp_path)))
    assert names[0] == "plain (ours)" and names[-2:] == ["tuned (ours), task-trained", "chance"]


def test_a_record_without_a_headline_or_with_a_changed_figure_is_refused(tmp_path):
    record_in(tmp_path / "a", "whole")
    record_in(tmp_path / "a", "some", shares={"PIQA": 0.55}, headline=None)
    with pytest.raises(LilliputError, match="no headline in the record of some"):
        table_of(tmp_path / "a")
    record_in(tmp_path / "b", "better")
    path = tmp_path / "b" / "better" / "record.json"
    path.write_text(path.read_text().replace("0.281", "0.381"))
    with pytest.raises(ExportError, match="damaged"):
        table_of(tmp_path / "b")


def test_the_table_goes_between_the_markers_and_nothing_else_changes(tmp_path):
    readme = f"before\n{SCRIPT['BEGIN']}\nold\n{SCRIPT['END']}\nafter\n"
    once = with_table(readme, "| new |\n\ntext")
    assert once == readme.replace("old", "| new |\n\ntext") == with_table(once, "| new |\n\ntext")
    assert with_table(once, "") == readme.replace("old\n", "")
    with pytest.raises(LilliputError, match="no place for the table"):
        with_table("a README without markers", "")


def test_the_script_writes_the_readme(tmp_path, monkeypatch, capsys):
    record_in(tmp_path / "models", "small")
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    arguments = ["--records", str(tmp_path / "models"), "--readme", str(tmp_path / "README.md")]
    monkeypatch.setattr("sys.argv", ["small_models.py", *arguments])
    SCRIPT["main"]()
    assert "| small (ours) |" in (tmp_path / "README.md").read_text() and "| small (ours) |" in capsys.readouterr().out
