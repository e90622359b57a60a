"""What two runs need to reach equal bits per byte: crossings, intervals, and the command."""

import json
import math
import random
from io import StringIO

import browser
import pytest
import tiny_commands
from rich.console import Console

from lilliput.report.comparison import compare
from lilliput.report.comparison_table import table
from lilliput.report.equal_loss import at_equal, lowest_in_common, noise, reached

pytestmark = pytest.mark.slow


def falling(rate, *, most=10, spread=0.0, seed=0):
    """A curve that is straight over the logarithm of what was spent: 5 - rate * ln(spent)."""
    generator = random.Random(seed)
    spent = [1000 * (place + 1) for place in range(most)]
    return [(each, 5 - rate * math.log(each) + generator.gauss(0, spread)) for each in spent]


def test_a_value_between_measurements_is_found_on_the_line():
    curve = falling(0.3)
    assert reached(curve, 5 - 0.3 * math.log(3_456)) == pytest.approx(3_456)
    assert reached(curve, curve[4][1]) == pytest.approx(curve[4][0])
    assert reached(curve, 1.0) == math.inf, "never"
    assert reached(curve, 4.9) is None, "before the first measurement"
    assert reached(curve, curve[0][1]) == curve[0][0]


def test_the_first_time_counts_where_a_curve_rises_again():
    assert reached([(1, 3.0), (10, 2.0), (100, 2.5), (1000, 1.9)], 2.0) == 10


def test_noise_is_that_of_the_measurements():
    assert noise(falling(0.3)) == pytest.approx(0, abs=1e-9)
    assert noise(falling(0.3, most=400, spread=0.01)) == pytest.approx(0.01, rel=0.15)
    assert noise(falling(0.3, most=3)) is None


def test_a_run_that_is_twice_as_fast_needs_half():
    slow, fast = falling(0.3, spread=0.002), [(spent / 2, value) for spent, value in falling(0.3, spread=0.002, seed=1)]
    found = at_equal(slow, fast)
    low, high = found.interval
    assert found.ratio == pytest.approx(0.5, rel=0.05) and low < 0.5 < high and high / low < 1.2
    assert at_equal(slow, fast) == found, "the same each time"
    noisier = at_equal(falling(0.3, spread=0.02), [(spent / 2, value) for spent, value in falling(0.3, spread=0.02)])
    assert noisier.interval[1] - noisier.interval[0] > 2 * (high - low)


def test_the_interval_holds_what_is_true_as_often_as_it_says():
    """Of 60 pairs of the same run with other noise, 95% should hold a ratio of 1; fewer than 52 happen once in 500."""
    level = 5 - 0.3 * math.log(5_500)
    held = 0
    for pair in range(60):
        one, other = (falling(0.3, spread=0.01, seed=2 * pair + side) for side in (0, 1))
        low, high = at_equal(one, other, level).interval
        held += low <= 1 <= high
    assert held >= 52


def test_ends_beyond_what_was_measured_are_open():
    one, other = falling(0.3, spread=0.05), falling(0.3, spread=0.05, seed=1)
    found = at_equal(one, other, lowest_in_common(one, other))
    assert found.ratio and None in found.interval
    assert at_equal(one, other, 0.1).ratio is None and at_equal(one, other, 0.1).interval is None
    few = at_equal(falling(0.3, most=3), falling(0.3, most=3))
    assert few.ratio == 1 and few.interval is None


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Three runs of one text that learn at other rates, one that is measured once, and one of another split."""
    folder = tiny_commands.workshop(tmp_path_factory.mktemp("compare"), entries=1)
    often = ["--set", "timeline.pretrain.measure_every=0.1"]
    for name, changes in {
        "slow": ["--set", "timeline.pretrain.optimizer.lr=2e-3", *often],
        "fast": often,
        "half": ["--set", "timeline.pretrain.optimizer.lr=3e-3", *often],
        "once": ["--set", "timeline.pretrain.measure_every=1.0"],
        "other": ["--set", "split.salt=3"],
    }.items():
        tiny_commands.lilliput("train", "mine.py", "--machine", "small.py", "--out", name, *changes, folder=folder)
    return folder


@pytest.mark.slow
def test_the_command_says_which_is_faster(desk):
    told = tiny_commands.lilliput("compare", "slow", "fast:pretrain", "--page", "compare.html", folder=desk).out
    said = " ".join(told.split())
    assert "fast:pretrain needs 0." in said and "measured 12 and 12 times" in said and "not for other seeds" in said
    found = json.loads(tiny_commands.lilliput("compare", "slow", "fast", "--json", folder=desk).out)
    level = found["levels"][0]
    assert found["equal"] and level["tokens"]["ratio"] < 0.9 and level["tokens"]["spent"][0] == 12 * 128
    metrics = [json.loads(line) for line in (desk / "slow/phases/00-pretrain/metrics.jsonl").read_text().splitlines()]
    seconds = sum(line.get("seconds", 0) for line in metrics)
    assert level["seconds"]["spent"][0] == pytest.approx(seconds)
    assert [point["value"] for point in found["runs"][0]["points"]] == [
        line["heldout"]["texts"] for line in metrics if "heldout" in line
    ]


@pytest.mark.slow
def test_more_runs_than_two_are_compared_with_the_first(desk):
    wide = ("compare", "slow", "fast", "half", "--page", "all.html")
    said = " ".join(tiny_commands.lilliput(*wide, folder=desk).out.split())
    assert "1: slow 2: fast 3: half" in said and "fast needs 0." in said and "half needs 0." in said
    found = json.loads(tiny_commands.lilliput("compare", "slow", "fast", "half", "--json", folder=desk).out)
    pair = compare(str(desk / "slow"), str(desk / "half"))
    assert [other["run"] for other in found["against"]] == ["fast", "half"] and "says" not in found
    assert found["against"][1]["levels"] == pair["levels"] == pair["against"][0]["levels"]
    narrow = Console(width=80, file=StringIO())
    narrow.print(table(found), table(pair))
    assert "…" not in narrow.file.getvalue(), "nothing is cut in 80 columns"
    page = (desk / "all.html").read_text()
    assert page.count('data-points="12"') == 6 and page.count('class="level"') == 4 and "half" in page


def test_it_says_plainly_when_they_never_reach_equal_bits_per_byte(desk):
    never = compare(str(desk / "slow"), str(desk / "fast"), at=0.5)
    assert not never["equal"] and "they never reach equal bits per byte" in never["says"]
    unseen = compare(str(desk / "slow"), str(desk / "once"))
    assert not unseen["equal"] and "never measured at equal" in unseen["says"] and "measure_every" in unseen["says"]
    assert any("no intervals" in note for note in unseen["notes"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["slow", "other"], "held-out text of 'texts' is not the same"),
        (["slow", "fast:sft"], "sft"),
        (["slow", "fast", "--heldout", "text"], "nearest"),
        (["slow", "fast", "--at", "-1"], "above 0"),
        (["slow", "texts"], "is not a run"),
        (["slow"], "nothing to compare slow with"),
        (["slow", "fast", "other"], "not the same in other"),
    ],
)
def test_what_cannot_be_compared_is_refused(desk, words, says):
    tiny_commands.refused("compare", *words, folder=desk, says=says)


@pytest.mark.browser
def test_the_page_shows_both_curves(desk, tmp_path):
    tiny_commands.lilliput("compare", "slow", "fast", "--page", "both.html", folder=desk)
    page = browser.dom(desk / "both.html", tmp_path)
    assert page.count('data-points="12"') == 4 and "Over time" in page
