"""LiNeS and means of weights: what stays at the ends of their ranges, what each layer keeps, and what is refused."""

from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from rich.console import Console
from tiny_releases import tokenizer

from lilliput.base.errors import RecipeError
from lilliput.base.files import read_json
from lilliput.base.units import Share
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.average_weights import AverageKept, AverageWeights, mean_of
from lilliput.growth.growth import Lineage
from lilliput.growth.lines import LiNeS, kept_share
from lilliput.growth.use_ema import UseEma
from lilliput.publish.load import load
from lilliput.recipe import Release
from lilliput.run import pipeline
from lilliput.tokenizer.chatml import CHATML
from lilliput.train.machine import Machine

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
DEEP = replace(tiny.ODIN_SPEC, layers=4, mixer=tiny.OPTIONS_SPEC.mixer)


class Earlier:
    """A phase that ended with the weights of a model."""

    def __init__(self, model, kept=()):
        self._model, self._kept = model, dict(enumerate(kept, 1))

    @property
    def kept_steps(self):
        return tuple(self._kept)

    def weights(self):
        return {name: one.detach().clone() for name, one in self._model.named_parameters()}

    def average(self):
        return {}

    def kept(self, step):
        return {"weights": dict(self._kept[step].named_parameters())}


def tuned_from(spec, **changes):
    """A model before and after tuning, with chat tokens and padding, and the lineage of the latter."""
    first = tokenizer()
    spec = replace(spec, vocab=first.get_vocab_size() + 3, **changes)
    before = spec.build(seed=1)
    lineage = AddTokens(tokens=CHATML).grow(Lineage(model=before, tokenizer=first, average={}), seed=0)
    grown = {name: one.detach().clone() for name, one in lineage.model.named_parameters()}
    with torch.no_grad():
        for number, parameter in enumerate(lineage.model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return before, grown, replace(lineage, earlier={"pretrain": Earlier(before)})


def weights(model):
    return {name: one.detach().clone() for name, one in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["deep", "gqa"])
def test_all_of_it_is_the_tuned_model_and_nothing_the_pretrained_one(name, tied):
    spec = DEEP if name == "deep" else tiny.GQA_SPEC
    before, grown, lineage = tuned_from(spec, tie_embeddings=tied)
    tuned = weights(lineage.model)
    found = weights(LiNeS(phase="pretrain", alpha=1, beta=0).grow(lineage, 0).model)
    assert all(torch.equal(found[name], tuned[name]) for name in tuned)
    found = weights(LiNeS(phase="pretrain", alpha=0, beta=0).grow(lineage, 0).model)
    known = tokenizer().get_vocab_size()
    for name, value in found.items():
        rows = [*range(known), *range(known + 2, len(value))] if name in ("embedding.weight", "output.weight") else ...
        assert torch.equal(value[rows], grown[name][rows]), name
    added = slice(known, known + 2)
    assert torch.equal(found["embedding.weight"][added], tuned["embedding.weight"][added])
    assert len(before.embedding.weight) + 2 == len(found["embedding.weight"])


def test_what_a_layer_keeps_is_linear_in_its_number():
    _, grown, lineage = tuned_from(DEEP, tie_embeddings=False)
    tuned = weights(lineage.model)
    found = weights(LiNeS(phase="pretrain", alpha=0.25, beta=0.75).grow(lineage, 0).model)

    def share(name, rows=slice(0, 100)):
        change, kept = (torch.atleast_1d(one[name] - grown[name])[rows] for one in (tuned, found))
        return float((kept * change).sum() / (change * change).sum())

    for layer in range(4):
        for name in (one for one in found if one.startswith(f"layers.{layer}.")):
            assert share(name) == pytest.approx(0.25 + 0.75 * layer / 3, abs=1e-5), name
        bounds = next(one for one in found if one.startswith("shared."))
        assert share(bounds, slice(layer, layer + 1)) == pytest.approx(0.25 + 0.75 * layer / 3, abs=1e-5)
    assert share("embedding.weight") == pytest.approx(0.25, abs=1e-5)
    assert share("norm.weight") == pytest.approx(1, abs=1e-5) and share("output.weight") == pytest.approx(1, abs=1e-5)
    assert [kept_share(layer, 1, 0.25, 0.5) for layer in range(1)] == [0.75]


def test_means_are_of_phases_or_of_kept_checkpoints():
    models = [tiny.GQA_SPEC.build(seed) for seed in range(3)]
    lineage = Lineage(
        model=tiny.GQA_SPEC.build(9),
        tokenizer=tokenizer(),
        average={"x": torch.zeros(1)},
        earlier={"a": Earlier(models[0]), "b": Earlier(models[1]), "c": Earlier(models[2], kept=models)},
    )
    grown = AverageWeights(phases=("a", "b"), shares=(0.25, 0.75)).grow(lineage, 0)
    for name, value in grown.model.named_parameters():
        one, two = (model.get_parameter(name).double() for model in models[:2])
        assert torch.equal(value, (0.25 * one + 0.75 * two).float()), name
    assert grown.average == {}
    grown = AverageKept(phase="c").grow(lineage, 0)
    expected = mean_of([weights(model) for model in models], (), "here")
    assert all(torch.equal(value, expected[name].float()) for name, value in grown.model.named_parameters())
    assert AverageKept(phase="c").needs() == ("c",) and AverageWeights(phases=("a", "b")).describe() == "mean of a, b"


def test_what_cannot_be_is_refused():
    _, _, lineage = tuned_from(tiny.GQA_SPEC)
    other = replace(lineage, earlier={"pretrain": Earlier(replace(lineage.model.spec, layers=1).build(0))})
    with pytest.raises(RecipeError, match=r"layers\.1\.\S+ is .* now and was nothing"):
        LiNeS(phase="pretrain", alpha=1, beta=0).grow(other, 0)
    with pytest.raises(RecipeError, match="the phase has no averaged weights"):
        LiNeS(phase="pretrain", alpha=1, beta=0, weights="average").grow(lineage, 0)
    with pytest.raises(RecipeError, match="weights cannot be 'first'"):
        LiNeS(phase="pretrain", alpha=1, beta=0, weights="first")
    with pytest.raises(RecipeError, match="alpha is nan"):
        LiNeS(phase="pretrain", alpha=float("nan"), beta=0)
    with pytest.raises(RecipeError, match="the model has another shape by now: embedding"):
        AverageKept(phase="x").grow(replace(lineage, earlier={"x": Earlier(None, kept=[tiny.GQA_SPEC.build(0)])}), 0)
    with pytest.raises(RecipeError, match="kept no checkpoint"):
        AverageKept(phase="pretrain").grow(lineage, 0)
    with pytest.raises(RecipeError, match="a mean of 1 phases is none"):
        AverageWeights(phases=("a",))
    with pytest.raises(RecipeError, match=r"the shares 0\.5, 0\.6 are not 2 that add up to 1"):
        AverageWeights(phases=("a", "b"), shares=(0.5, 0.6))


def test_a_timeline_releases_it_and_its_lineage_names_it(tmp_path):
    base = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC)
    pretraining, _, release, chatml, sft, _ = base.timeline
    lines = LiNeS(phase="pretrain", alpha=0.5, beta=0.5, weights="average")
    pretraining = replace(pretraining, keep=(Share(0.5), Share(1.0)))
    with pytest.raises(RecipeError, match="LiNeS from elsewhere, alpha 0.5, beta 0.5, reads 'elsewhere'"):
        replace(base, timeline=(pretraining, replace(lines, phase="elsewhere")))
    whole = replace(
        base, timeline=(pretraining, UseEma(), chatml, sft, lines, replace(release, name="lined", suite="own-text"))
    )
    out = StringIO()
    console = Console(file=out, width=200)
    (folder,) = pipeline.run(whole, tmp_path / "run", MACHINE, console)
    assert "04 LiNeS from pretrain, alpha 0.5, beta 0.5" in out.getvalue()
    card = (folder / "README.md").read_text()
    assert "LiNeS" in card and "alpha" in card
    lineage = read_json(folder / "lilliput.json") if (folder / "lilliput.json").is_file() else {}
    assert lineage and isinstance(whole.timeline[-1], Release)
    native = load(folder)
    assert native.model.spec.layers == 2
