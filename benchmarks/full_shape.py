"""What do OdinNext-138M and MTLM1-200M come to in some minutes on one GPU, beside ordinary training?

    python benchmarks/full_shape.py FOLDER MODEL --texts FILE... --eval-data FOLDER [--chats FILE...]
        [--teacher FOLDER | FILE.gguf... | --replies FILE...] [--minutes 12] [--arms recipe,plain] [--blocks]
        [--until SECONDS] [--known FILE.json] [--machine one-gpu] [--shrink] [--out FILE.json]

    odinnext-138m   recipe: bags of 4, 2 and 1 token, then end to end, an average, SFT, a teacher's replies
                    plain:  AdamW, a token a position, one phase; SFT
    mtlm1-200m      recipe: twelve layers, stacked to twenty-four, and trained on
                    plain:  twenty-four layers from the first step on

Everything is done by `lilliput plan --probe` and `lilliput run`, on local files; the commands are printed. A phase has
as many tokens as its share of --minutes allows, by the steps that the plan takes here; phases of pretraining keep the
proportion that the recipe has. Warm-ups, and windows of averages, that are longer than a tenth of their phase become a
tenth. Bags go through full depth, unless --blocks says that they go through the recipe's denoising blocks. The teacher
stands in for the recipe's, and answers questions of --chats; --replies are read instead.

Both arms are planned, so that each of two days has a timed step of both; --arms says which are trained, and those of
--known are taken from an earlier result. A command that is stopped, with the run that it began, by SIGKILL or after
--until seconds, is continued by typing it again: FOLDER keeps plans and runs. FILE.json has plans, curves, scores, and
replies to some questions; the cards are FILE-ARM-RELEASE.md, the teacher's replies that are kept FILE-replies.jsonl.
--shrink rehearses all of it at toy size.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate, pairwise
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from gguf_llama import joined, write_llama

from lilliput.base.environment import environment
from lilliput.base.files import new_folder, read_json, write_json
from lilliput.base.text_units import duration, size
from lilliput.base.units import Steps
from lilliput.data.replies.reply_file import read_replies
from lilliput.data.replies.reply_filters import ReplyFilters
from lilliput.optim.ema import Ema
from lilliput.recipe import Recipe
from lilliput.run.api import Run, load
from lilliput.run.command_record import Command
from lilliput.train.metrics_file import measured_of, recent_loss, steps_of
from lilliput.train.phase import Phase, tokens_per_position

PLAIN = Path(__file__).parent / "full_shape_plain"
HELD_OUT = 0.005
"""Share of the documents and conversations: the recipes' own is for a hundred times the text."""
TENTH = 0.1
"""Most of a phase that a warm-up, or the window of an average, may take."""
LEAST_STEPS = 20
SAVES, MEASUREMENTS, POINTS = 4, 8, 100
"""Checkpoints, held-out measurements and points of the curve of a phase."""
REPLIES, REPLY_TOKENS = 4_000, 256
GRACE = 60
"""Seconds in which a run that is asked to stop ends its step and saves."""
TIMED = ("seconds", "seconds_per_step", "peak_memory")
"""Entries of a plan that a result has."""
PARTS = {
    "odinnext-138m": {"natural": 1.0},
    "mtlm1-200m": {"fineweb-edu": 0.4, "cosmopedia": 0.275, "fineweb": 0.225, "knowledge": 0.1},
}
"""Shares of the files of --texts that stand for a corpus, by the tokens that both phases read of it."""
QUESTIONS = (
    "What is the capital of France?",
    "Write two sentences about the sea.",
    "Name three animals that can fly.",
    "How do I boil an egg?",
)
PROMPTS = ("The capital of France is", "Machine Learning is", "Once upon a time there was")
SMALLER = 64 * 2_048
"""A quarter of OdinNext's batch: of whole ones there is only time for five hundred steps."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A recipe, and how it spends its time."""

    recipe: str
    time: dict[tuple[str, ...], float]
    """Shares of the time, by the phases that divide one in proportion to their tokens."""
    sets: tuple[str, ...] = ()
    """Other values of the recipe's fields at full shape."""


def _sets(phase: str, **values: Any) -> tuple[str, ...]:
    return tuple(f"timeline.{phase}.{name}={value}" for name, value in values.items())


SFT, SEQKD = 0.1, 0.005
"""Shares of the time: about three passes each."""
TUNING = ("sft", "seqkd")
ARMS = {
    "odinnext-138m": {
        "recipe": Arm(
            recipe="odinnext-138m",
            time={("accelerated", "end-to-end"): 1 - SFT - SEQKD, ("sft",): SFT, ("seqkd",): SEQKD},
            sets=(
                *_sets("accelerated", batch_tokens=SMALLER),
                *_sets("end-to-end", batch_tokens=SMALLER),
                *_sets("seqkd", batch_tokens=8 * 2_048),
            ),
        ),
        "plain": Arm(
            recipe=str(PLAIN / "odinnext_138m.py"),
            time={("pretrain",): 1 - SFT, ("sft",): SFT},
            sets=_sets("pretrain", batch_tokens=SMALLER),
        ),
    },
    "mtlm1-200m": {
        "recipe": Arm(recipe="mtlm1-200m", time={("base", "refine"): 1.0}),
        "plain": Arm(recipe=str(PLAIN / "mtlm1_200m.py"), time={("pretrain",): 1.0}),
    },
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("model", choices=ARMS)
    arguments.add_argument("--texts", nargs="+", required=True)
    arguments.add_argument("--eval-data", required=True)
    arguments.add_argument("--chats", nargs="+", default=[])
    arguments.add_argument("--teacher", nargs="+", type=Path, default=[])
    arguments.add_argument("--replies", nargs="+", default=[])
    arguments.add_argument("--minutes", type=float, default=12.0, help="of training steps of an arm")
    arguments.add_argument("--arms", default="recipe,plain")
    arguments.add_argument("--blocks", action="store_true")
    arguments.add_argument("--until", type=float, metavar="SECONDS")
    arguments.add_argument("--known", type=Path)
    arguments.add_argument("--machine", default="one-gpu")
    arguments.add_argument("--shrink", action="store_true")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    needed = given.chats and (given.teacher or given.replies)
    if given.model == "odinnext-138m" and not needed:
        arguments.error("odinnext-138m needs --chats, and --teacher or --replies")
    if len(given.texts) < len(PARTS[given.model]):
        arguments.error(f"{given.model} needs at least {len(PARTS[given.model])} files of --texts")
    out = given.out or given.folder / f"{given.model}.json"
    known = read_json(given.known)["arms"] if given.known else {}
    work = Workplace(given)
    plans = {arm: work.planned(arm) for arm in ARMS[given.model]}
    for arm in given.arms.split(","):
        work.train(arm)
    trained = {arm: work.result(arm, out) for arm in ARMS[given.model] if work.run(arm).is_dir()}
    settings = {name: getattr(given, name) for name in ("minutes", "blocks", "shrink")}
    result = {"model": given.model, "settings": settings, "environment": environment()}
    timed = {arm: {name: plan[name] for name in TIMED} for arm, plan in plans.items()}
    found = known | trained
    arms = {arm: found[arm] for arm in ARMS[given.model] if arm in found}
    result |= {"plans": timed, "seconds": work.seconds(), "arms": arms}
    write_json(out, result)
    print(table(result["arms"]))


class Workplace:
    """The folder of a comparison, and the commands that are run in it."""

    def __init__(self, given: argparse.Namespace):
        self._given, self._began = given, time.perf_counter()
        self._folder = given.folder.resolve() / given.model
        self._folder.mkdir(parents=True, exist_ok=True)

    def run(self, arm: str) -> Path:
        """The run folder of an arm."""
        return self._folder / arm

    def planned(self, arm: str) -> dict[str, Any]:
        """What an arm is to do: a plan as `lilliput plan` makes it, seconds of its phases, values of the recipe."""
        file = self._folder / f"{arm}-plan.json"
        if not file.is_file():
            probed = self._plan(arm, self._sets(arm), "--probe", "--machine", self._given.machine)
            seconds = {one["name"]: one["cost"]["seconds"] / one["tokens"] for one in probed["phases"]}
            sets = fitted(self._recipe(arm), self._arm(arm).time, seconds, 60 * self._given.minutes)
            plan = self._plan(arm, (*self._sets(arm), *sets))
            planned = {one["name"]: one["tokens"] * seconds[one["name"]] for one in plan["phases"]}
            steps = {one["name"]: one["cost"]["seconds_per_step"] for one in probed["phases"]}
            peaks = {one["name"]: one["memory"]["peak"] for one in probed["phases"]}
            write_json(
                file,
                {"sets": sets, "seconds": planned, "seconds_per_step": steps, "peak_memory": peaks, "plan": plan},
            )
        return read_json(file)

    def train(self, arm: str) -> None:
        """Train and release an arm, or go as far as time allows."""
        until, began = self._given.until, time.perf_counter()
        left = None if until is None else until - (began - self._began)
        if left is not None and left <= 0:
            return
        sets = (*self._sets(arm), *self.planned(arm)["sets"])
        folder = ("--out", str(self.run(arm)), "--machine", self._given.machine, "--eval-data", self._given.eval_data)
        command = self._command("run", arm, sets, *folder)
        print(shlex.join(command), flush=True)
        code, taken = ended(subprocess.Popen(command), left), self.seconds()
        taken[arm] = round(taken.get(arm, 0.0) + time.perf_counter() - began, 1)
        write_json(self._folder / "seconds.json", taken)
        if code:
            sys.exit(code)

    def seconds(self) -> dict[str, float]:
        """Seconds of the commands of each arm, with all that is not training."""
        file = self._folder / "seconds.json"
        return read_json(file) if file.is_file() else {}

    def result(self, arm: str, out: Path) -> dict[str, Any]:
        """What an arm came to so far; its cards and replies are copied beside the result."""
        run, planned = Run(folder=self.run(arm)), self.planned(arm)
        counted = {one["name"]: one for one in planned["plan"]["phases"]}
        phases = {path.parent.name.partition("-")[2] for path in run.folder.glob("phases/*/metrics.jsonl")}
        for replies in run.folder.glob("replies/*/replies.jsonl"):
            write_kept(replies, out.with_name(f"{out.stem}-replies.jsonl"))
        sets = (*self._sets(arm), *planned["sets"])
        releases = {
            folder.name: released(run, folder, out.with_name(f"{out.stem}-{arm}-{folder.name}.md"))
            for folder in run.releases
            if (folder / "README.md").is_file()
        }
        return {
            "recipe": Path(self._arm(arm).recipe).stem,
            "sets": [text for text in sets if "/" not in text],  # files are where they were
            "is_whole": len(releases) == len(planned["plan"]["releases"]),
            "phases": {
                name: trained_phase(run, name, planned["seconds"][name], counted[name])
                for name in counted
                if name in phases
            },
            "releases": releases,
        }

    def _arm(self, arm: str) -> Arm:
        return ARMS[self._given.model][arm]

    def _recipe(self, arm: str) -> Recipe:
        """The recipe of an arm before its length is known."""
        sources = tuple(text for option, text in self._sources(arm) if option == "--source")
        options = {"shrink": self._given.shrink, "sources": sources, "overrides": self._sets(arm)}
        return Command(recipe=self._arm(arm).recipe, **options).make()

    def _plan(self, arm: str, sets: tuple[str, ...], *options: str) -> dict[str, Any]:
        """What `lilliput plan` says; of a process of its own, which leaves the device's memory alone afterwards."""
        command = self._command("plan", arm, sets, *options, "--json")
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def _command(self, verb: str, arm: str, sets: tuple[str, ...], *options: str) -> list[str]:
        command = [sys.executable, "-m", "lilliput", verb, self._arm(arm).recipe]
        command += ["--shrink"] if self._given.shrink else []
        for pair in (*self._sources(arm), *(("--set", text) for text in sets)):
            command += pair
        return [*command, *options]

    def _sources(self, arm: str) -> list[tuple[str, str]]:
        given, sources = self._given, []
        parts, paths = PARTS[given.model], sorted(given.texts)
        shared = dealt(paths, tuple(parts.values()))
        for name, files in zip(parts, shared, strict=True):
            sources += [("--source", f"{name}={file}") for file in files]
        if given.model == "odinnext-138m":
            sources += [("--source", f"instructions={file}") for file in given.chats]
            if arm == "recipe":
                sources += [("--source", f"replies={file}") for file in given.replies]
        return sources

    def _sets(self, arm: str) -> tuple[str, ...]:
        """Values of an arm's recipe but the length of its phases."""
        given, sets = self._given, [f"split.share={10 * HELD_OUT if self._given.shrink else HELD_OUT}"]
        if not given.shrink:
            sets += self._arm(arm).sets
        if given.model == "odinnext-138m" and given.shrink:
            tuned = {name for names in self._arm(arm).time for name in names}.intersection(TUNING)
            sets += [f"timeline.{name}.data.lost=1" for name in sorted(tuned)]  # rows are short there
        if given.model == "odinnext-138m" and arm == "recipe":
            if not given.blocks:
                sets += [f"timeline.accelerated.stages.{stage}.objective.route=FullDepth()" for stage in range(3)]
            if not given.replies:
                sets += self._asked()
        return tuple(sets)

    def _asked(self) -> list[str]:
        """The teacher, and whose questions it answers."""
        given = self._given
        replies, tokens = (12, 96) if given.shrink else (REPLIES, REPLY_TOKENS)
        return [
            f"corpora.replies.stand_in={self._teacher()}",
            f"corpora.replies.prompts=ChatFiles(paths={tuple(given.chats)!r})",
            f"corpora.replies.replies={replies}",
            f"corpora.replies.max_tokens={tokens}",
        ]

    def _teacher(self) -> Path:
        (first, *_), folder = self._given.teacher, self._folder / "teacher"
        if first.is_dir():
            return first.resolve()
        if not folder.is_dir():
            with new_folder(folder) as partly:
                write_llama(joined(self._given.teacher, self._folder), partly)
        return folder


def ended(process: subprocess.Popen[bytes], seconds: float | None) -> int:
    """Return the exit code of a process that is asked to stop after some seconds; 0 where it was."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return 0


def dealt(paths: list[str], shares: Sequence[float]) -> list[list[str]]:
    """Deal files out, in their order, in proportion to shares; each gets at least one."""
    ends = [0]
    for share in accumulate(shares):
        left = len(shares) - len(ends)  # that come after this one
        ends.append(min(max(round(share * len(paths)), ends[-1] + 1), len(paths) - left))
    return [paths[begin:end] for begin, end in pairwise(ends)]


def fitted(
    recipe: Recipe, time: dict[tuple[str, ...], float], seconds: dict[str, float], whole: float
) -> tuple[str, ...]:
    """Return the values of a recipe that give its phases the length that fits into some seconds.

    Args:
        recipe: as long as it is.
        time: shares of the seconds, see `Arm.time`.
        seconds: of a token of text, by phase.
        whole: seconds of steps of all phases.
    """
    phases, sets = {phase.name: phase for phase in recipe.phases.values()}, []
    for names, share in time.items():
        cost = sum(int(phases[name].tokens) * seconds[name] for name in names)
        for name in names:
            sets += _length(phases[name], int(phases[name].tokens) * share * whole / cost)
    return tuple(sets)


def _length(phase: Phase, tokens: float) -> tuple[str, ...]:
    """Return the values that make a phase read about so many tokens, in whole steps."""
    each = phase.batch_tokens * tokens_per_position(phase.stages, phase.length)
    least = max(LEAST_STEPS, ceil(1 / min(stage.share for stage in phase.stages)))
    steps = max(least, int(tokens / each))
    tenth = max(1, int(TENTH * steps))
    set_to: dict[str, Any] = {
        "tokens": ceil(steps * each),
        "save_every": max(1, steps // SAVES),
        "measure_every": 1 / MEASUREMENTS,
    }
    warmup = getattr(phase.schedule, "warmup", None)
    if isinstance(warmup, Steps):
        set_to["schedule.warmup"] = min(warmup.count, tenth)
    if isinstance(phase.ema, Ema):
        set_to["ema.decay"] = min(phase.ema.decay, 1 - 1 / tenth)
    return _sets(phase.name, **set_to)


def write_kept(replies: Path, out: Path) -> None:
    """Write the replies of a run that pass its filters as conversations, for --replies of another day."""
    kept = (reply for reply, reason in ReplyFilters().judge(read_replies(replies), {}) if not reason)
    rows = ({"id": reply.id, "messages": [asdict(one) for one in reply.messages()]} for reply in kept)
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def trained_phase(run: Run, name: str, planned: float, counted: dict[str, Any]) -> dict[str, Any]:
    """What a phase took and came to, with a curve of its losses and all that was measured of held-out data."""
    lines = run.metrics(name)
    steps, every = steps_of(lines), max(1, counted["steps"] // POINTS)
    if not steps:
        return {"steps": 0, "of_steps": counted["steps"], "planned_seconds": planned}
    seconds = sum(step["seconds"] for step in steps)
    return {
        "steps": steps[-1]["step"],
        "of_steps": counted["steps"],
        "tokens": steps[-1]["tokens"],
        "tokens_per_parameter": steps[-1]["tokens"] / counted["parameters"]["total"],
        "seconds": seconds,
        "planned_seconds": planned,
        "tokens_per_second": steps[-1]["tokens"] / seconds,
        "peak_memory": max((step.get("peak_memory", 0) for step in steps), default=0),
        "loss": recent_loss(steps),
        "curve": [[step["step"], step["tokens"], step["cross_entropy"]] for step in steps[::every]],
        "heldout": [[one["step"], one["tokens"], one["heldout"]] for one in measured_of(lines)],
    }


def released(run: Run, folder: Path, card: Path) -> dict[str, Any]:
    """Scores of a release and what it writes; its card is copied."""
    shutil.copy(folder / "README.md", card)
    found = read_json(run.folder / "evals" / f"{folder.name}.json")
    model = load(folder)
    ask = partial(model.generate, max_new_tokens=64, seed=0)
    if model.chat_template is None:
        samples = {text: ask(text) for text in PROMPTS}
    else:
        samples = {text: ask([{"role": "user", "content": text}]) for text in QUESTIONS}
    known = ("scores", "averages", "baselines", "versions", "contamination")
    return {name: found[name] for name in known if name in found} | {"card": card.name, "writes": samples}


HEADER = f"{'':20} {'steps':>13} {'tokens':>15} {'planned':>9} {'taken':>9} {'tokens/s':>10} {'memory':>9}  held out"


def table(arms: dict[str, Any]) -> str:
    """Lines on the phases and scores of arms, and how far their last releases are apart in standard errors."""
    lines = [
        f"{'':20} {'steps':>13} {'tokens':>15} {'planned':>9} {'taken':>9} {'tokens/s':>10} {'memory':>9}  held out"
    ]
    for arm, found in arms.items():
        for name, one in found["phases"].items():
            if not one["steps"]:
                continue
            heldout = one["heldout"][-1][2] if one["heldout"] else {}
            measured = ", ".join(f"{corpus} {value:.4f}" for corpus, value in heldout.items())
            lines.append(
                f"{arm + ' ' + name:20} {one['steps']:>6,}/{one['of_steps']:<6,} {one['tokens']:>15,} "
                f"{duration(one['planned_seconds']):>9} {duration(one['seconds']):>9} "
                f"{one['tokens_per_second']:>10,.0f} {size(one['peak_memory']):>9}  {measured}"
            )
    for arm, found in arms.items():
        for name, release in found["releases"].items():
            lines += ["", f"{arm}: {name}"]
            lines += [f"  {score['task']:32} {score['metric']:16} {_score(score)}" for score in release["scores"]]
    ends = [list(found["releases"].values())[-1]["scores"] for found in arms.values() if found["is_whole"]]
    if len(ends) == 2:
        lines += ["", f"{' less '.join(arms)}, and in standard errors of the difference:", *map(_difference, *ends)]
    return "\n".join(lines)


def _score(score: dict[str, Any]) -> str:
    error = "" if score["stderr"] is None else f" +- {score['stderr']:.4f}"
    return f"{score['value']:.4f}{error}" + ("" if score["chance"] is None else f", chance {score['chance']:.4f}")


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    apart = one["value"] - other["value"]
    error = sqrt(sum((score["stderr"] or 0.0) ** 2 for score in (one, other)))
    return f"  {one['task']:32} {one['metric']:16} {apart:+.4f}" + (f" ({apart / error:+.1f})" if error else "")


if __name__ == "__main__":
    main()
