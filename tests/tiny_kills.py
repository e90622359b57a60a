"""A small timeline in processes that are killed: at a boundary between two effects on the disk, or whenever."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import tiny
from rich.console import Console

from lilliput.base import files
from lilliput.base.files import sha256
from lilliput.base.units import Tokens
from lilliput.computations.reference_log_probabilities import ReferenceLogProbabilities
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.pairs import ShuffledAnswers
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.pair_data import PairData
from lilliput.data.replies.reply_filters import ReplyFilters
from lilliput.growth.lines import LiNeS
from lilliput.growth.stack import Stack
from lilliput.objectives.dpo import DPO
from lilliput.objectives.next_token import NextToken
from lilliput.publish.export import Generation, export
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import load_recipe
from lilliput.run import pipeline, trained_phase
from lilliput.shrink import shrink
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml
from lilliput.tokenizer.specials import vocabulary_size
from lilliput.train.machine import Machine
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.phase import Stage

TEACHER = "teacher"
MACHINE = Machine(device="cpu", precision="fp32", threads=1)

_forks = get_context("forkserver")
_forks.set_forkserver_preload(["tiny_kills", "torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg"])


Timeline = Callable[[Path, Path], Any]
"""What is done, with a folder for its data, in the folder of a run."""


def small_timeline(work: Path, run: Path) -> None:
    """Text to the weights of two phases, of stages, growths and an average."""
    recipe = tiny.recipe(work / "data", tiny.GQA_SPEC)
    steps = [entry for entry in recipe.timeline if type(entry).__name__ != "Release"]
    pipeline.train(replace(recipe, timeline=tuple(steps)), run, MACHINE, Console(file=StringIO()))


def odinnext_base(work: Path, run: Path) -> None:
    """Denoising blocks in bags of 4, 2 and 1, all layers together, and the base release of odinnext-138m, all small."""
    recipe = shrink(load_recipe("odinnext-138m"))
    entries = recipe.timeline[: next(iter(recipe.releases)) + 1]
    corpora = {name: recipe.corpora[name] for entry in entries for name in entry.reads()}  # no teacher is asked
    pipeline.run(replace(recipe, timeline=entries, corpora=corpora), run, MACHINE, Console(file=StringIO()))


def whole_timeline(work: Path, run: Path) -> None:
    """Text in bags, stacked, averaged and released; chats, replies of a local teacher, pairs; LiNeS, released again."""
    recipe, length = tiny.recipe(work / "data"), 320
    pretrain, average, base, chatml, sft, instruct = recipe.timeline
    chats = recipe.corpora["chats"]
    asked = Teacher(
        model=str(work / TEACHER),
        prompts=chats,
        replies=24,
        max_tokens=12,
        filters=ReplyFilters(cut_off=False, refusals=False, languages=(), likeness=0.0, benchmarks=False),
        license="mit",
    )
    bags = replace(
        pretrain,
        stages=tuple(
            Stage(share=share, objective=NextToken(bag=bag)) for share, bag in ((0.25, 4), (0.25, 2), (0.5, 1))
        ),
        tokens=Tokens(12 * 4 * 32),
    )
    dpo = replace(
        sft,
        name="dpo",
        data=PairData(corpus="pairs", reference="reference", lost=1.0),
        length=length,
        batch_tokens=2 * length,
        tokens=Tokens(6 * 2 * length),
        stages=(Stage(share=1.0, objective=DPO(beta=0.5)),),
    )
    whole = replace(
        recipe,
        corpora={**recipe.corpora, "replies": asked, "pairs": ShuffledAnswers(source=chats)},
        timeline=(
            bags,
            Stack(times=2),
            replace(pretrain, name="stacked", tokens=Tokens(8 * 4 * 32)),
            average,
            base,
            chatml,
            sft,
            replace(sft, name="seqkd", data=ChatData(corpus="replies", lost=1.0), tokens=Tokens(4 * 4 * 128)),
            ReferenceLogProbabilities(name="reference", corpus="pairs"),
            dpo,
            LiNeS(phase="stacked", alpha=0.5, beta=0.5, weights="average"),
            instruct,
        ),
    )
    pipeline.run(whole, run, MACHINE, Console(file=StringIO()))


def write_teacher(folder: Path) -> None:
    """A model that writes something, with a chat template, unless it is there."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    texts = [tiny.sentences(number) for number in range(40)]
    tokenizer = add_chatml(BPE(vocab=tiny.VOCAB, at_most=True).train(texts))
    model = replace(tiny.GQA_SPEC, vocab=vocabulary_size(tokenizer)).build(seed=1)
    for parameter in model.parameters():
        parameter.data.mul_(3.0)  # so that it says more than one word
    settings = {"dtype": "F32", "generation": Generation(), "chat_template": CHAT_TEMPLATE}
    export(model, tokenizer, folder, layout=Qwen3Format(context=512), **settings)


def walk(timeline: Timeline, work: str, run: str, kill_at: int | None, told: Any) -> None:
    """Do a timeline, and be killed before the n-th boundary, from 1.

    A boundary is a write, an fsync, a rename or a removal, or the end of a step. Sends how many there were; the part of
    the run that each is in goes into a file beside it.
    """
    count, parts = 0, [""]

    def boundary(what: str, path: Path) -> None:
        nonlocal count
        count += 1
        parts.append(part_of(Path(run), path) or parts[-1])
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def see(self: MetricsLogger, *numbers: Any) -> None:
        seen(self, *numbers)
        boundary("step", Path())

    seen, MetricsLogger.log_step = MetricsLogger.log_step, see  # type: ignore[method-assign]
    files.boundary = boundary
    if find_spec("matplotlib") is None:  # the picture of a loss decides nothing
        trained_phase.plot_loss = lambda *drawn: None
    timeline(Path(work), Path(run))
    Path(f"{run}.parts").write_text("\n".join(parts[1:]))
    told.send(count)


def part_of(run: Path, path: Path) -> str:
    """The part of a run that a path belongs to, such as `phases/03-sft`; empty for files of the whole run."""
    if not path.is_relative_to(run):
        return ""
    names = [name.removesuffix(".partial").removesuffix(".before") for name in path.relative_to(run).parts[:2]]
    return "/".join(names) if len(names) == 2 and names[0] != "parts" else ""


def finished(
    work: Path,
    run: Path,
    kill_at: int | None = None,
    after: float | None = None,
    timeline: Timeline = small_timeline,
) -> int | None:
    """The boundaries that a process met, or None where it was killed: before one of them, or after some seconds."""
    if timeline is whole_timeline:
        write_teacher(work / TEACHER)
    ours, theirs = _forks.Pipe(duplex=False)
    process = _forks.Process(target=walk, args=(timeline, str(work), str(run), kill_at, theirs), daemon=True)
    process.start()
    theirs.close()
    if after is not None:
        process.join(after)
        process.kill()
    process.join(900)
    if process.exitcode == 0:
        return ours.recv()
    assert process.exitcode == -signal.SIGKILL, f"exit code {process.exitcode}"
    return None


def trained(run: Path) -> dict[str, str]:
    """Hashes of the last weights of every phase."""
    return {path.parents[1].name: sha256(path) for path in sorted(run.glob("phases/*/final/weights.safetensors"))}


def released(run: Path) -> dict[str, str]:
    """Hashes of the weights of every release."""
    return {path.parent.name: sha256(path) for path in sorted(run.glob("releases/*/model.safetensors"))}


def killed(
    work: Path,
    run: Path,
    kill_at: int | None,
    after: float | None,
    draw: Random,
    boundaries: int,
    timeline: Timeline = small_timeline,
) -> tuple[bool, bool]:
    """Kill a run that begins, kill it once more where it goes on, and let it end; whether each of the two was killed.

    It is not where it ends before: after more seconds than it needs, or at once where it was killed at its end.
    """
    first = finished(work, run, kill_at, after, timeline) is None
    left = boundaries - (kill_at or 0)  # at least: what came after the last checkpoint is done again
    second = finished(work, run, draw.randint(1, max(1, left)), timeline=timeline) is None
    assert finished(work, run, timeline=timeline) is not None, "killed by nobody"
    return first, second
