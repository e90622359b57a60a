"""A recipe: raw text to published models as one value, and how recipes and machines are found by name or file."""

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import torch

from lilliput.base.code_files import code_at
from lilliput.base.errors import RecipeError, reading
from lilliput.base.files import read_json, verify_checksum
from lilliput.base.own_code import Loaded, type_in_use, using
from lilliput.base.ownership import check_name
from lilliput.base.protocols import check_parts
from lilliput.base.run_code import code_for, waiting
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import LATER, from_plain, is_lilliputs, types_in
from lilliput.computations.computation import Computation, check_needs
from lilliput.data.conversations import ChatCorpus
from lilliput.data.corpora.concatenated import is_own
from lilliput.data.corpus_format import FormattedCorpus
from lilliput.data.documents import Corpus
from lilliput.data.formats import format_of
from lilliput.data.pairs import PairCorpus
from lilliput.data.split import Split
from lilliput.entry import TimelineEntry
from lilliput.evals.suites import named
from lilliput.growth.growth import Growth
from lilliput.model import ModelSpec
from lilliput.nn.block import Block
from lilliput.nn.init import check_fillable
from lilliput.nn.per_layer import mixer_at
from lilliput.publish.card.notes import CardNotes
from lilliput.publish.export import DTYPES, Dtype, Generation
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.publish.pretrained import PretrainedModel, PretrainedTokenizer
from lilliput.publish.release_formats import ONLY_HF, check_formats
from lilliput.tokenizer.bpe import BPE
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase
from lilliput.train.resuming import check_handed_on, check_resuming

T = TypeVar("T")


Samples = Literal["public", "all", "none"]


@dataclass(frozen=True, kw_only=True)
class Release(TimelineEntry):
    """A model is published here: exported, checked against the native one, evaluated, described by a card."""

    kind: ClassVar[str] = "release"

    name: str
    layout: HFFormat
    suite: str
    """Name of the evaluation suite, see `lilliput.evals.suites`."""
    heldout: str
    """The corpus whose held-out side gives bits per byte."""
    chat: str | None = None
    """The chat corpus whose held-out side judges replies; None for a base model."""
    dtype: Dtype = "BF16"
    generation: Generation = Generation()
    samples: Samples = "public"
    """Samples on the card, continuations of held-out texts: `all`, `none`, or where
    these are `public`, that is no files of one's own."""
    formats: tuple[str, ...] = field(default=ONLY_HF, metadata=LATER)
    """`hf` always, `gguf` for files that llama.cpp and Ollama run, and `int8` for 8-bit weights of Lilliput's own."""

    def __post_init__(self) -> None:
        check_name("release", self.name, "Release(name=...)")
        check_parts(self)
        for field_name, value, known in (("dtype", self.dtype, DTYPES), ("samples", self.samples, get_args(Samples))):
            if value not in known:
                raise unknown(field_name, value, list(known), f"Release {self.name!r}")
        check_formats(self.formats, self.layout, f"Release {self.name!r}")

    def reads(self) -> tuple[str, ...]:
        """The corpora that judge it."""
        return (self.heldout, self.chat) if self.chat else (self.heldout,)

    def shape(self, spec: ModelSpec) -> ModelSpec:
        """The same shape, if the layout has it.

        Raises:
            ExportError: it has not.
            RecipeError: there is no suite of the name.
        """
        self.layout.check_supported(spec)
        named(self.suite)
        return spec

    def describe(self) -> str:
        """Name and kind."""
        return f"{self.name}, a release"


Entry = Phase | Growth | Computation | Release | TimelineEntry


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run's weights, but the machine."""

    name: str
    about: str
    """One sentence for the card."""
    corpora: Mapping[str, Corpus | ChatCorpus | PairCorpus | FormattedCorpus]
    tokenizer: BPE | PretrainedTokenizer
    tokenizer_corpora: tuple[str, ...] = ()
    """Names of the corpora whose training side the tokenizer is learned from; none where it is kept."""
    split: Split
    model: ModelSpec | PretrainedModel
    timeline: tuple[Entry, ...]
    seed: int = 0
    languages: tuple[str, ...] = ()
    """Languages of the texts, as ISO 639-1 codes, for the card; detected if empty."""
    license: str | None = None
    """License of the released weights, by its hub name, e.g. `apache-2.0`; None: the card says that none is named."""
    card_claims: Mapping[str, str] = field(default_factory=dict)
    """Statements of a published card that can have no effect here; shown in ours, never armed."""
    decontaminate: bool = field(default=True, metadata=LATER)
    """Drop documents, conversations and pairs that give away an item of an evaluation set, as far as the sets of its
    releases are at hand (`--eval-data`); with False they stay as they are, replies of teachers too."""
    notes: CardNotes = field(default=CardNotes(), metadata=LATER)
    """Notes for the cards: uses, citation, references."""

    def __post_init__(self) -> None:
        check_name("recipe", self.name, "Recipe(name=...)")
        for name, corpus in self.corpora.items():
            check_name("corpus", name, f"recipe {self.name!r}")
            format_of(corpus, where=f"the corpus {name!r} of recipe {self.name!r}")
        check_parts(self)
        _refuse_same(self)
        for name in sorted(self._used_corpora() - set(self.corpora)):
            raise unknown("corpus", name, list(self.corpora), f"recipe {self.name!r}")
        if isinstance(self.tokenizer, PretrainedTokenizer) == bool(self.tokenizer_corpora):
            raise RecipeError(
                f"{type(self.tokenizer).__name__} and tokenizer_corpora={self.tokenizer_corpora} do not go together",
                where=f"recipe {self.name!r}",
                hint='BPE is learned from tokenizer_corpora=("...",), PretrainedTokenizer from none',
            )
        # What can be refused is refused now, and not after a week of training.
        spec = self.model.shape
        _check_layers(spec)
        if self.tokenizer.vocab > spec.vocab and not self._is_filled:
            raise RecipeError(
                f"the tokenizer has {self.tokenizer.vocab:,} tokens, the model {spec.vocab:,}",
                where=f"recipe {self.name!r}",
                hint="give BPE(vocab=) and ModelSpec(vocab=) the same number, From and Kept the same checkpoint",
            )
        for entry in self.timeline:
            spec = entry.shape(spec)
        for index, entry in enumerate(self.timeline):
            if part := entry.part(index):
                check_name(entry.kind, part.partition("/")[2], f"timeline.{index} of recipe {self.name!r}")
        check_needs(self.timeline, f"recipe {self.name!r}")
        for index, phase in self.phases.items():
            if phase.resumes is not None:
                before = self.phase_before(index)
                check_resuming(phase, before and before[1], f"recipe {self.name!r}")
        for index, entry in enumerate(self.timeline):
            if entry.keeps_optimizer:
                before = self.phase_before(index)
                after = next((one for one in self.timeline[index + 1 :] if not isinstance(one, Release)), None)
                check_handed_on(entry, before and before[1], after, f"timeline.{index} of recipe {self.name!r}")

    @property
    def phases(self) -> dict[int, Phase]:
        """The phases by their index in the timeline."""
        return {index: entry for index, entry in enumerate(self.timeline) if isinstance(entry, Phase)}

    @property
    def releases(self) -> dict[int, Release]:
        """The releases by their index in the timeline."""
        return {index: entry for index, entry in enumerate(self.timeline) if isinstance(entry, Release)}

    def without_releases(self) -> "Recipe":
        """The same without what it publishes."""
        return replace(self, timeline=tuple(entry for entry in self.timeline if not isinstance(entry, Release)))

    @property
    def _is_filled(self) -> bool:
        """Return whether the model's vocabulary is as large as the text lets the tokenizer's be."""
        tokenizer, model = self.tokenizer, self.model
        return (
            isinstance(tokenizer, BPE)
            and tokenizer.at_most
            and isinstance(model, ModelSpec)
            and model.vocab <= tokenizer.vocab
        )

    def filled(self, ids: int | None) -> "Recipe":
        """The recipe whose tokenizer turned out to have so many ids: with `BPE(at_most=True)` its model has as many.

        Args:
            ids: of the tokenizer; None while there is none, and then the recipe stays as it is.
        """
        return replace(self, model=replace(self.model, vocab=ids)) if ids and self._is_filled else self

    def phase_before(self, index: int) -> tuple[int, Phase] | None:
        """The phase before an entry with nothing but releases between them, and its index; None where none is."""
        left = [before for before in range(index) if before not in self.releases]
        return (left[-1], self.phases[left[-1]]) if left and left[-1] in self.phases else None

    def resumed_by(self, index: int) -> int | None:
        """The index of the phase that resumes the one at an index; None where none does."""
        for after, phase in self.phases.items():
            if phase.resumes is not None and after > index:
                before = self.phase_before(after)
                if before is not None and before[0] == index:
                    return after
        return None

    def until(self, phase: str) -> "Recipe":
        """The recipe as far as the end of a phase: without what comes later, and the corpora that only this reads.

        Raises:
            RecipeError: there is no phase of that name.
        """
        indices = {phase.name: index for index, phase in self.phases.items()}
        if phase not in indices:
            raise unknown("phase", phase, list(indices), f"recipe {self.name!r}")
        return self.up_to(indices[phase])

    def up_to(self, index: int) -> "Recipe":
        """The same as far as the entry at an index, this one too."""
        part = replace(self, timeline=self.timeline[: index + 1])
        used = part._used_corpora()
        return replace(part, corpora={name: corpus for name, corpus in self.corpora.items() if name in used})

    def prints_samples(self, release: Release) -> bool:
        """Return whether the card of a release prints samples."""
        judged = self.corpora[release.chat or release.heldout]
        return release.samples == "all" or (release.samples == "public" and not is_own(judged))

    def _used_corpora(self) -> set[str]:
        return {*self.tokenizer_corpora, *(name for entry in self.timeline for name in entry.reads())}


def _check_layers(spec: ModelSpec) -> None:
    """Refuse parts that do not build what a layer needs; one layer of each kind is built, without storage."""
    kinds = {mixer_at(spec.mixer, layer): layer for layer in range(spec.layers)}
    for layer in kinds.values():
        with torch.device("meta"):
            block = Block(spec.width, layer, spec.mixer, spec.ffn, spec.norm, spec.gate)
        check_fillable(block)


def _refuse_same(recipe: Recipe) -> None:
    """Refuse names that would be one folder, on disks that take upper and lower case for the same too."""
    releases = [release.name for release in recipe.releases.values()]
    for kind, names_of in (("corpora", list(recipe.corpora)), ("releases", releases)):
        folded = [name.casefold() for name in names_of]
        for name in names_of:
            if folded.count(name.casefold()) > 1:
                raise RecipeError(
                    f"two {kind} are named {name!r}",
                    where=f"recipe {recipe.name!r}",
                    hint="give each its own name, different not only in case: it becomes a folder",
                )


def load_recipe(name: str) -> Recipe:
    """A recipe of the package by name (`quickstart`), or of a Python file that defines `recipe`."""
    return recipe_and_code(name)[0]


def recipe_and_code(name: str) -> tuple[Recipe, Loaded | None]:
    """The same with the Python files that it was read from; None for a recipe of the package."""
    return _load("recipe", name, "lilliput.recipes", Recipe)


def vocabulary_of(run: RunFolder) -> int | None:
    """Return how many ids the tokenizer of a run has; None if it has none yet.

    Raises:
        RunError: the record of it is damaged.
    """
    with reading(run.path, "put the record of the tokenizer back from a copy, or remove it"):
        outputs = run.record("tokenizer").get("outputs")
        if outputs is not None and type(outputs["vocab"]) is not int:
            raise TypeError("`vocab` is not a whole number")
        return outputs and outputs["vocab"]


def read_recipe(run: Path) -> Recipe:
    """The recipe of a run, from its `recipe.json`; parts of its own are of the code in use, else of that of the run.

    Raises:
        RunError: the file, or one of the code, is missing or damaged.
        UntrustedCodeError: the code of the run is not allowed to run.
        RecipeError: it holds no recipe, or one of unknown types.
    """
    path = run / "recipe.json"
    hint = "give the recipe by name, with --out for this folder; it is written again"
    with using(code_for(run, foreign_types(run))), reading(path, hint, "the file is damaged"):
        recipe = from_plain(plain_recipe(run), where=str(path))
    if not isinstance(recipe, Recipe):
        raise RecipeError("the file holds no recipe", where=str(path), hint=hint)
    return recipe


def allow_code(run: Path) -> None:
    """Let the code that the recipe of a run needs run in this process.

    Raises:
        LilliputError: it is damaged, or fails.
    """
    if code := waiting(run, foreign_types(run)):
        Loaded(code)


def plain_recipe(run: Path) -> Any:
    """Return what the `recipe.json` of a run holds, as JSON values."""
    path = run / "recipe.json"
    with reading(
        path, "give the recipe by name, with --out for this folder; it is written again", "the file is damaged"
    ):
        return verify_checksum(read_json(path))


def foreign_types(run: Path) -> set[str]:
    """Names of the types in the recipe of a run that neither Lilliput nor code in use defines."""
    with reading(run / "recipe.json", "put it back from a copy", "the file is damaged"):
        found = {name for name in types_in(plain_recipe(run)) if not is_lilliputs(name)}
    return {name for name in found if type_in_use(name) is None}


def load_machine(name: str) -> Machine:
    """A machine of the package by name (`cpu`), or of a Python file that defines `machine`."""
    return _load("machine", name, "lilliput.machines", Machine)[0]


def source_of(name: str) -> Path:
    """The Python file of a recipe, by the name that `load_recipe` takes.

    Raises:
        RecipeError: there is none.
    """
    load_recipe(name)
    if name.endswith(".py"):
        return Path(name)
    return Path(importlib.import_module("lilliput.recipes").__path__[0]) / f"{name.replace('-', '_')}.py"


def names(package: str) -> list[str]:
    """Return what a package of recipes or machines offers, by the names users type."""
    folder = Path(importlib.import_module(package).__path__[0])
    return sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if path.stem != "__init__")


def _load(kind: str, name: str, package: str, wanted: type[T]) -> tuple[T, Loaded | None]:
    known, code = names(package), None
    if name.endswith(".py"):
        code = Loaded(code_at(Path(name)))
        module = code.main
    elif name in known:
        module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
    else:
        raise _unknown_file(kind, name, known)
    value = getattr(module, kind, None)
    if not isinstance(value, wanted):
        raise RecipeError(
            f"no {wanted.__name__} named `{kind}` is defined", where=name, hint=f"end the file with {kind} = ..."
        )
    return value, code


def unknown(kind: str, name: str, known: list[str], where: str) -> RecipeError:
    """Make the error for an unknown name, with the nearest known ones.

    Args:
        kind: the kind of thing that is named.
        name: the unknown name.
        known: all known names.
        where: where the name was given.
    """
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"nearest names: {', '.join(near)}" if near else f"there are: {', '.join(sorted(known))}"
    return RecipeError(f"there is no {kind} {name!r}", where=where, hint=hint)


def _unknown_file(kind: str, name: str, known: list[str]) -> RecipeError:
    """Make the error for a recipe or a machine that is neither a file nor in the package."""
    if kind == "machine":
        return unknown(kind, name, known, "the machine argument")
    near = difflib.get_close_matches(name, known, n=3)
    return RecipeError(
        f"there is no recipe {name!r}, and no folder of that name",
        where="the recipe argument",
        hint=f"nearest names: {', '.join(near)}" if near else "`lilliput recipe list` and `lilliput runs` list both",
    )
