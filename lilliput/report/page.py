"""`report.html`: a run on one page that needs nothing but itself."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from lilliput.base.errors import reading
from lilliput.base.files import write_text
from lilliput.base.terminal import visible
from lilliput.base.text_units import duration, size
from lilliput.data.text_format import TEXT
from lilliput.evals.suites import HELDOUT
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.publish.lineage import outdated
from lilliput.report.charts import short
from lilliput.report.curves import charts
from lilliput.report.phase_samples import prompts
from lilliput.report.recipe_outline import Outline
from lilliput.report.records import HINT, PhaseRecord, RunRecord, continued, read_run
from lilliput.report.table import Column, Table
from lilliput.train.metrics_file import WINDOW, Line, headline_of, positions_of, recent_loss, released
from lilliput.train.passes import in_words

REPORT = "report.html"
GENERATOR = '<meta name="generator" content="Lilliput">'
"""Stands in the head of every page of ours."""


def write_report(folder: Path) -> Path:
    """Write the page of a run into its folder, whole or not at all; the path of the page.

    Raises:
        RunError: the folder is no run, or a file in it is damaged.
    """
    path = folder / REPORT
    with reading(folder, HINT, "the records of the run cannot be shown"):
        page = render("run.html.jinja", _facts(read_run(folder)))
    write_text(path, page)
    return path


def render(template: str, facts: dict[str, Any]) -> str:
    """A page from a template of this folder, with its styles and its script inside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # what is a part of the page is Markup
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(facts | {"made": f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"})


def _facts(run: RunRecord) -> dict[str, Any]:
    trained = [phase for phase in run.phases if phase.steps]
    units = run.units
    return {
        "name": run.recipe.name,
        "about": run.recipe.about,
        "folder": run.folder.name,
        "tiles": _tiles(run, trained),
        "phases": [
            _phase(phase, number, units)
            | {"charts": charts(f"{phase.name}-{number}", drawn, units), "prompts": prompts(drawn.measured)}
            for number, (phase, drawn) in enumerate(zip(run.phases, _continuous(run.phases), strict=True))
        ],
        "computed": [{"name": name, "figures": list(_figures(value))} for name, value in run.computed],
        "rows": _rows(run),
        "releases": [
            {
                "name": name,
                "outdated": outdated(run.folder, name),
                "scores": _scores(found["scores"]),
                "samples": found["samples"],
            }
            for name, found in run.releases
        ],
    }


def _figures(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The numbers and texts in a JSON value, by their path."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield name or "value", f"{value:.4f}" if isinstance(value, float) else str(value)
        return
    for key, one in inside:
        yield from _figures(one, f"{name} {key}".strip())


def _continuous(phases: list[PhaseRecord]) -> list[PhaseRecord]:
    """The phases as they are drawn: one that resumes another begins where that one stood."""
    found: list[PhaseRecord] = []
    for phase in phases:
        found.append(continued(found[-1], phase) if phase.begins and phase.steps and found else phase)
    return found


def _phase(phase: PhaseRecord, number: int, units: dict[str, str]) -> dict[str, Any]:
    steps = phase.steps
    done = steps[-1]["step"] if steps else 0
    heldout = _last_heldout(phase)
    recent = steps[-50:]
    left = ((phase.planned or done) - done) * sum(line["seconds"] for line in recent) / max(1, len(recent))
    return {
        "name": phase.name,
        "key": f"{phase.name}-{number}",
        "share": 100 * done / phase.planned if phase.planned else 0,
        "steps": f"{done:,} of {phase.planned:,} steps" if phase.planned else f"{done:,} steps",
        "state": _state(phase.planned, done, left),
        "figures": [
            *([f"goes on {phase.begins}"] if phase.begins else []),
            f"{short(phase.tokens)} tokens{_in_positions(phase.tokens, _positions(steps))}",
            duration(phase.seconds),
            *([f"{_loss(steps)} {recent_loss(steps):.3f}, mean of {min(WINDOW, len(steps))} steps"] if steps else []),
            *(f"{name} {value:.4f} {phase.unit(name, units)}" for name, value in heldout.items()),
        ],
    }


def _loss(steps: list[Line]) -> str:
    headline = headline_of(steps[-1])
    return "loss" if headline == CROSS_ENTROPY else headline


def _state(planned: int | None, done: int, left: float) -> str:
    if planned is None:
        return "begun" if done else "not begun"
    return "trained" if done == planned else f"about {duration(left)} left" if done else "not begun"


def _tiles(run: RunRecord, trained: list[PhaseRecord]) -> list[tuple[str, str, str]]:
    """Value, unit and what it is, of the figures that one looks for first."""
    tiles = _released(run)
    texts = [
        (phase.name, name, value)
        for phase in trained
        for name, value in _last_heldout(phase).items()
        if phase.unit(name, run.units) == TEXT.unit
    ]
    if texts and not tiles:
        phase = texts[-1][0]
        _, name, value = next(each for each in texts if each[0] == phase)
        tiles.append((f"{value:.3f}", TEXT.unit, f"held-out {name}, {phase}"))
    line, whole = _sums(run.line), _sums([phase.steps for phase in run.phases])
    read, taken = "read in training", "in training steps"
    if replaced := whole["steps"] - line["steps"]:
        read += f"; {short(whole['tokens'] - line['tokens'])} more in {replaced:,} steps that were replaced"
        taken += f"; {duration(whole['seconds'] - line['seconds'])} more in those that were replaced"
    tiles.append((short(line["tokens"]), "tokens", read + _in_positions(line["tokens"], line["positions"])))
    tiles.append((duration(line["seconds"]), "", taken))
    if trained:
        tiles.append((f"{trained[-1].steps[-1]['tokens_per_second']:,.0f}", "tokens/s", f"at last, {trained[-1].name}"))
    sent = [line["bytes_sent"] for steps in run.line for line in steps if "bytes_sent" in line]
    if sent:
        each = f"between machines in training, {size(sum(sent) / line['steps'])} a step"
        tiles.append((size(sum(sent)), "sent", each))
    if run.phases and run.phases[-1].parameters:
        tiles.append((short(run.phases[-1].parameters), "parameters", f"{run.phases[-1].parameters:,}"))
    return tiles


def _released(run: RunRecord) -> list[tuple[str, str, str]]:
    """The held-out figure of the last release that has one, unless training has left it behind."""
    found = [
        (f"{score['value']:.3f}", TEXT.unit, "; ".join(filter(None, (f"held-out text, {name}", score["note"]))))
        for name, evaluation in run.releases
        if not outdated(run.folder, name)
        for score in evaluation["scores"]
        if score["task"] == HELDOUT.display
    ]
    return found[-1:]


def _sums(line: list[list[Line]]) -> dict[str, float]:
    """Steps, text tokens, positions and seconds of all phases."""
    trained = [steps for steps in line if steps]
    return {
        "steps": sum(map(len, trained)),
        "tokens": sum(steps[-1]["tokens"] for steps in trained),
        "positions": sum(map(_positions, trained)),
        "seconds": sum(step["seconds"] for steps in trained for step in steps),
    }


def _positions(steps: list[Line]) -> int:
    """Positions that a phase has processed."""
    return positions_of(steps[-1]) if steps else 0


def _in_positions(tokens: float, positions: float) -> str:
    return f" in {short(positions)} positions" if positions != tokens else ""


def _rows(run: RunRecord) -> list[tuple[str, str]]:
    """The table of the run; what is not known is not in it."""
    machine, environment = run.machine or {}, run.environment
    line = _sums(run.line)
    replaced = sum(len(phase.steps) for phase in run.phases) - line["steps"]
    packages = environment.get("packages", {})
    keys = ("device", "precision", "threads", "compile")
    sizes = list(dict.fromkeys(f"{phase.parameters:,}" for phase in run.phases if phase.parameters))
    rows = {
        "recipe": run.recipe.name,
        "seed": str(run.recipe.seed),
        "left out": f"what takes {', '.join(run.recipe.hidden)}, code of the run that was not allowed to run"
        if isinstance(run.recipe, Outline)
        else "",
        "machine": ", ".join(f"{key} {machine[key]}" for key in keys if key in machine),
        "processor": f"{environment.get('processor', '')}, {environment['cores']} cores" if environment else "",
        "lilliput": " ".join(filter(None, (environment.get("lilliput"), environment.get("commit")))),
        "versions": ", ".join(
            [f"Python {environment['python']}"] * bool(environment)
            + [f"{name} {version}" for name, version in packages.items()]
        ),
        "parameters": " → ".join(sizes),
        "tokens read": f"{line['tokens']:,}",
        "positions": f"{line['positions']:,}" if line["positions"] != line["tokens"] else "",
        "time in steps": duration(line["seconds"]),
        "passes": in_words(run.passes),
        "steps": f"{line['steps']:,}",
        "replaced": f"{replaced:,} steps after those at which later phases resumed; they are not counted above"
        if replaced
        else "",
    }
    return [(name, value) for name, value in rows.items() if value.strip(", ")]


def _last_heldout(phase: PhaseRecord) -> dict[str, float]:
    return released(phase.measured[-1]) if phase.measured else {}


def _scores(scores: list[dict[str, Any]]) -> Table:
    def column(name: str, key: str, *, is_text: bool = False) -> Column:
        values = [score[key] for score in scores]
        cells = values if is_text else ["" if value is None else f"{value:.4f}" for value in values]
        return Column(name=name, cells=cells, is_text=is_text)

    return Table(
        columns=[
            column("task", "task", is_text=True),
            column("metric", "metric", is_text=True),
            column("value", "value"),
            column("± 1 s.e.", "stderr"),
            column("chance", "chance"),
            column("note", "note", is_text=True),
        ]
    )
