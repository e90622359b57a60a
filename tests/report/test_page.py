"""The report of a run: scales, curves, the page, and the page in a real browser."""

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import browser
import matplotlib.image
import pytest
import tiny_commands

from lilliput.base.terminal import Terminal
from lilliput.report.charts import TOKENS, Axis, Chart, Scale, Series, short, tick_labels
from lilliput.report.curves import MOST, charts, thin
from lilliput.report.loss_plot import plot_loss
from lilliput.report.page import write_report
from lilliput.report.records import PhaseRecord
from lilliput.report.table import Column, Table
from lilliput.train.metrics_file import WINDOW, measured_of, recent_loss, steps_of

STEPS = 12
UNITS = {"texts": "bits per byte", "chats": "nats per answer token"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one phase of twelve steps, with an average, trained by the command."""
    folder = tiny_commands.workshop(tmp_path_factory.mktemp("report"), entries=1)
    said = tiny_commands.lilliput(
        "train", "mine.py", "--machine", "small.py", "--out", "run", folder=folder, expected=0
    ).out
    assert "no report" not in said
    return folder / "run"


def lines(steps: int, **changes):
    """Metrics of a phase that has not happened."""
    each = {"seconds": 0.5, "tokens_per_second": 64, "grad_norm": 1.0, "lr": 1.0}
    return [
        {"step": step, "tokens": 32 * step, "cross_entropy": 4.0 / step} | each | changes
        for step in range(1, steps + 1)
    ]


def charted(lines, incidents=()):
    record = PhaseRecord(
        name="a",
        planned=100,
        parameters=1,
        steps=steps_of(lines),
        measured=measured_of(lines),
        incidents=list(incidents),
    )
    return charts("a", record, UNITS)


def drawn(key, made):
    return next(chart for chart in made if chart.key.endswith(key))


def test_an_axis_has_round_ticks_that_are_told_apart():
    assert Scale(low=0, high=614_400).ticks() == [0, 200_000, 400_000, 600_000]
    assert tick_labels([0, 200_000, 400_000]) == ["0", "200k", "400k"]
    assert tick_labels([2.0, 2.25, 2.5]) == ["2", "2.25", "2.5"]
    assert Scale(low=0.3, high=40, logarithmic=True).ticks() == pytest.approx([0.3, 1, 3, 10, 30])
    assert tick_labels([1e9, 2.5e9]) == ["1B", "2.5B"] and short(2_754_816) == "2.755M" and short(math.inf) == "inf"
    for low, high in ((1e-5, 3e-4), (7, 7.01), (-2, 5), (0, 1e13)):
        ticks = Scale(low=low, high=high).ticks()
        assert 3 <= len(ticks) <= 8 and all(low <= tick <= high * (1 + 1e-9) for tick in ticks)
        assert len(set(tick_labels(ticks))) == len(ticks)


def test_an_axis_holds_any_values():
    flat = Axis(label="a").scale([3.0, 3.0])
    assert flat.low < 3.0 < flat.high
    log = Axis(label="a", logarithmic=True).scale([0.0, math.inf, 2.0, 8.0])
    assert 0 < log.low < 2 < 8 < log.high and log.place(0.0) < 0
    assert math.isfinite(Axis(label="a").scale([]).place(1.0))
    assert TOKENS.scale([0, 1000]) == Scale(low=0, high=1015)


def test_an_axis_may_name_its_ticks_and_points_may_stand_aside():
    axis = Axis(label="a", room=0.0, includes=[0, 4], names={0: "none", 2: "half"})
    series = Series(name="c", x=[2, 4], y=[1.0, 3.0], shift=-0.01)
    chart = Chart(key="a", title="a", x=axis, y=Axis(label="b", room=0.0), series=[series])
    assert chart.x_ticks() == [(0, "none"), (50, "half")]
    assert chart.points(series) == [(49, 100), (99, 0)], "x from the left, y from the top"
    assert replace(axis, names={}).ticks(axis.scale([]), 5) == [], "no names are no ticks"


def test_the_loss_of_a_phase_becomes_a_picture(run, tmp_path):
    (metrics,) = run.glob("phases/*/metrics.jsonl")
    for bytes_per_token in (2.5, None):
        plot_loss(metrics, tmp_path / "loss.png", "$a\\frac$", bytes_per_token)
        picture = matplotlib.image.imread(tmp_path / "loss.png")
        assert picture.shape[:2] == (675, 1200) and len({tuple(dot) for dot in picture.reshape(-1, 4)[::7]}) > 10
    assert [file.name for file in tmp_path.iterdir()] == ["loss.png"], "nothing partial"


def test_a_table_says_the_same_everywhere():
    cells = ["a|b", "<i>"]
    made = Table(columns=[Column(name="name", cells=cells, is_text=True), Column(name="n", cells=["1", "22"])], best=1)
    screen = Terminal(file=StringIO(), width=80)
    screen.print(made.terminal())
    assert [line.split() for line in screen.file.getvalue().splitlines()][-3:-1] == [["a|b", "1"], ["<i>", "22"]]
    assert made.markdown() == ["| name | n |", "| --- | --: |", "| a\\|b | 1 |", "| &lt;i> | 22 |"]


def test_long_curves_are_thinned_and_peaks_stay():
    values = [1.0] * 10_000
    values[4_321] = 50.0
    assert len(thin(values, max)) == MOST and max(thin(values, max)) == 50.0
    assert thin([1.0, 2.0], max) == [1.0, 2.0]
    loss = drawn("loss", charted(lines(10 * MOST)))
    assert {len(loss.points(series)) for series in loss.series} == {MOST}


def test_what_is_not_finite_is_left_out_and_said():
    series = Series(name="c", x=[1, 2], y=[1.0, math.inf], steps=[1, 2])
    chart = Chart(key="a", title="a", y=Axis(label="b"), series=[series])
    assert len(chart.points(series)) == 1 and json.loads(chart.data)["series"][0]["y"] == [1.0, None]


def test_corpora_are_drawn_by_unit_and_live_weights_beside_the_average():
    measured = [
        {"step": 4, "tokens": 128, "heldout": {"texts": 2.0, "texts/live": 2.1, "chats": 3.0}},
        {"step": 8, "tokens": 256, "heldout": {"texts": 1.9, "texts/live": 2.0}},
    ]
    made = charted(lines(8) + measured)
    by_unit = {chart.y.label: [series.name for series in chart.series] for chart in made if chart.title == "Held out"}
    assert [series.color for series in drawn("heldout", made).series] == [0, 0], "of one corpus"
    assert by_unit == {"bits per byte": ["texts", "texts, live weights"], "nats per answer token": ["chats"]}


def test_incidents_and_skipped_steps_are_marked():
    steps = lines(8, loss_scale=1024.0, skipped=0)
    steps[4]["skipped"], steps[5]["skipped"] = 2, 2
    steps[6]["skipped"] = steps[7]["skipped"] = 2
    made = charted(steps, [{"step": 3, "incident": "resumed", "what": "again"}])
    loss = drawn("loss", made)
    assert [(mark.kind, round(loss.left(mark.x))) for mark in loss.marks] == [
        ("resumed", 37),
        ("skipped", 62),
    ]
    assert any(chart.title == "Loss scale" for chart in made)


def test_training_writes_the_page_and_the_command_writes_it_again(run):
    before = (run / "report.html").read_text()
    assert "12 of 12 steps, trained" in before and "bits per byte" in before
    (run / "report.html").unlink()
    said = tiny_commands.lilliput("report", "run", folder=run.parent).out
    assert "run/report.html" in said and (run / "report.html").read_text().count("<figure") == before.count("<figure")
    tiny_commands.refused("report", "texts", folder=run.parent, says="is not a run", where="texts")


def test_the_page_can_be_written_in_the_middle_of_a_line(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    metrics = next(copy.glob("phases/*/metrics.jsonl"))
    metrics.write_bytes(metrics.read_bytes()[:-9])
    (copy / "report.html").unlink()
    assert "data-points" in write_report(copy).read_text()


def test_positions_are_told_beside_tokens_where_they_differ(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    assert " positions" not in write_report(copy).read_text()
    metrics = next(copy.glob("phases/*/metrics.jsonl"))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    tokens = steps_of(lines)[-1]["tokens"]
    bagged = [line | ({"positions": line["tokens"] // 4} if "positions" in line else {}) for line in lines]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in bagged))
    assert f"{short(tokens)} tokens in {short(tokens // 4)} positions" in write_report(copy).read_text()


class Reader(HTMLParser):
    """Curves of a page by figure, and everything it would fetch."""

    def __init__(self):
        super().__init__()
        self.curves, self.fetched, self._figure = {}, [], ""

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.fetched += [found[name] for name in ("src", "href", "srcset", "action", "data") if found.get(name)]
        if tag == "figure":
            self._figure = found["id"]
        if tag == "path" and "data-points" in found:
            self.curves.setdefault(self._figure, {})[found["data-name"]] = found["d"]


@pytest.mark.browser
def test_a_browser_draws_every_point_and_asks_nobody(run, tmp_path):
    page = Reader()
    page.feed(browser.dom(run / "report.html", tmp_path))
    points = {key: {name: len(re.findall("[ML]", d)) for name, d in each.items()} for key, each in page.curves.items()}
    assert points["pretrain-0-loss"] == {"each step": STEPS, "mean of 2 steps": STEPS}
    assert points["pretrain-0-heldout"] == {"texts": 4, "texts, live weights": 4}
    assert set(points["pretrain-0-gradient"]) >= {"all", "matrix", "embedding", "vector"}
    assert {"pretrain-0-rate", "pretrain-0-speed", "pretrain-0-peak-memory"} <= set(points)
    text = (run / "report.html").read_text()
    assert page.fetched == [] and not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|//[a-z]+\.", text)


@pytest.mark.browser
def test_the_read_out_says_the_values_under_the_pointer(run, tmp_path):
    hover = """<script>
    const plot = document.querySelector("#pretrain-0-loss .plot"), box = plot.getBoundingClientRect();
    const x = box.left + box.width * 0.49;
    plot.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: box.top + 5, bubbles: true}));
    </script>"""
    page = tmp_path / "hovered.html"
    page.write_text((run / "report.html").read_text().replace("</body>", hover + "</body>"))
    figure = browser.dom(page, tmp_path).partition('id="pretrain-0-loss"')[2].partition("</figure>")[0]
    steps = [json.loads(line) for line in next(run.glob("phases/*/metrics.jsonl")).read_text().splitlines()]
    sixth = next(line for line in steps if line["step"] == 6)
    assert f"step 6, {sixth['tokens']} text tokens" in figure
    assert f"{sixth['cross_entropy']:.5g}" in figure.partition('class="legend"')[2]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_it_can_be_seen(run, tmp_path, width, dark):
    """Paper fills most of the picture, and there is much beside it: letters, lines, colours."""
    picture = matplotlib.image.imread(browser.screenshot(run / "report.html", tmp_path, width, 900, dark=dark))
    assert picture.shape[:2] == (900, width)
    grey = picture[..., :3].mean(axis=-1)
    assert (grey[0, 0] < 0.2) == dark
    assert 0.01 < (abs(grey - grey[0, 0]) > 0.25).mean() < 0.3
    assert len({tuple(colour) for colour in picture[::3, ::3, :3].reshape(-1, 3).round(2)}) > 60


def test_a_loss_is_the_mean_of_the_last_steps():
    steps = steps_of(lines(80))
    steps[-1]["cross_entropy"] = 50.0
    assert recent_loss(steps) == pytest.approx(math.fsum(line["cross_entropy"] for line in steps[30:]) / WINDOW)
    assert recent_loss(steps[:2]) == 3.0
