"""`report.html`: a run on one page that needs nothing but itself."""

from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from lilliput.base.errors import reading
from lilliput.base.files import write_text
from lilliput.base.terminal import visible
from lilliput.publish.lineage import outdated
from lilliput.report.curves import charts
from lilliput.report.recipe_outline import Outline
from lilliput.report.records import HINT, TEXT, PhaseRecord, RunRecord, read_run
from lilliput.report.scale import short
from lilliput.train.metrics_file import released

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


def duration(seconds: float) -> str:
    """Such as `3 min 22 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def _facts(run: RunRecord) -> dict[str, Any]:
    begun = [phase for phase in run.phases if phase.steps]
    units = run.units
    return {
        "name": run.recipe.name,
        "about": run.recipe.about,
        "folder": run.folder.name,
        "tiles": _tiles(run, begun),
        "phases": [
            _phase(phase, number, units) | {"charts": _charts(phase, number, units)}
            for number, phase in enumerate(run.phases)
        ],
        "rows": _rows(run),
        "releases": [
            {
                "name": name,
                "outdated": outdated(run.folder, name),
                "scores": [_score(score) for score in found["scores"]],
                "samples": found["samples"],
            }
            for name, found in run.releases
        ],
    }


def _charts(phase: PhaseRecord, number: int, units: dict[str, str]) -> list[dict[str, Any]]:
    return [chart.drawn() for chart in charts(f"{phase.name}-{number}", phase, units)]


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
            f"{short(phase.tokens)} tokens",
            duration(phase.seconds),
            *([f"loss {steps[-1]['cross_entropy']:.3f}"] if steps else []),
            *(f"{name} {value:.4f} {units.get(name, '')}" for name, value in heldout.items()),
        ],
    }


def _state(planned: int | None, done: int, left: float) -> str:
    if planned is None:
        return "begun" if done else "not begun"
    return "trained" if done == planned else f"about {duration(left)} left" if done else "not begun"


def _tiles(run: RunRecord, begun: list[PhaseRecord]) -> list[tuple[str, str, str]]:
    """Value, unit and what it is, of the figures that one looks for first."""
    tiles = []
    texts = [
        (phase.name, name, value)
        for phase in begun
        for name, value in _last_heldout(phase).items()
        if run.units.get(name) == TEXT
    ]
    if texts:
        phase = texts[-1][0]
        _, name, value = next(each for each in texts if each[0] == phase)
        tiles.append((f"{value:.3f}", TEXT, f"held-out {name}, {phase}"))
    replaced = ", with decays that were replaced" if any(phase.resumed_at is not None for phase in begun) else ""
    tiles.append((short(sum(phase.tokens for phase in begun)), "tokens", f"read in training{replaced}"))
    tiles.append((duration(sum(phase.seconds for phase in begun)), "", "in training steps"))
    if begun:
        tiles.append((f"{begun[-1].steps[-1]['tokens_per_second']:,.0f}", "tokens/s", f"at last, {begun[-1].name}"))
    if run.phases and run.phases[-1].parameters:
        tiles.append((short(run.phases[-1].parameters), "parameters", f"{run.phases[-1].parameters:,}"))
    return tiles


def _rows(run: RunRecord) -> list[tuple[str, str]]:
    """The table of the run; what is not known is not in it."""
    machine, environment = run.machine or {}, run.environment
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
        "tokens read": f"{sum(phase.tokens for phase in run.phases):,}",
        "time in steps": duration(sum(phase.seconds for phase in run.phases)),
        "steps": f"{sum(len(phase.steps) for phase in run.phases):,}",
    }
    return [(name, value) for name, value in rows.items() if value.strip(", ")]


def _last_heldout(phase: PhaseRecord) -> dict[str, float]:
    return released(phase.measured[-1]) if phase.measured else {}


def _score(score: dict[str, Any]) -> dict[str, str]:
    def shown(value: float | None, digits: int = 4) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    return {
        "task": score["task"],
        "metric": score["metric"],
        "value": shown(score["value"]),
        "stderr": shown(score["stderr"]),
        "chance": shown(score["chance"]),
        "note": score["note"],
    }
