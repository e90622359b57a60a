"""Parts of a recipe by name on the command line: what is read, what is refused, and that none of it runs."""

from dataclasses import replace

import pytest
import tiny

from lilliput.base.errors import RecipeError
from lilliput.base.field_overrides import override
from lilliput.base.spec_text import split, write
from lilliput.base.units import Steps, Tokens
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.mixture import Mixture
from lilliput.nn.ffn import SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.rope import RoPE
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.terms import CrossEntropy
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.recipes import odinnext_138m
from lilliput.shrink import shrink
from lilliput.tokenizer.bpe import BPE

PARTS = [
    ("model.mixer", "HGRN2(heads=4, rope=RoPE(theta=1e5))", HGRN2(heads=4, rope=RoPE(theta=1e5))),
    ("model.mixer", "GQA(heads=4,kv_heads=2,head_width=16,)", GQA(heads=4, kv_heads=2, head_width=16)),
    ("model.ffn", "SwiGLU2(inner=24, square='product')", SwiGLU2(inner=24, square="product")),
    ("timeline.pretrain.schedule", "WarmupStableDecay(warmup=Steps(3))", WarmupStableDecay(warmup=Steps(3))),
    ("timeline.pretrain.data", "Mixture(weights={'texts': 2.0})", Mixture(weights={"texts": 2.0})),
    ("timeline.pretrain.tokens", "Tokens(2e3)", Tokens(2e3)),
    ("timeline.pretrain.stages.0.objective", "NextToken(terms=(CrossEntropy(),))", NextToken(terms=(CrossEntropy(),))),
    ("tokenizer", "BPE(vocab=3e2, at_most=True)", BPE(vocab=300, at_most=True)),
    ("model.mixer.forget_timescales", "(2.0, 50)", (2.0, 50)),
    ("about", "GQA(a)", "GQA(a)"),
]


@pytest.mark.parametrize(("path", "text", "value"), PARTS)
def test_a_part_is_written_by_its_name(tmp_path, path, text, value):
    recipe = replace(tiny.recipe(tmp_path), timeline=(tiny.pretraining(),))
    found = changed = override(recipe, path, text)
    for key in path.split("."):
        found = {"pretrain": found[0], "0": found[0]}[key] if isinstance(found, tuple) else getattr(found, key)
    assert found == value
    assert path == "about" or override(recipe, path, write(value)) == changed


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("model.mixer", "HGRN(heads=4)", "nearest names: HGRN2"),
        ("model.mixer", "SwiGLU(inner=4)", "SwiGLU does not fit there"),
        ("model.mixer", "GQA(heads=4)", "lacks kv_heads and head_width"),
        ("model.mixer", "HGRN2(head=4)", "nearest names: heads"),
        ("model.mixer", "HGRN2(heads='4')", "not a whole number"),
        ("model.mixer", "HGRN2(4)", "by name"),
        ("model.mixer", "HGRN2(heads=2, rope=HGRN2(heads=2))", "there are: NoPE, RoPE"),
        ("model.mixer", "HGRN2(heads=0)", "at least 1"),
        ("model.mixer", "HGRN2(heads=open('x').read())", "not a plain value"),
        ("model.mixer", "HGRN2(heads=2 if 1 else 3)", "not a plain value"),
        ("model.mixer", "HGRN2(**{'heads': 2})", "not a plain value"),
        ("model.mixer", "HGRN2(heads=4", "never closed"),
        ("model.ffn", "SwiGLU2(inner=4, square='produc')", "nearest names: product"),
        ("model.mixer", "HGRN2", "a part by name"),
        ("seed", "HGRN2(heads=4)", "give a plain value"),
    ],
)
def test_a_part_that_does_not_fit_is_refused_and_nothing_is_evaluated(tmp_path, path, text, says):
    with pytest.raises(RecipeError) as refused:
        override(tiny.recipe(tmp_path), path, text)
    assert says in str(refused.value) and f"--set {path}={text}" in refused.value.where and refused.value.hint


def test_commas_in_brackets_and_quotes_do_not_cut():
    assert split("A(x=1,y=(2,3)),4,B(z='),')") == ["A(x=1,y=(2,3))", "4", "B(z='),')"]
    assert split("a,b") == ["a", "b"] and split("it's,fine") == ["it's", "fine"]


def test_a_nested_package_of_parts_offers_those_around_it_too():
    recipe = shrink(odinnext_138m.recipe)
    found = override(recipe, "corpora.replies.prompts", "ChatFiles(paths=('talks.jsonl',))")
    assert found.corpora["replies"].prompts == ChatFiles(paths=("talks.jsonl",))
