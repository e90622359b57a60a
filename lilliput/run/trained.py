"""A run's last trained weights as a model, without a release: `lilliput.load_trained("mine.py", "runs/mine")`.

A release is exported, and no layout has a mixer of one's own. All else that is asked of a model, writing, scoring and
evaluating, needs its weights alone.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lilliput.api import Model
from lilliput.base.errors import RunError, reading
from lilliput.base.limits import limit, raising
from lilliput.base.own_code import code_of, using
from lilliput.base.run_folder import RunFolder
from lilliput.base.safetensors_headers import open_safetensors
from lilliput.base.spec import to_plain
from lilliput.computations.computation import COMPUTATION
from lilliput.data.formats import format_of
from lilliput.growth.growth import GROWTH, Computed, Growth, Lineage
from lilliput.model import LanguageModel, ModelSpec, copy_weights
from lilliput.publish.export import Generation
from lilliput.publish.lineage import phase_seed
from lilliput.publish.loaded_model import LoadedModel, check_ids
from lilliput.recipe import Recipe, Release, read_recipe, recipe_and_code
from lilliput.run.compute import check_intact
from lilliput.run.reproducibility import check_code_unchanged
from lilliput.run.steps import entry_code
from lilliput.run.trained_phase import TrainedPhase
from lilliput.tokenizer.bpe import load_tokenizer
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, has_chatml
from lilliput.tokenizer.specials import id_of, vocabulary_size
from lilliput.train.machine import inference_device
from lilliput.train.phase import Phase, phase_folder

MOST = 256
"""New tokens at most, where no release says how many; half of a row where that is less."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Trained state of a run."""

    folder: Path
    published: LoadedModel
    """Everything that the model needs to write."""
    phase: Phase
    """The last one that is trained."""
    left: tuple[str, ...]
    """Names of phases that are not."""
    heldout: Path | None
    """Held-out text, JSON lines: of the corpus that a release is judged by, else of the first that has some."""


@dataclass(frozen=True, kw_only=True)
class _Reached:
    """The last trained phase of a timeline, and what a release after it would have."""

    index: int
    phase: Phase
    spec: ModelSpec
    """Spec of the phase's model."""
    tokenizer: Tokenizer
    """That it was trained with."""
    growths: tuple[tuple[int, Growth], ...] = ()
    """After the phase, with their indices in the timeline."""
    release: Release | None = None
    """The last one until there."""


def load_trained(
    recipe: str | PathLike[str] | Recipe,
    folder: str | PathLike[str],
    *,
    device: str = "auto",
    dtype: str = "fp32",
    compile: bool = False,
    state_dtype: str | None = None,
) -> Model:
    """Open what a run has trained so far; it is that of the run's own `recipe.json`.

    Args:
        recipe: the recipe, or the Python file or the name that the run comes from: nobody else knows the types that a
            file defines.
        folder: of the run.
        device: `cpu`, `cuda`, `mps`, or `auto` for the best one there is.
        dtype, compile, state_dtype: as of `lilliput.load`.

    Raises:
        RunError: nothing is trained yet, or what is there is damaged or was trained from something else.
        RecipeError: the run's recipe has types that neither Lilliput nor `recipe` has.
        MachineError: the device is not there.
    """
    if isinstance(recipe, Recipe):
        to_plain(recipe)  # its types are known from now on
        code = code_of(recipe)
    else:
        if str(folder).endswith(".py") or (not str(recipe).endswith(".py") and Path(recipe).is_dir()):
            raise RunError(
                f"the arguments are swapped: {str(recipe)!r} is given as the recipe, {str(folder)!r} as the folder",
                where="load_trained(recipe, folder)",
                hint=f"write load_trained({str(folder)!r}, {str(recipe)!r})",
            )
        code = [recipe_and_code(str(recipe))[1]]
    with using(*code):
        published = read_trained(Path(folder)).published
    device = inference_device(device)
    return Model(published, Path(folder), device, dtype, compile=compile, state_dtype=state_dtype)


def read_trained(folder: Path) -> Trained:
    """The model of a run after its last trained phase, with the growths that a release there would have.

    Raises:
        RunError: nothing is trained yet, or what is there is damaged or was trained from something else.
        RecipeError: the run's recipe has types that this process does not know.
    """
    recipe, run = read_recipe(folder), RunFolder(folder)
    with reading(folder, "put the run back from a copy, or train it again", "what is trained cannot be read"):
        first = load_tokenizer(folder / "tokenizer") if (folder / "tokenizer").is_dir() else None
        reached = first and _reached(recipe.filled(vocabulary_size(first)), run, first)
        if reached is None:
            raise RunError("nothing is trained yet", where=str(folder), hint=f"train it: lilliput train {folder}")
        lineage = _lineage(recipe, run, reached)
        phases = list(recipe.phases.values())
        return Trained(
            folder=folder,
            published=_published(recipe, reached, lineage, str(folder)),
            phase=reached.phase,
            left=tuple(phase.name for phase in phases[phases.index(reached.phase) + 1 :]),
            heldout=_heldout(recipe, reached.phase, folder),
        )


def _heldout(recipe: Recipe, phase: Phase, folder: Path) -> Path | None:
    judged = [release.heldout for release in recipe.releases.values()]
    found = {name: format_of(corpus).heldout_texts for name, corpus in recipe.corpora.items()}
    texts = {name: file for name, file in found.items() if file}
    names = [*judged, *phase.data.corpora, *texts]
    files = (folder / "shards" / name / texts[name] for name in names if name in texts)
    return next((file for file in files if file.is_file() and file.stat().st_size), None)


def _reached(recipe: Recipe, run: RunFolder, tokenizer: Tokenizer) -> _Reached | None:
    """Return how far the timeline is; growths before a phase that is not trained are part of that one, but for a
    release's.
    """
    spec, release, found = recipe.model.shape, None, None
    since: list[tuple[int, Growth]] = []
    kept = 0
    for index, entry in enumerate(recipe.timeline):
        if (phase := recipe.phases.get(index)) is not None:
            if not run.record(phase_folder(index, phase)).get("done"):
                break
            found = _Reached(index=index, phase=phase, spec=spec, tokenizer=tokenizer)
            since, kept = [], 0
        elif index in recipe.releases:
            release, kept = recipe.releases[index], len(since)
        elif entry.kind == GROWTH:
            growth: Any = entry
            since.append((index, growth))
        spec, tokenizer = entry.shape(spec), entry.retokenize(tokenizer)
    else:
        kept = len(since)
    if found is None:
        return None
    return _Reached(
        index=found.index,
        phase=found.phase,
        spec=found.spec,
        tokenizer=found.tokenizer,
        growths=tuple(since[:kept]),
        release=release,
    )


def _lineage(recipe: Recipe, run: RunFolder, reached: _Reached) -> Lineage:
    """The model and tokenizer after the last trained phase and its growths, in fp32 on the CPU."""
    part = phase_folder(reached.index, reached.phase)
    run.refuse_change(part, {"phase": to_plain(reached.phase), "seed": phase_seed(recipe.seed, reached.index)})
    check_code_unchanged(run, part, entry_code(recipe, reached.index))
    phases = {index: phase for index, phase in recipe.phases.items() if index <= reached.index}
    earlier = {phase.name: TrainedPhase(run, index, phase) for index, phase in phases.items()}
    last = TrainedPhase(run, reached.index, reached.phase)
    model = _read_weights(last.verified("weights"), reached.spec, recipe.seed)
    lineage = Lineage(
        model=model,
        tokenizer=reached.tokenizer,
        average=last.average(),
        earlier=earlier,
        computed=_computed(recipe, run, reached.index),
    )
    for index, growth in reached.growths:
        lineage = growth.grow(lineage, phase_seed(recipe.seed, index))
    return lineage


def _computed(recipe: Recipe, run: RunFolder, before: int) -> dict[str, Computed]:
    """Return what computations before a phase came to."""
    found: dict[str, Computed] = {}
    for entry, part in ((entry, entry.part(index)) for index, entry in enumerate(recipe.timeline[:before])):
        if entry.kind == COMPUTATION and part and (outputs := run.record(part).get("outputs")):
            check_intact(run.path / part, outputs)
            name = part.partition("-")[2]
            found[name] = Computed(value=outputs["value"], folder=run.path / part)
    return found


def _read_weights(file: Path, spec: ModelSpec, seed: int) -> LanguageModel:
    """A model of a shape with the weights of a file, which is compared with the shape before anything is built."""
    hint = "give the recipe file that the run was trained with"
    with open_safetensors(file, framework="pt") as stored:
        weights = {key: stored.get_slice(key) for key in stored.keys()}  # noqa: SIM118 (safe_open is no mapping)
        if spec.layers > min(len(weights), limit("model_layers")):  # before as many layers are built
            many = spec.layers > len(weights)
            what = f"the model has {spec.layers:,} layers, its file {len(weights):,} tensors"
            raise RunError(what, where=str(file), hint=hint if many else raising("model_layers"))
        shapes = {name: list(parameter.shape) for name, parameter in spec.skeleton().named_parameters()}
        stored_shapes = {key: weight.get_shape() for key, weight in weights.items()}
        keys = sorted(shapes.keys() | stored_shapes.keys())
        if differing := [key for key in keys if shapes.get(key) != stored_shapes.get(key)]:
            key = differing[0]
            raise RunError(
                f"the weights do not fit the model: {key} is {stored_shapes.get(key)}, not {shapes.get(key)}",
                where=str(file),
                hint=hint,
            )
        model = spec.build(seed)
        copy_weights(model, {key: stored.get_tensor(key) for key in stored_shapes})
    return model.eval()


def _published(recipe: Recipe, reached: _Reached, lineage: Lineage, where: str) -> LoadedModel:
    release, specials, tokenizer = reached.release, recipe.tokenizer.specials, lineage.tokenizer
    context = release.layout.context if release else reached.phase.length
    generation = release.generation if release else Generation(max_new_tokens=max(1, min(MOST, context // 2)))
    chat_template = CHAT_TEMPLATE if has_chatml(tokenizer) else None
    stops = generation.stop_ids(tokenizer, chat_template, specials.end)
    return LoadedModel(
        model=lineage.model.eval(),
        tokenizer=tokenizer,
        context=context,
        layout=None,
        generation=generation,
        chat_template=chat_template,
        stop_ids=check_ids(tokenizer, stops, lineage.model.spec.vocab, where=where),
        end_id=id_of(tokenizer, specials.end, where=where),
        special_tokens=specials.names() | {"eos_token": tokenizer.id_to_token(stops[0]) or specials.end},
    )
