"""How do our models score beside others of their size?

    python benchmarks/small_models.py [--records FOLDER] [--readme README.md] [--out FILE.json]

Writes the table of the README, between its two markers, from what is committed: `record.json` of a release for each
folder in benchmarks/results/models, and the scores that others published (`lilliput/publish/card/peers.json`). Nothing
in it is typed by hand. Without a record of ours there is no table: others alone would be no result.

To add a model, copy `record.json`, `README.md` (its card) and `loss.png` of a release of the suite open-slm into
benchmarks/results/models/NAME and run this. A recipe that trains on a benchmark's training split has the tag
`task-trained` in its `notes.tags`; its row says so and stands below the others.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lilliput.base.environment import environment
from lilliput.base.errors import LilliputError
from lilliput.base.files import write_json, write_text
from lilliput.evals.averages import HEADLINE
from lilliput.evals.suites import ARITHMARK2, ARITHMARK2_SYNTHETIC, OPEN_SLM
from lilliput.publish.card.markdown import NOTHING, code, prose
from lilliput.publish.card.published_scores import peer_tables
from lilliput.publish.card.record import Part
from lilliput.publish.card.reproduce import reproduce_command
from lilliput.publish.card.travelling import RECORD_FILE, read_record
from lilliput.report.table import Column, Table
from lilliput.run.leaderboard import Entry, leaderboard

ROOT = Path(__file__).parents[1]
RECORDS, README = ROOT / "benchmarks" / "results" / "models", ROOT / "README.md"
BEGIN, END = "<!-- begin: benchmarks/small_models.py -->", "<!-- end: benchmarks/small_models.py -->"
TASKS = {use.task: use for use in OPEN_SLM.tasks}
TASK_TRAINED = "task-trained"
"""Tag of a recipe that trains on a training split of what is asked here."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model in the table; shares in percent by figure, as in "PIQA/acc_norm" or "headline"."""

    name: str
    parameters: str
    tokens: str
    scores: Mapping[str, float]
    errors: Mapping[str, float]
    """Standard errors, of those that are known."""
    time: str = NOTHING
    """Minutes of training and the device."""
    by: str
    """Who measured it, and with what."""
    links: tuple[str, ...] = ()
    """Markdown on where it comes from: its folder, command and commit."""
    is_task_trained: bool = False


def table_of(records: Path) -> str:
    """Return the table in Markdown; nothing if no record is in a folder of `records`.

    Raises:
        ExportError: a record is damaged.
        LilliputError: a release was not evaluated with the whole suite.
    """
    folders = sorted(path.parent for path in records.glob(f"*/{RECORD_FILE}"))
    if not folders:
        return ""
    found = leaderboard(folders, score=HEADLINE.name)
    if found.left_out:
        raise LilliputError(
            f"no headline in the record of {', '.join(found.left_out)}",
            where=str(records),
            hint=f"evaluate the release with all of the suite {OPEN_SLM.name}, or leave its folder out",
        )
    ours = [_own_row(entry) for entry in found.entries]
    rows = sorted([*ours, *_peer_rows()], key=lambda row: -row.scores.get(HEADLINE.name, 0.0))
    rows = [*(row for row in rows if not row.is_task_trained), *(row for row in rows if row.is_task_trained), _chance()]
    return "\n".join(_markdown(rows, ours))


def with_table(readme: str, table: str) -> str:
    """Return the text of the README with another table between its markers.

    Raises:
        LilliputError: the markers are not there, in this order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise LilliputError(
            "the README has no place for the table", where=README.name, hint=f"add the lines {BEGIN} and {END}"
        )
    return "\n".join([before + BEGIN, *table.splitlines(), END + after])


def _own_row(entry: Entry) -> Row:
    record = read_record(Path(entry.folder))
    found = {f"{one['task']}/{one['metric']}": one for one in record["evaluation"]["scores"]}
    found |= {one["name"]: one for one in record["evaluation"]["averages"]}
    shares = {name: one for name, one in found.items() if name in _columns()}
    devices = record["environment"].get("accelerators") or [record["environment"]["processor"]]
    command = record["command"] and reproduce_command(Part(record["command"]))
    folder = Path(entry.folder).name
    return Row(
        name=f"{entry.name} (ours)",
        parameters=f"{entry.parameters:,}",
        tokens=f"{entry.tokens / 1e9:.2f}B",
        scores={name: 100 * one["value"] for name, one in shares.items()},
        errors={name: 100 * one["stderr"] for name, one in shares.items() if one["stderr"] is not None},
        time=f"{entry.seconds / 60:.1f}, {devices[0]}",
        by=f"{entry.harness}, {record['evaluation'].get('model_code', 'transformers')} code",
        links=(
            f"[card, samples and curve](benchmarks/results/models/{folder}/README.md)",
            code(command["line"]) if command else "the command is not known",
            f"commit {code(record['environment']['commit'])}" if record["environment"]["commit"] else "no commit",
        ),
        is_task_trained=TASK_TRAINED in (record["recipe"].get("notes") or {}).get("tags", ()),
    )


def _peer_rows() -> list[Row]:
    """The models that others measured; the headline is ours to compute from their parts."""
    table = peer_tables()[OPEN_SLM.name]
    rows = []
    for one in table.rows:
        quoted = zip(table.columns.values(), one.scores, strict=True)
        scores = {name: float(value) for name, value in quoted if value is not None and name in _columns()}
        rows.append(
            Row(
                name=one.model,
                parameters=one.parameters or NOTHING,
                tokens=one.tokens or NOTHING,
                scores=scores | _headline(scores),
                errors={},
                by=f"{one.source}; {one.harness}",
            )
        )
    return rows


def _chance() -> Row:
    uses = (*OPEN_SLM.tasks, ARITHMARK2, ARITHMARK2_SYNTHETIC)
    scores = {f"{use.display}/{use.metrics[0]}": 100 * use.chance for use in uses if use.chance is not None}
    return Row(
        name="chance", parameters="", tokens="", scores=scores | _headline(scores), errors={}, time="", by="guessing"
    )


def _headline(scores: Mapping[str, float]) -> dict[str, float]:
    names = {term: f"{TASKS[term.task].display}/{term.metric}" for term in HEADLINE.terms}
    if any(name not in scores for name in names.values()):
        return {}
    return {HEADLINE.name: sum(term.weight * scores[name] for term, name in names.items())}


def _columns() -> dict[str, str]:
    """Headings by figure."""
    tasks = {f"{use.display}/acc_norm": use.display for use in OPEN_SLM.tasks}
    own = {f"{use.display}/acc": use.display for use in (ARITHMARK2, ARITHMARK2_SYNTHETIC)}
    return tasks | {HEADLINE.name: HEADLINE.name} | own


def _markdown(rows: Sequence[Row], ours: Sequence[Row]) -> list[str]:
    letters = {by: chr(ord("a") + place) for place, by in enumerate(dict.fromkeys(row.by for row in rows))}

    def column(name: str, cells: Sequence[str], is_text: bool = False) -> Column:
        return Column(name=name, cells=cells, is_text=is_text)

    table = Table(
        columns=[
            column("model", [f"{row.name}, {TASK_TRAINED}" * row.is_task_trained or row.name for row in rows], True),
            column("parameters", [row.parameters for row in rows]),
            column("tokens", [row.tokens for row in rows]),
            *(column(name, [_share(row, figure) for row in rows]) for figure, name in _columns().items()),
            column("minutes of training", [row.time for row in rows], True),
            column("by", [letters[row.by] for row in rows], True),
        ]
    )
    lines = [
        *table.markdown(),
        "",
        "Zero-shot, in percent, ± one standard error where it is known, `chance` within two of it; headline = "
        f"{prose(HEADLINE.formula)}. Scores of others are quoted, their headline is computed from them. The four tasks "
        "are `acc_norm`, ArithMark `acc`; "
        f"{ARITHMARK2_SYNTHETIC.display} has look-alike items that no training text contains, and is in no average.",
        "",
        *(f"- {letter}: {prose(by)}" for by, letter in letters.items()),
        "",
        *(f"- {prose(row.name)}: {', '.join(row.links)}" for row in ours),
    ]
    return lines


def _share(row: Row, figure: str) -> str:
    if figure not in row.scores:
        return NOTHING
    value, error = row.scores[figure], row.errors.get(figure)
    if error is None:
        return f"{value:.2f}"
    return f"{value:.2f} ± {error:.2f}" + (", chance" if abs(value - _chance().scores[figure]) <= 2 * error else "")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--records", type=Path, default=RECORDS, metavar="FOLDER")
    options.add_argument("--readme", type=Path, default=README)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    table = table_of(chosen.records)
    write_text(chosen.readme, with_table(chosen.readme.read_text(encoding="utf-8"), table))
    print(table or f"no record in {chosen.records}: there is no table")
    if chosen.out:
        write_json(chosen.out, {"environment": environment(), "table": table.splitlines()})


if __name__ == "__main__":
    main()
