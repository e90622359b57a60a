"""Releases by one score: the best first, with the compute that their records tell, in a table and on a page."""

import json
from dataclasses import replace
from pathlib import Path

import browser
import pytest
from card_records import HGRN, record_of, score
from typer.testing import CliRunner

from lilliput.base.errors import ExportError, RunError
from lilliput.cli.app import app
from lilliput.evals.score import mean_stderr
from lilliput.publish.card.travelling import write_record
from lilliput.run.leaderboard import leaderboard

RIGHT = {"small": (96, 700, 6), "middle": (192, 760, 6), "large": (384, 800, 8)}


@pytest.fixture
def releases(tmp_path: Path) -> list[Path]:
    folders = []
    for name, (width, right, layers) in RIGHT.items():
        model = replace(HGRN, width=width, layers=layers)
        record = record_of(chat=False, model=model)
        stderr = mean_stderr([1.0] * right + [0.0] * (1_838 - right))
        record["evaluation"]["scores"].append(score("PIQA", "acc", right / 1_838, stderr, 1_838, 0.5))
        record["evaluation"]["averages"] = []
        record["release"]["name"] = record["recipe"]["timeline"][1]["name"] = name
        folder = tmp_path / name
        folder.mkdir()
        write_record(folder, record)
        folders.append(folder)
    return folders


def test_the_best_is_first_with_its_interval_and_its_compute(releases):
    found = leaderboard(releases, score="PIQA/acc")
    assert [entry.name for entry in found.entries] == ["large", "middle", "small"] and not found.left_out
    large, middle, _ = found.entries
    assert large.value == 800 / 1_838 and large.half_width == pytest.approx(1.96 * 0.01157, rel=1e-3)
    assert large.harness == "lm-evaluation-harness 0.4.13" and large.suite == "quickstart"
    assert large.tokens == middle.tokens == 1_196_032
    # Matrices alone cost 6 operations a parameter and token, forward and backward; mixing adds to it.
    six = 6 * middle.parameters * middle.tokens
    assert middle.operations is not None and six < middle.operations < 1.5 * six
    lower = leaderboard(releases, score="held-out text, bits per byte/bits_per_byte")
    assert not lower.entries[0].higher_is_better and not lower.entries[0].is_share


def test_operations_are_those_of_positions_up_to_the_release(releases):
    """Bags of four in the half that was kept: most of the text, and half of the operations."""
    whole = leaderboard(releases, score="PIQA/acc").entries[0]
    folder = next(folder for folder in releases if folder.name == whole.name)
    record = json.loads((folder / "record.json").read_text())
    tokens = record["phases"][0]["tokens"]
    left = {"step": 146, "tokens": tokens * 4 // 5, "positions": tokens // 5, "seconds": 1.0}
    record["phases"][0] |= {"positions": tokens * 2 // 5, "resumed_at": left}
    del record[next(key for key in record if key not in record_of(chat=False))]
    write_record_as_it_is(folder, record)
    half = leaderboard(releases, score="PIQA/acc").entries[0]
    assert half.tokens == tokens * 4 // 5 and half.operations == pytest.approx(whole.operations / 2, rel=1e-5)


def test_a_score_that_is_not_there_is_refused(releases, tmp_path):
    with pytest.raises(RunError, match="no release has the score 'MMLU'") as refused:
        leaderboard(releases, score="MMLU")
    assert "PIQA/acc" in refused.value.hint
    with pytest.raises(ExportError, match="no record.json"):
        leaderboard([tmp_path])


def test_types_of_ones_own_leave_the_compute_open(releases):
    record = json.loads((releases[0] / "record.json").read_text())
    del record[next(key for key in record if key not in record_of(chat=False))]
    record["recipe"]["model"]["mixer"]["type"] = "my_mixer:Mine"
    write_record_as_it_is(releases[0], record)
    found = leaderboard(releases, score="PIQA/acc")
    assert found.entries[-1].operations is None and found.entries[0].operations


def write_record_as_it_is(folder, record):
    from lilliput.base.files import with_checksum, write_json

    write_json(folder / "record.json", with_checksum(record))


def test_the_command_prints_a_table_and_json(releases):
    names = [str(folder) for folder in releases]
    told = CliRunner().invoke(app, ["leaderboard", *names, "--score", "PIQA/acc", "--json"])
    assert told.exit_code == 0, told.output
    assert [one["name"] for one in json.loads(told.output)["entries"]] == ["large", "middle", "small"]
    printed = CliRunner().invoke(app, ["leaderboard", *names, "--score", "PIQA/acc"], env={"COLUMNS": "120"})
    assert "41.26 to 45.79" in printed.output and "lm-evaluation-harness 0.4.13" in printed.output


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_draws_every_model_with_its_interval(releases, tmp_path):
    page = tmp_path / "leaderboard.html"
    told = CliRunner().invoke(
        app, ["leaderboard", *map(str, releases), "--score", "PIQA/acc", "--page", str(page)]
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    text = browser.dom(page, tmp_path)
    assert text.count('class="interval') == 6 and text.count("<figure") == 2 and "41.26 to 45.79" in text
    assert "http" not in text.replace("http://www.w3.org", ""), "nothing is fetched"
    assert browser.screenshot(page, tmp_path, 1_200, 900).stat().st_size > 20_000
