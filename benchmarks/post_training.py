"""What does each step of post-training do to a small model?

    python benchmarks/post_training.py FOLDER --texts FILE... --chats FILE... --pairs FILE... --teacher FILE.gguf...
        [--models gqa,hgrn2] [--small] [--device DEVICE] [--out FILE.json]

A small attention model and a small HGRN2 are trained on texts, then tuned on conversations (SFT), on a teacher's
replies (SeqKD) and on pairs (DPO). SFT and SeqKD are also scaled by LiNeS, moderately and aggressively, and averaged;
DPO is tried at a second, higher rate from the same weights, and SeqKD is asked with other repetition penalties. Each of
these is judged as `lilliput judge` does: generated instructions, replies that end by themselves, loops, repetition,
held-out answers; and held-out texts of pretraining.

The prompts of held-out conversations are in no other conversation, no pair, and no question to the teacher. The teacher
is a folder of a model, or a Llama in a GGUF file, or the pieces of one (`split -b 45M`) in their order, of which
`benchmarks/gguf_llama.py` makes a folder once.

All is kept in FOLDER, and nothing is done twice: repeat the command after a stop. The JSON has figures, replies, and
the seconds of each stage; `benchmarks/post_training_page.py` makes tables, verdicts and samples of it, in FILE.md.
`benchmarks/post_training_rates.py`, `benchmarks/tuning_steps.py` and `benchmarks/lora.py` use the same FOLDER. --small
is a toy for a CPU that shows nothing but that it runs.
"""

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from gguf_llama import joined, write_llama
from post_training_page import verdicts, write_page

from lilliput.base.environment import environment
from lilliput.base.files import new_folder, read_json, write_json
from lilliput.base.run_folder import RunFolder
from lilliput.base.units import Share, Tokens
from lilliput.computations.reference_log_probabilities import ReferenceLogProbabilities
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.pairs import PairFiles
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.messages import Message
from lilliput.data.mixture import Mixture
from lilliput.data.pair_data import PairData
from lilliput.data.replies.reply_filters import ReplyFilters
from lilliput.data.shards import Shards
from lilliput.data.split import Split, fraction_of
from lilliput.evals.answer_bits import answer_bits
from lilliput.evals.judge import judge
from lilliput.generate.log_likelihood import log_likelihoods
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.average_weights import AverageWeights, mean_of
from lilliput.growth.lines import scaled
from lilliput.model import ModelSpec, copy_weights
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.rope import RoPE
from lilliput.objectives.dpo import DPO
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.adamw import AdamW
from lilliput.optim.normuon import NorMuon
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.publish.export import Generation, export
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.publish.load import load
from lilliput.publish.loaded_model import LoadedModel
from lilliput.recipe import Recipe, Release, read_recipe
from lilliput.recipes import slm_10m
from lilliput.run.api import Run, train_recipe
from lilliput.run.trained import read_trained
from lilliput.run.trained_phase import TrainedPhase
from lilliput.sweep.shared_data import link_prepared
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, CHATML
from lilliput.tokenizer.specials import literal, vocabulary_size
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import INCIDENTS, read_metrics
from lilliput.train.phase import Phase, Stage

LINES = {"LiNeS": (0.5, 0.5), "aggressive LiNeS": (0.0, 0.5)}
"""Variants of a tuned step: alpha and beta."""
PENALTIES = (1.0, 1.1, 1.3)
"""Repetition penalties that SeqKD is judged with besides that of the settings."""
BYTES_PER_TOKEN = 3.5
"""Estimate by which passes become tokens before anything is encoded; the result has the rows that there were."""
FITS, LOST = 2.5, 0.2
"""Bytes per token up to which a text is taken to fit, and the share of those that may not fit after all."""
REPLY_PROMPT, KEPT = 150, 0.6
"""Estimated tokens of a prompt of the teacher, and share of its replies that are kept: others are cut off."""
PAIR_ROWS = 2
"""Rows of conversations that are as long as one of pairs, which holds prompts and both answers."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes and rates of a comparison."""

    models: dict[str, ModelSpec]
    vocab: int = 8_192
    length: int = 1_024
    rows: int = 128
    """Of a step of pretraining."""
    tokens: float = 150e6
    """Of pretraining."""
    tuning_rows: int = 32
    sft_rate: float = 1e-3
    sft_passes: float = 2.0
    replies: int = 4_000
    reply_tokens: int = 256
    """Of the teacher, at most."""
    seqkd_rate: float = 3e-4
    seqkd_passes: float = 2.0
    dpo_rates: tuple[float, float] = (1e-6, 3e-5)
    dpo_passes: float = 1.0
    repetition_penalty: float = 1.2
    """Of every reply that is judged."""
    conversations: int | None = None
    """Read at most; None for all."""
    pairs: int | None = None
    heldout: float = 0.02
    """Share of the prompts."""
    questions: int = 200
    each: int = 40
    """Generated instructions of a kind."""
    documents: int = 200
    """Held-out texts that are measured, up to `characters` of each."""
    characters: int = 4_000
    new_tokens: int = 128
    judged_rows: int = 64


SETTINGS = Settings(
    models={
        "gqa": slm_10m.model,
        # 8,192 x 256 + 10 x (4 x 65,536 + 491,520 + norms and biases): 9.7 million
        "hgrn2": ModelSpec(
            vocab=8_192,
            width=256,
            layers=10,
            mixer=HGRN2(heads=2, forget_timescales=(2.0, 150.0)),
            ffn=SwiGLU(inner=640),
        ),
    },
)
SMALL = replace(
    SETTINGS,
    models={
        "gqa": ModelSpec(
            vocab=1_024,
            width=128,
            layers=2,
            mixer=GQA(heads=4, kv_heads=2, head_width=32, qk_norm=True, rope=RoPE(theta=10_000.0)),
            ffn=SwiGLU(inner=256),
        ),
        "hgrn2": ModelSpec(
            vocab=1_024,
            width=128,
            layers=2,
            mixer=HGRN2(heads=2, forget_timescales=(2.0, 150.0)),
            ffn=SwiGLU(inner=256),
        ),
    },
    vocab=1_024,
    length=256,
    rows=8,
    tokens=40 * 8 * 256,
    tuning_rows=4,
    sft_rate=3e-3,
    replies=16,
    reply_tokens=48,
    seqkd_rate=1e-3,
    conversations=200,
    pairs=40,
    heldout=0.1,
    questions=10,
    each=3,
    documents=12,
    new_tokens=24,
    judged_rows=16,
)


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("--teacher", nargs="+", type=Path, required=True)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    work = Workplace(given)
    teacher = work.teacher(given.teacher)
    result = {"models": {name: train_line(work, name, teacher) for name in work.models}}
    result |= {"teacher": work.judged("teacher", "teacher", lambda: load(teacher), texts=[])} | work.about()
    result |= {"verdicts": verdicts(result)}
    write_json(out := given.out or work.folder / "line.json", result)
    print(write_page(result, out.with_suffix(".md")))


def options(about: str | None) -> argparse.ArgumentParser:
    """The arguments of every script that works in such a folder."""
    arguments = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--texts", nargs="+", required=True)
    arguments.add_argument("--chats", nargs="+", required=True)
    arguments.add_argument("--pairs", nargs="+", required=True)
    arguments.add_argument("--models", default="gqa,hgrn2")
    arguments.add_argument("--small", action="store_true")
    arguments.add_argument("--device", default="auto")
    return arguments


class Workplace:
    """The folder, and what every stage in it needs."""

    def __init__(self, given: argparse.Namespace):
        self.folder, self.settings = given.folder.resolve(), SMALL if given.small else SETTINGS
        self.models = given.models.split(",")
        self.machine = Machine(device=given.device, threads=1 if given.small else "auto")
        self.device = self.machine.resolved().device
        self.machine.resolved().apply()
        self._texts, self._chats, self._pairs = (tuple(paths) for paths in (given.texts, given.chats, given.pairs))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done, in addition to what a stopped command took, and print it."""
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = self.seconds()
            taken[name] = round(taken.get(name, 0.0) + time.perf_counter() - began, 1)
            write_json(self.folder / "seconds.json", taken)
            print(f"[{name}: {taken[name]:.0f} s; {sum(taken.values()):.0f} s in all]", flush=True)

    def seconds(self) -> dict[str, float]:
        file = self.folder / "seconds.json"
        return read_json(file) if file.is_file() else {}

    def about(self) -> dict[str, Any]:
        """What a result says beside its figures."""
        about = {"settings": asdict(replace(self.settings, models={})), "data": read_json(self.data / "counts.json")}
        return about | {"seconds": self.seconds(), "environment": environment()}

    @property
    def data(self) -> Path:
        """The folder of conversations and pairs without the held-out prompts, and of the held-out conversations."""
        folder = self.folder / "data"
        if not folder.is_dir():
            with self.stage("data"), new_folder(folder) as partial:
                write_json(partial / "counts.json", write_data(partial, self._chats, self._pairs, self.settings))
        return folder

    @property
    def texts(self) -> TextFiles:
        return TextFiles(paths=self._texts)

    @property
    def chats(self) -> ChatFiles:
        return ChatFiles(paths=(str(self.data / "chats.jsonl"),))

    @property
    def pairs(self) -> PairFiles:
        return PairFiles(paths=(str(self.data / "pairs.jsonl"),))

    def tokens_of(self, name: str, passes: float) -> Tokens:
        """About as many tokens as so many passes over conversations or pairs have."""
        return Tokens(passes * read_json(self.data / "counts.json")[name]["bytes"] / BYTES_PER_TOKEN)

    def teacher(self, paths: Sequence[Path]) -> Path:
        """The folder of the teacher."""
        if len(paths) == 1 and paths[0].is_dir():
            return paths[0].resolve()
        folder = self.folder / "teacher"
        if not folder.is_dir():
            with self.stage("teacher: GGUF to a folder"), new_folder(folder) as partial:
                write_llama(joined(paths, self.folder), partial)
        return folder

    def judged(self, model: str, step: str, opened: Callable[[], LoadedModel], texts: Sequence[str]) -> dict[str, Any]:
        """The figures of a step, measured once."""
        file = self.folder / "judged" / model / f"{step.replace(' ', '-')}.json"
        if not file.is_file():
            with self.stage(f"{model}: {step} is judged"):
                loaded = opened()
                loaded.model.to(self.device)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, figures(loaded, heldout(self.data), texts, self.settings))
        return read_json(file)


def write_data(folder: Path, chats: Sequence[str], pairs: Sequence[str], s: Settings) -> dict[str, Any]:
    """Write each side's rows, those of conversations in the order of their prompts' hashes, and return their counts.

    Held-out prompts are all different, and leave room for a reply. Conversations and pairs fit into rows; those that do
    not are counted.
    """
    sides: dict[str, list[dict[str, Any]]] = {"chats": [], "heldout": [], "pairs": []}
    long, seen = Counter[str](), set[str]()
    for conversation in ChatFiles(paths=tuple(chats)).conversations():
        prompt = prompt_of(conversation.messages)
        row = {"id": f"{fraction_of(prompt):.12f}", "messages": plain(conversation.messages)}
        side = "chats" if fraction_of(prompt) >= s.heldout else "heldout"
        if size_of(row) > FITS * s.length or len(prompt.encode()) > FITS * (s.length - s.new_tokens):
            long[side] += 1
        elif prompt and not (side == "heldout" and prompt in seen):
            seen.add(prompt)
            sides[side].append(row)
    sides["chats"] = sorted(sides["chats"], key=lambda row: row["id"])[: s.conversations]
    for pair in PairFiles(paths=tuple(pairs)).pairs():
        parts = {"prompt": plain(pair.prompt), "chosen": plain(pair.chosen), "rejected": plain(pair.rejected)}
        fits = size_of(parts) <= FITS * PAIR_ROWS * s.length
        long["pairs"] += not fits
        if fits and fraction_of(prompt_of(pair.prompt)) >= s.heldout:
            sides["pairs"].append(parts)
    sides["pairs"] = sides["pairs"][: s.pairs]
    for name, rows in sides.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {
        name: {"rows": len(rows), "bytes": sum(map(size_of, rows)), "too long": long[name]}
        for name, rows in sides.items()
    }


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": one.role, "content": one.content} for one in messages]


def size_of(row: dict[str, Any]) -> int:
    """Bytes that are read of a row: the prompt of a pair once for each answer."""
    parts = [row["messages"]] if "messages" in row else [row["prompt"], row["prompt"], row["chosen"], row["rejected"]]
    return sum(len(one["content"].encode()) for part in parts for one in part)


def prompt_of(messages: Sequence[Message]) -> str:
    return next((one.content.strip() for one in messages if one.role == "user"), "")


def recipe_of(work: Workplace, name: str, teacher: Path) -> Recipe:
    """Texts to two preference phases, of which the second begins with the weights that the first one began with."""
    s = work.settings
    spec, passes = s.models[name], s.seqkd_passes * KEPT * s.replies * (REPLY_PROMPT + s.reply_tokens / 2)
    layout = (Qwen3Format if isinstance(spec.mixer, GQA) else HGRN2Format)(context=s.length)
    pretrain = Phase(
        name="pretrain",
        tokens=Tokens(s.tokens),
        length=s.length,
        batch_tokens=s.rows * s.length,
        data=Mixture(weights={"texts": 1.0}),
        stages=(Stage(share=1.0, objective=NextToken(terms=(CrossEntropy(), ZLoss(weight=1e-4)))),),
        optimizer=NorMuon(lr=8e-3, adam_lr=8e-3),
        schedule=WarmupStableDecay(warmup=Share(0.03), decay=Share(0.4), shape="linear", floor=0.02),
    )
    seqkd = tuned("seqkd", Tokens(passes), s.seqkd_rate, ChatData(corpus="replies", lost=LOST), s)
    pairs = PairData(corpus="pairs", reference="reference", lost=LOST)
    first, second = (
        replace(
            tuned(step, work.tokens_of("pairs", s.dpo_passes), rate, pairs, s),
            length=PAIR_ROWS * s.length,
            stages=(Stage(share=1.0, objective=DPO(beta=0.5)),),
        )
        for step, rate in zip(("dpo", "dpo-hot"), s.dpo_rates, strict=True)
    )
    return Recipe(
        name=name,
        about="A small model, and what becomes of it.",
        corpora={
            "texts": work.texts,
            "chats": work.chats,
            "replies": Teacher(
                model=str(teacher),
                prompts=work.chats,
                replies=s.replies,
                max_tokens=s.reply_tokens,
                filters=ReplyFilters(max_tokens=s.reply_tokens, benchmarks=False),
                license="apache-2.0",
            ),
            "pairs": work.pairs,
        },
        tokenizer=BPE(vocab=s.vocab, at_most=True, sample_bytes=10_000_000),
        tokenizer_corpora=("texts",),
        split=Split(share=0.01),
        model=spec,
        timeline=(
            pretrain,
            AddTokens(tokens=CHATML),
            Release(
                name="base",
                layout=layout,
                suite="own-chat",
                heldout="texts",
                chat="chats",
                generation=generation(s),
            ),
            tuned("sft", work.tokens_of("chats", s.sft_passes), s.sft_rate, ChatData(corpus="chats", lost=LOST), s),
            seqkd,
            ReferenceLogProbabilities(name="reference", corpus="pairs"),
            first,
            AverageWeights(phases=("seqkd", "dpo"), shares=(1.0, 0.0)),
            second,
        ),
    )


def tuned(name: str, tokens: Tokens, rate: float, data: Any, s: Settings) -> Phase:
    return Phase(
        name=name,
        tokens=tokens,
        length=s.length,
        batch_tokens=s.tuning_rows * s.length,
        data=data,
        optimizer=AdamW(lr=rate),
        schedule=WarmupStableDecay(warmup=Share(0.1), decay=Share(0.9), shape="cosine", floor=0.0),
    )


def generation(s: Settings) -> Generation:
    return Generation(repetition_penalty=s.repetition_penalty, max_new_tokens=s.new_tokens)


def train_line(work: Workplace, name: str, teacher: Path) -> dict[str, Any]:
    """Train a model step by step, and judge it after each one."""
    recipe, run = recipe_of(work, name, teacher), work.folder / name
    base = trained_base(work, name, recipe)
    texts = heldout_texts(run, work.settings)
    steps = {"base": work.judged(name, "base", lambda: load(base), texts)}
    for step in ("sft", "seqkd", "dpo", "dpo-hot"):
        with work.stage(f"{name}: {step}"):
            train_recipe(recipe, run, until=step, quiet=True)
        steps[step] = work.judged(name, step, partial(weights_after, run, [step]), texts)
        for variant, (alpha, beta) in (LINES if step in ("sft", "seqkd") else {}).items():
            opened = partial(weights_after, run, [step], back=(alpha, beta))
            steps[f"{step} {variant}"] = work.judged(name, f"{step} {variant}", opened, texts)
    steps["mean of sft and seqkd"] = work.judged(
        name, "mean of sft and seqkd", partial(weights_after, run, ["sft", "seqkd"]), texts
    )
    for penalty in PENALTIES:
        opened = partial(weights_after, run, ["seqkd"], penalty=penalty)
        steps[f"seqkd, penalty {penalty}"] = work.judged(name, f"seqkd, penalty {penalty}", opened, texts)
    token_files = {name: read_json(run / "shards" / name / "index.json") for name in ("chats", "replies", "pairs")}
    return {
        "parameters": load(base).model.parameter_counts()["total"],
        "token_files": {name: index["sides"] | {"length": index["length"]} for name, index in token_files.items()},
        "incidents": {file.parent.name: read_metrics(file) for file in sorted(run.glob(f"phases/*/{INCIDENTS}"))},
        "training": {one.name: Run(folder=run).metrics(one.name)[-2:] for one in recipe.phases.values()},
        "steps": steps,
    }


def trained_base(work: Workplace, name: str, recipe: Recipe) -> Path:
    """The folder of a pretrained model with the tokens of chats; what another run has prepared is taken over."""
    run, base = work.folder / name, work.folder / "bases" / name
    if not base.is_dir():
        with work.stage(f"{name}: pretrain"):
            donors = [one for one in work.folder.iterdir() if (one / "recipe.json").is_file() and one != run]
            with RunFolder(run) as opened:
                link_prepared(opened, recipe, [(one, read_recipe(one)) for one in donors])
            train_recipe(recipe, run, machine=work.machine, until="pretrain", quiet=True)
            found = read_trained(run)
            base.parent.mkdir(exist_ok=True)
            with new_folder(base) as partly:
                export(
                    found.published.model,
                    found.published.tokenizer,
                    partly,
                    layout=next(iter(recipe.releases.values())).layout,
                    dtype="F32",
                    generation=found.published.generation,
                    chat_template=CHAT_TEMPLATE,
                    specials=recipe.tokenizer.specials,
                )
    return base


def weights_after(
    run: Path, names: Sequence[str], back: tuple[float, float] | None = None, penalty: float | None = None
) -> LoadedModel:
    """The model after a phase, or with the mean of several; scaled by LiNeS, if `back` says alpha and beta, and with
    another repetition penalty.
    """
    recipe, loaded, folder = read_recipe(run), read_trained(run).published, RunFolder(run)
    phases = {phase.name: TrainedPhase(folder, index, phase) for index, phase in recipe.phases.items()}
    copy_weights(loaded.model, mean_of([phases[name].weights() for name in names], (), "the mean"))
    if back is not None:
        known = vocabulary_size(loaded.tokenizer)
        before = phases["pretrain"].weights()
        copy_weights(loaded.model, scaled(loaded.model, before, alpha=back[0], beta=back[1], known=known))
    if penalty is not None:
        return replace(loaded, generation=replace(loaded.generation, repetition_penalty=penalty))
    return loaded


def heldout(data: Path) -> list[tuple[Message, ...]]:
    return [one.messages for one in ChatFiles(paths=(str(data / "heldout.jsonl"),)).conversations()]


def heldout_texts(run: Path, s: Settings) -> list[str]:
    texts = (text[: s.characters] for _, text in Shards(run / "shards" / "texts").heldout_texts())
    return list(islice(filter(None, texts), s.documents))


def figures(loaded: LoadedModel, conversations: Sequence[Any], texts: Sequence[str], s: Settings) -> dict[str, Any]:
    """Everything by which a step is compared, item by item."""
    found = judge(
        loaded,
        conversations,
        each=s.each,
        limit=s.questions,
        max_new_tokens=s.new_tokens,
        rows=s.judged_rows,
    )
    drawn = random.Random(0).sample(list(conversations), min(s.questions, len(conversations)))
    answers = answer_bits(loaded.model, loaded.tokenizer, drawn, context=loaded.context)
    return found.plain() | {"answers": answers, "texts": text_bits(loaded, texts)}


def text_bits(loaded: LoadedModel, texts: Sequence[str]) -> list[tuple[float, int]]:
    """Bits and bytes of each text, in windows of the context that share no token."""
    requests, owners, size = [], [], loaded.context - 1
    for number, text in enumerate(texts):
        ids = literal(loaded.tokenizer).encode(text, add_special_tokens=False).ids
        for start in range(0, len(ids), size):
            requests.append(([ids[start - 1] if start else loaded.end_id], ids[start : start + size]))
            owners.append(number)
    bits = [0.0] * len(texts)
    for owner, value in zip(owners, log_likelihoods(loaded.model, requests, window=loaded.context), strict=True):
        bits[owner] -= value / math.log(2)
    return [(value, len(text.encode())) for value, text in zip(bits, texts, strict=True)]


if __name__ == "__main__":
    main()
