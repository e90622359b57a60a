"""The mixer that the guide writes from nothing works, and what one of one's own lacks is named at once."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from lilliput.base.errors import RecipeError
from lilliput.model import ModelSpec
from lilliput.recipe import load_recipe
from lilliput.train.phase import Stage

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "extend.md"


@pytest.fixture(scope="module")
def mixer(tmp_path_factory):
    file = tmp_path_factory.mktemp("guide") / "averaging.py"
    file.write_text(re.findall(r"```python\n(# averaging\.py\n.*?)```", GUIDE.read_text(), flags=re.S)[0])
    return load_recipe(str(file)).model.mixer


def test_decoding_with_the_mixer_of_the_guide_equals_whole_rows(mixer):
    model = replace(tiny.GQA_SPEC, mixer=mixer).build(seed=0)
    x = model.embed(torch.randint(tiny.VOCAB, (2, 9, 1), generator=torch.Generator().manual_seed(0)))
    whole, parts, states, position = model.forward_layers(x), [], model.empty_states(2, 9), 0
    for part in x.split([4, 1, 3, 1], dim=1):
        size = torch.full((2,), part.shape[1])
        parts.append(model.decode(part, states, torch.full((2,), position), size))
        position += part.shape[1]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_documents_do_not_see_each_other_in_the_mixer_of_the_guide(mixer):
    model = replace(tiny.GQA_SPEC, mixer=mixer).build(seed=0)
    x = model.embed(torch.randint(tiny.VOCAB, (1, 8, 1), generator=torch.Generator().manual_seed(0)))
    packed = model.forward_layers(x, document_ids=torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]]))
    torch.testing.assert_close(packed[:, 3:], model.forward_layers(x[:, 3:]))


def test_a_mixer_that_reads_no_noised_stream_is_named_where_one_is_asked_for(mixer):
    model = replace(tiny.GQA_SPEC, mixer=mixer).build(seed=0)
    clean, noisy = torch.zeros(2, 1, 9, 32)
    with pytest.raises(RecipeError, match="RunningMeanMixer has no in_weights, mix, mix_pair") as error:
        model.forward_pair(clean, noisy)
    assert "RunningMean.build" in error.value.where and "PairMixer in lilliput/nn/mixer.py" in error.value.hint


LACKING = {
    "the spec": (
        "class Mean:\n    def build(self, width, layer): return Layer(width)",
        "Mean has no flops, .*, state_",
    ),
    "a method": (
        """class Mean:
    def build(self, width, layer): return torch.nn.Linear(width, width)
    def shared_parameters(self, width, layers): return None
    def flops(self, width, length, layer): return 1
    def state_entries(self, width, length, layer): return 1""",
        r"Linear has no decode, empty_state(.|\n)*Mean.build(.|\n)*lilliput/nn/mixer.py",
    ),
}


@pytest.mark.parametrize("lacking", LACKING)
def test_what_a_mixer_lacks_is_named_when_its_recipe_is_read(lacking, tmp_path):
    spec, said = LACKING[lacking]
    file = tmp_path / "mean.py"
    file.write_text(
        "from dataclasses import dataclass, replace\nimport torch\nfrom lilliput.recipes.own_text import recipe\n"
        f"@dataclass(frozen=True, kw_only=True)\n{spec}\n"
        "recipe = replace(recipe, model=replace(recipe.model, mixer=Mean()))\n"
    )
    with pytest.raises(RecipeError, match=said):
        load_recipe(str(file))


@dataclass(frozen=True, kw_only=True)
class Nothing:
    pass


class Plain:
    tokens_per_position = 1

    def row_length(self, length):
        return length + 1

    def build(self, model):
        return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda recipe: Stage(share=1.0, objective=Nothing()),
            "Nothing has no build, denominator, headline, row_length, tokens_per_position",
        ),
        (lambda recipe: replace(recipe.model, mixer=3), "3 is not a MixerSpec"),
        (lambda recipe: Stage(share=1.0, objective=Plain), "Plain is a class, not a value"),
        (lambda recipe: replace(recipe.timeline[0], optimizer=Nothing()), r"Phase\(optimizer=...\)"),
        (lambda recipe: replace(recipe.timeline[0], schedule=Nothing()), "Nothing has no __call__"),
        (lambda recipe: replace(recipe.timeline[1], layout=Nothing()), "lilliput/publish/.*/format.py"),
        (
            lambda recipe: replace(recipe, timeline=(*recipe.timeline, Nothing())),
            "Nothing has no describe, keeps_optimizer, kind, needs, part, reads, retokenize, shape",
        ),
    ],
)
def test_what_other_parts_lack_is_named_too(make, said):
    with pytest.raises(RecipeError, match=said):
        make(load_recipe("own-text"))


def test_a_corpus_without_an_identity_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Read:
        def documents(self):
            yield from ()

    with pytest.raises(RecipeError, match="Read has no identity(.|\n)*lilliput/data/documents.py"):
        replace(load_recipe("own-text"), corpora={"texts": Read()})


class Scale(nn.Module):
    """Weights that are no matrix."""

    def __init__(self, width: int, *, buffer: bool = False):
        super().__init__()
        self.weight, self.gain, self.eps = nn.Parameter(torch.empty(width)), torch.ones(width), 1e-6
        if buffer:
            self.register_buffer("decay", torch.ones(width))
            self.reset_parameters = lambda: None


@dataclass(frozen=True, kw_only=True)
class Scaled:
    buffer: bool = False

    def build(self, width):
        return Scale(width, buffer=self.buffer)


@pytest.mark.parametrize(
    ("norm", "said"), [(Scaled(), "no reset_parameters"), (Scaled(buffer=True), "a buffer, decay, which no checkpoint")]
)
def test_weights_that_nothing_would_fill_are_refused(norm, said):
    own = load_recipe("own-text")
    with pytest.raises(RecipeError, match=said):
        replace(own, model=replace(own.model, norm=norm))


@dataclass(frozen=True, kw_only=True)
class Biased:
    """A gate with what PyTorch itself would fill from its own generator."""

    def build(self):
        return nn.Sequential(nn.Linear(2, 3), nn.Conv1d(2, 2, 3))


def test_biases_and_layers_of_pytorch_begin_as_the_seed_says():
    spec = ModelSpec(**{**vars(tiny.GQA_SPEC), "gate": Biased()})
    first, again, other = (spec.build(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.0.mixer_gate.1.weight"], other["layers.0.mixer_gate.1.weight"])
    assert not first["layers.0.mixer_gate.0.bias"].any()
