"""Evaluates a release: its scores, baselines, and a few texts it writes."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lilliput.base.errors import DataError, reading
from lilliput.base.spec import to_plain
from lilliput.data.chat_rows import PackedChats
from lilliput.data.messages import Message
from lilliput.data.shards import Shards
from lilliput.evals.baselines import unigram_bits_per_byte, xz_bits_per_byte, xz_bits_per_byte_given
from lilliput.evals.chat import NothingToJudge, judge_replies
from lilliput.evals.evaluation import versions
from lilliput.evals.harness import evaluate
from lilliput.evals.made_items import write_made
from lilliput.evals.question_files import QuestionSource, absent, asked
from lilliput.evals.recount import ITEMS_FILE, read_items
from lilliput.evals.suites import HELDOUT, Suite, named
from lilliput.generate.stream_text import write_texts
from lilliput.publish.load import LoadedModel, load
from lilliput.publish.release_formats import ONLY_HF
from lilliput.recipe import Release
from lilliput.run.contamination import clean_scores, searchable, trained_corpora
from lilliput.run.context import RunContext
from lilliput.run.native import native
from lilliput.run.read_items import find_read_items
from lilliput.tokenizer.bpe import load_tokenizer
from lilliput.tokenizer.chatml import render
from lilliput.tokenizer.encoder import Encoder

COUNTED = 10_000_000
"""Tokens counted at a time."""
XZ_WINDOW = 60_000_000
"""Bytes; the dictionary of `xz -9` has 64 MiB."""
SAMPLES = 3
SAMPLE_TOKENS = 96
SAMPLE_PROMPT = 120
"""Characters of a held-out text that a base model goes on from."""


class ReleaseEvaluator:
    """Evaluates the releases of one run."""

    def __init__(self, context: RunContext, questions: QuestionSource):
        self._run, self._recipe, self._machine = context.run, context.recipe, context.machine
        self._console, self._say, self._source = context.console, context.say, questions

    def scores(self, release: Release, weights: str, heldout: Shards, chats: PackedChats | None) -> dict[str, Any]:
        """Scores and samples of an exported release, whose weights have the hash `weights`.

        Those that are there are kept, and no network is asked, unless they were made of other weights or by other
        versions, or the source of questions is a folder whose questions are seen to be others.
        """
        folder = self._run.path / "releases" / release.name
        suite = named(release.suite)
        inputs = {
            "weights": weights,
            "release": to_plain(replace(release, formats=ONLY_HF)),  # the weights are the same
            "suite": to_plain(suite),
            "heldout": heldout.index["sha256"],
            "chats": chats.index["sha256"] if chats else None,
            "versions": versions(),
        }
        inputs["items"] = self._questions(f"evals/{release.name}", inputs, suite)

        def build(results: Path) -> dict[str, Any]:
            with self._console.status(f"{release.name}: evaluating") as status, TemporaryDirectory() as temporary:
                work = Path(temporary)
                item_files = write_made(suite, results, arithmetic_seed=self._recipe.seed)
                if HELDOUT in suite.made:
                    item_files[HELDOUT.task] = heldout.folder / "heldout.txt.jsonl"
                published = load(folder)
                evaluation = evaluate(
                    native(published, folder),
                    suite,
                    self._source,
                    item_files=item_files,
                    work=work,
                    device=self._machine.device,
                    records=results / ITEMS_FILE,
                    watcher=lambda progress: status.update(f"{release.name}: {progress}"),
                ).plain()
                contamination = self._contamination(release, suite, results / ITEMS_FILE, status.update)
                samples = self._samples(published, heldout, chats)
                if chats is not None:
                    status.update(f"{release.name}: judging replies")
                    evaluation |= self._replies(published, chats, evaluation["scores"])
            lacking = {"absent": absent(suite, self._source)}
            return evaluation | {"samples": samples, "contamination": contamination} | lacking

        return self._run.cached(f"evals/{release.name}", inputs, build)

    def _contamination(
        self, release: Release, suite: Suite, items: Path, report: Callable[[str], None]
    ) -> dict[str, Any] | None:
        """Scores without the items that the training text gives away; None where no public item was asked.

        A reason where the questions cannot be read again, which is no reason to lose an evaluation.
        """
        recorded = read_items(items)
        uses = searchable(suite, self._source, recorded)
        if not uses:
            return None
        corpora = trained_corpora(self._recipe, self._recipe.timeline.index(release))
        try:
            found = find_read_items(
                self._run.path,
                corpora,
                uses,
                self._source,
                report=lambda line: report(f"{release.name}: {line}"),
            )
        except DataError as error:
            self._say(f"the training text is not searched for items of benchmarks: {error.what}")
            return {"unknown": error.what}
        scores = [asdict(score) for score in clean_scores(release.name, uses, recorded, found)]
        short = {use.display: found.counts[use.task].short for use in uses}
        return {"scores": scores, "texts": dict(found.texts), "short": short}

    def _replies(self, published: LoadedModel, chats: PackedChats, scores: list[dict[str, Any]]) -> dict[str, Any]:
        """The scores with those of replies; or why there are none, which is no reason to lose a trained model."""
        try:
            judged = judge_replies(published, list(_pairs(chats)))
        except NothingToJudge as error:
            self._say(f"replies are not judged: {error.what}")
            return {"unjudged": error.what}
        return {"scores": scores + [asdict(score) for score in judged]}

    def _questions(self, name: str, inputs: dict[str, Any], suite: Suite) -> dict[str, str]:
        """Return what tells the questions of an evaluation from others; where they are those that were asked, as it
        was.
        """
        record = self._run.record(name)
        recorded, outputs = record.get("from", {}), record.get("outputs", {})
        uses = asked(suite, self._source, ())
        with reading(self._run.path / "evals", f"evaluate again: lilliput clean {self._run.path} --from {name} --yes"):
            is_asked = record.get("done") and recorded | inputs == recorded
            if is_asked and not self._source.differs(uses, outputs.get("questions", {})):
                return recorded["items"]
        return self._source.identity(uses)

    def baselines(self, release: Release, heldout: Shards) -> dict[str, Any]:
        """Held-out bits per byte of models that anybody has, a unigram model and xz, where the release has its own."""
        if HELDOUT not in named(release.suite).made:
            return {}

        def build(folder: Path) -> dict[str, Any]:
            with self._console.status("compressing the held-out text with xz"):
                texts = list(_first((text for _, text in heldout.heldout_texts()), XZ_WINDOW // 2))
                size = heldout.index["sides"]["heldout"]["bytes"]
                train, held = heldout.stream("train"), heldout.stream("heldout")
                counts = np.zeros(heldout.index["vocab"], dtype=np.int64)
                for start in range(0, len(train), COUNTED):
                    part = train.read(start, min(COUNTED, len(train) - start))
                    counts += np.bincount(part, minlength=len(counts))
                ids = held.read(0, len(held))
                return {
                    "unigram": unigram_bits_per_byte(counts, ids[ids != heldout.end], size),
                    "xz": xz_bits_per_byte(texts),
                    "xz_given_train": xz_bits_per_byte_given(self._training_texts(heldout), texts),
                }

        return self._run.cached(f"baselines/{release.heldout}", {"tokens": heldout.index["sha256"]}, build)

    def _training_texts(self, tokens: Shards) -> list[str]:
        """The training texts, or as many of the first as xz can look back on, from their tokens.

        The texts themselves may lie on another machine by now.
        """
        stream, side = tokens.stream("train"), tokens.index["sides"]["train"]
        ids = stream.read(0, min(len(stream), XZ_WINDOW * side["tokens"] // max(1, side["bytes"])))
        documents = np.split(ids, np.flatnonzero(ids == tokens.end))[1:]
        tokenizer = load_tokenizer(self._run.path / "tokenizer")
        return tokenizer.decode_batch([document[1:].tolist() for document in documents], skip_special_tokens=False)

    def _samples(self, published: LoadedModel, heldout: Shards, chats: PackedChats | None) -> list[dict[str, str]]:
        """Generate with the release's own settings: answers to held-out questions, or ends of held-out texts."""
        if chats is not None:
            shown = list(islice(_openings(chats), SAMPLES))
            texts = [render([{"role": "user", "content": question}], generation_prompt=True) for question in shown]
        else:
            heldout_texts = filter(None, (text for _, text in heldout.heldout_texts()))
            shown = texts = [_beginning(text) for text in islice(heldout_texts, SAMPLES)]
        # A tokenizer may put a token before a text; conversations begin as they were trained, with a message.
        encoder = Encoder(published.tokenizer, where="the held-out texts")
        prompts = [ids.tolist() for ids in encoder.stream(texts, add_special_tokens=chats is None)]
        texts = write_texts(
            published.model,
            published.tokenizer,
            prompts,
            published.generation.sampling,
            stop_token_ids=published.stop_ids,
            max_new_tokens=SAMPLE_TOKENS,
            context=published.context,
        )
        return [{"prompt": prompt, "text": text} for prompt, text in zip(shown, texts, strict=True)]


def _beginning(text: str) -> str:
    """The beginning of a text that a sample goes on from, to the end of a word where it has words."""
    if len(text) <= SAMPLE_PROMPT:
        return text
    words = re.match(r".*\S(?=\s)", text[: SAMPLE_PROMPT + 1], flags=re.S)
    return words[0] if words and len(words[0]) > SAMPLE_PROMPT / 2 else text[:SAMPLE_PROMPT]


def _first(texts: Iterable[str], size: int) -> Iterator[str]:
    """Texts from the first on, until so many UTF-8 bytes are reached: xz has to see the training text beside them."""
    for text in texts:
        yield text
        size -= len(text.encode())
        if size <= 0:
            return


def _openings(chats: PackedChats) -> Iterator[str]:
    """The first answered question of each held-out conversation, or how one without any begins."""
    for _, messages in chats.heldout_conversations():
        yield next((question for question, _ in _answered(messages)), messages[0].content)


def _pairs(chats: PackedChats) -> Iterator[tuple[str, str]]:
    """First question and answer of each held-out conversation."""
    for _, messages in chats.heldout_conversations():
        yield from islice(_answered(messages), 1)


def _answered(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Questions and answers; an answer of weight 0 is none to compare with."""
    for question, answer in pairwise(messages):
        if (question.role, answer.role) == ("user", "assistant") and answer.weight:
            yield question.content, answer.content
