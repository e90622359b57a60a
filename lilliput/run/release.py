"""Publishing one release of a run: export, parity, evaluation, card, in that order.

The weights appear under `releases/<name>/` only after exported and native logits were found equal. The card is the last
file, made from the run's records alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from lilliput.base.environment import environment
from lilliput.base.errors import RunError, reading
from lilliput.base.files import sha256, write_bytes
from lilliput.base.spec import to_plain
from lilliput.data.chat_rows import PackedChats
from lilliput.data.language import languages
from lilliput.data.permutation import Permutation
from lilliput.data.shards import Shards
from lilliput.evals.question_files import QuestionSource, check_questions
from lilliput.evals.suites import HELDOUT, named
from lilliput.growth.growth import Lineage
from lilliput.model import ModelSpec
from lilliput.publish.card.card import card
from lilliput.publish.card.edited import card_of, edited, write_card
from lilliput.publish.card.travelling import write_record
from lilliput.publish.export import CARD_FILE, WEIGHTS_FILE, export
from lilliput.publish.gguf.release import add_gguf, check_publishable
from lilliput.publish.gguf.write import About
from lilliput.publish.int8.release import add_int8
from lilliput.publish.load import verified
from lilliput.publish.parity import check_parity
from lilliput.publish.pretrained import PretrainedModel
from lilliput.recipe import Recipe, Release, vocabulary_of
from lilliput.run.command_record import Command, read_command
from lilliput.run.context import RunContext
from lilliput.run.evaluate_release import ReleaseEvaluator
from lilliput.run.license_check import check_license, terms
from lilliput.run.phase_record import phase_record
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, has_chatml
from lilliput.train.passes import passes, tokens_per_pass
from lilliput.train.phase import Phase, StepPlan, phase_folder

LOOKED_AT, BEGINNING = 300, 400
"""Training texts by which a card tells their languages, and tokens of each."""
PARITY_ROWS, PARITY_LENGTH = 2, 67
"""Size of the held-out sample; 67 is not a multiple of any chunk length."""


class Publisher:
    """Publishes the releases of one run."""

    def __init__(self, context: RunContext, questions: QuestionSource):
        """Check licenses and the suites' questions now, not after a week of training.

        Raises:
            DataError: a suite's questions are not where they are said to be.
            ExportError: a format needs a package that is not installed.
            RecipeError: the recipe's license allows what that of a corpus forbids.
        """
        self._run, self._recipe, self._console = context.run, context.recipe, context.console
        self._say, self._evaluator = context.say, ReleaseEvaluator(context, questions)
        for line in check_license(self._recipe):
            self._say(line)
        for release in self._recipe.releases.values():
            check_questions(named(release.suite), questions)
            if "gguf" in release.formats:
                check_publishable(release.layout)

    def publish(
        self,
        release: Release,
        lineage: Lineage,
        *,
        provenance: str,
        phases: Sequence[str],
        heldout: Shards,
        chats: PackedChats | None,
    ) -> Path:
        """Make the release whole: the folder, its scores, its card.

        Args:
            release: what to publish.
            lineage: the model and tokenizer as they are now.
            provenance: hash of everything that led to them.
            phases: folders of the phases so far, relative to the run.
            heldout: the corpus that gives bits per byte.
            chats: the conversations that judge replies.

        Raises:
            ExportError: exported and native logits differ; nothing is published then.
        """
        folder = self._run.path / "releases" / release.name
        exported = self._export(release, lineage, provenance, heldout)
        evaluation = self._evaluator.scores(release, exported["sha256"], heldout, chats)
        evaluation |= {"baselines": self._evaluator.baselines(release, heldout), "weights": exported["sha256"]}
        record = [phase_record(self._run, name, self._left_at(name, phases)) for name in phases]
        evaluation["scores"] = [_with_earlier(score, record, release.heldout) for score in evaluation["scores"]]
        self._run.write(f"evals/{release.name}.json", evaluation)
        if phases:
            write_bytes(folder / "loss.png", (self._run.path / phases[-1] / "loss.png").read_bytes())
        hint = f"evaluate it again: lilliput clean {self._run.path} --from evals/{release.name} --yes"
        with reading(self._run.path, hint, "the card cannot be made of what is recorded"):
            known = self._record(release, exported, evaluation, record, phases, heldout, lineage)
            text = card(known)
        write_record(folder, known)
        if not write_card(self._run.path, release.name, text):
            fresh = card_of(self._run.path, release.name)
            self._say(f"{release.name}: README.md was edited and stays as it is; the card as of now is {fresh}")
        self._say(f"{release.name}: {_quoting(self._recipe, release)}")
        return folder

    def _export(self, release: Release, lineage: Lineage, provenance: str, heldout: Shards) -> dict[str, Any]:
        name = f"releases/{release.name}"
        self._run.restore_previous(name)
        theirs = edited(self._run.path, release.name)

        def build(folder: Path) -> dict[str, Any]:
            with self._console.status(f"{release.name}: exporting"), self._run.replacing(name) as partial:
                export(
                    lineage.model,
                    lineage.tokenizer,
                    partial,
                    layout=release.layout,
                    dtype=release.dtype,
                    generation=release.generation,
                    chat_template=CHAT_TEMPLATE if has_chatml(lineage.tokenizer) else None,
                    specials=self._recipe.tokenizer.specials,
                )
                text = heldout.stream("heldout").read(0, PARITY_ROWS * PARITY_LENGTH)
                rows = torch.from_numpy(text).view(PARITY_ROWS, PARITY_LENGTH)
                report = check_parity(partial, lineage.model, tokens=rows)
                files = self._gguf(release, partial, rows, heldout, lineage) if "gguf" in release.formats else []
                int8 = [add_int8(partial, tokens=rows)] if "int8" in release.formats else []
                if theirs is not None:
                    write_bytes(partial / CARD_FILE, theirs)
            return {
                "sha256": sha256(folder / WEIGHTS_FILE),
                "bytes": (folder / WEIGHTS_FILE).stat().st_size,
                "parameters": lineage.model.parameter_counts(),
                "parity": {"tolerance": report.tolerance} | asdict(report.worst),
                "environment": environment(),
                **({"gguf": files} if files else {}),
                **({"int8": int8} if int8 else {}),
            }

        outputs = self._run.cached(name, {"lineage": provenance, "release": to_plain(release)}, build, _is_intact)
        self._say(
            f"{release.name}: {outputs['parameters']['total']:,} parameters, {outputs['bytes']:,} bytes, sha256 "
            f"{outputs['sha256'][:12]}, logits differ by {outputs['parity']['relative']:.1e} of the largest"
        )
        return outputs

    def _record(
        self,
        release: Release,
        exported: dict[str, Any],
        evaluation: dict[str, Any],
        record: list[dict[str, Any]],
        phases: Sequence[str],
        heldout: Shards,
        lineage: Lineage,
    ) -> dict[str, Any]:
        """Everything the card may say, and nothing that is not in the run folder."""
        parts = {name: self._run.read(f"parts/shards.{name}.json") for name in self._recipe.corpora}
        run, command = self._run.read("run.json"), read_command(self._run, self._recipe)
        recipe = self._recipe.filled(vocabulary_of(self._run))
        assert run is not None
        return {
            "release": to_plain(release) | {name: value for name, value in exported.items() if name != "environment"},
            "recipe": to_plain(recipe),
            # A checkpoint may be elsewhere when the card is made again, so that its shape is recorded.
            **({} if isinstance(recipe.model, ModelSpec) else {"shape": to_plain(recipe.model.shape)}),
            "command": command and to_plain(command),
            **({} if (budget := _budget(command, release)) is None else {"budget": budget}),
            "machine": run["machine"],
            "made_with": run.get("made_with"),
            "changes": [change for change in run.get("changes", []) if change["phase"] in phases],
            "environment": exported["environment"],
            "corpora": {name: part["outputs"] for name, part in parts.items() if part},
            "passes": self._passes(record, phases),
            "terms": terms(self._recipe, self._read(phases)),
            "phases": record,
            "earlier": self._earlier(release, record),
            "evaluation": evaluation if self._recipe.prints_samples(release) else evaluation | {"samples": []},
            "languages": self._languages(heldout, lineage),
        }

    def _gguf(
        self, release: Release, folder: Path, rows: torch.Tensor, heldout: Shards, lineage: Lineage
    ) -> list[dict[str, Any]]:
        """Write the GGUF files of an exported release; what they say is what the card says."""
        start = self._recipe.model
        about = About(
            name=release.name,
            description=self._recipe.about,
            license=self._recipe.license,
            languages=tuple(self._languages(heldout, lineage)),
            base_model=start.hub_name if isinstance(start, PretrainedModel) else None,
        )
        return add_gguf(folder, about, release.generation, tokens=rows)

    def _languages(self, heldout: Shards, lineage: Lineage) -> list[str]:
        return list(self._recipe.languages) or languages(_beginnings(heldout, lineage.tokenizer))

    def _read(self, phases: Sequence[str]) -> list[Phase]:
        """The phases in these folders."""
        by_folder = {phase_folder(index, phase): phase for index, phase in self._recipe.phases.items()}
        return [by_folder[name] for name in phases]

    def _passes(self, record: list[dict[str, Any]], phases: Sequence[str]) -> dict[str, float]:
        """Passes over each corpus, by the tokens that the model has read of the phases."""
        corpora = self._recipe.corpora
        sizes = {name: tokens_per_pass(corpus, self._run.record(f"shards/{name}")) for name, corpus in corpora.items()}
        tokens = [phase.get("resumed_at", phase)["tokens"] for phase in record]
        return passes(zip(self._read(phases), tokens, strict=True), sizes)

    def _earlier(self, release: Release, phases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Releases before this one: name, scores, and the tokens of the phases that led to each."""
        found, trained = [], 0
        for entry in self._recipe.timeline[: self._recipe.timeline.index(release)]:
            if isinstance(entry, Phase):
                trained += 1
            elif isinstance(entry, Release) and (evaluation := self._run.read(f"evals/{entry.name}.json")):
                tokens = sum(phase["tokens"] for phase in phases[:trained])
                scores = {key: evaluation[key] for key in ("scores", "averages")}
                found.append({"name": entry.name, "tokens": tokens, "evaluation": scores})
        return found

    def _left_at(self, name: str, phases: Sequence[str]) -> int | None:
        """The step of a phase at which one of the phases goes on; None where none does."""
        for index, phase in self._recipe.phases.items():
            if phase_folder(index, phase) == name:
                later = self._recipe.resumed_by(index)
                if later is not None and phase_folder(later, self._recipe.phases[later]) in phases:
                    return StepPlan(phase).resumable
        return None


def _budget(command: Command | None, release: Release) -> dict[str, int] | None:
    """Tokens and parameters at a release of the recipe that a command names, without its options; None if unknown."""
    whole = command and command.unchanged()
    end = whole and next((index for index, one in whole.releases.items() if one.name == release.name), None)
    if whole is None or end is None:
        return None
    spec = whole.model.shape
    for entry in whole.timeline[:end]:
        spec = entry.shape(spec)
    tokens = sum(int(phase.tokens) for index, phase in whole.phases.items() if index < end)
    return {"tokens": tokens, "parameters": spec.skeleton().parameter_counts()["total"]}


def _with_earlier(score: dict[str, Any], phases: list[dict[str, Any]], corpus: str) -> dict[str, Any]:
    """A score; where it is of held-out text that the last phases did not measure, with what it was before them."""
    measured = [index for index, phase in enumerate(phases) if corpus in phase["heldout"]]
    if score["task"] != HELDOUT.display or not measured or measured[-1] == len(phases) - 1:
        return score
    before, after = phases[measured[-1]], phases[measured[-1] + 1]
    earlier = f"{before['heldout'][corpus]:.4f} before {after['name']}, which was trained on other data"
    return score | {"note": "; ".join(filter(None, (score["note"], earlier)))}


def _beginnings(tokens: Shards, tokenizer: Tokenizer) -> Iterator[str]:
    """The beginnings of texts from all over the training side, which may be on another machine by now."""
    stream = tokens.stream("train")
    count = min(LOOKED_AT, stream.piece_count)
    for begin, size in zip(*stream.pieces(Permutation(stream.piece_count, "languages")(np.arange(count))), strict=True):
        ids = stream.read(int(begin), min(int(size), BEGINNING))
        yield tokenizer.decode(ids[ids != tokens.end].tolist(), skip_special_tokens=False)


def _quoting(recipe: Recipe, release: Release) -> str:
    """Return what of its texts a card quotes, said before anybody uploads it."""
    corpus = release.chat or release.heldout
    if recipe.prints_samples(release):
        return f"the card prints samples, which begin with held-out texts of {corpus!r}"
    asks = f"--set timeline.{release.name}.samples=all"
    return f"the card prints no text of {corpus!r} and nothing that the model wrote, unless {asks} asks for it"


def _is_intact(folder: Path, outputs: dict[str, Any]) -> bool:
    """Return whether every released file is what was written; if not, they are exported again."""
    try:
        return verified(folder)["files"][WEIGHTS_FILE] == outputs["sha256"]
    except RunError:
        return False
