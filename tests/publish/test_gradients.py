"""What is exported learns as the native model does: logits, and gradients of every parameter through the name table.

Both sides in fp64, in which our own code computes throughout; transformers norms and turns in fp32 all the same.
"""

from dataclasses import replace

import pytest
import torch.nn.functional as F
from tiny_releases import HGRN, OTHERWISE, RELEASES, awake, hugging_face, rows

from lilliput.nn.block import Ungated
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.rope import NoPE, RoPE
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format

LENGTHS = (3, 17, 37, 64)
"""Steps one by one, more than a chunk, odd and even."""


def exported(model, layout):
    """The architecture with the weights of a native model, as `export` writes them."""
    theirs = hugging_face(layout, model.spec).double().eval()
    names, orders = layout.names(model.spec), layout.row_permutations(model.spec)
    weights = {name: weight[orders[name]] if name in orders else weight for name, weight in model.state_dict().items()}
    unknown = theirs.load_state_dict({names[name]: weight for name, weight in weights.items()}, strict=False)
    assert not unknown.unexpected_keys
    assert set(unknown.missing_keys) <= ({"lm_head.weight"} if model.spec.tie_embeddings else set())
    return theirs


def compare(spec, layout, length, tolerance):
    model = awake(spec).double()
    theirs, tokens = exported(model, layout), rows(2, length)
    names, orders = layout.names(spec), layout.row_permutations(spec)
    ours, logits = model(tokens), theirs(tokens, use_cache=False).logits
    close(logits, ours, tolerance, "logits")
    for found in (ours, logits):
        F.cross_entropy(found[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        expected = parameter.grad[orders[name]] if name in orders else parameter.grad
        close(theirs.get_parameter(names[name]).grad, expected, tolerance, name)
        assert expected.abs().max() > 1e-9, f"{name} has no part in it"


def close(found, expected, tolerance, what):
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    assert difference <= tolerance, (what, difference)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", RELEASES)
def test_every_release_has_the_native_gradients(name, length):
    spec, layout = RELEASES[name]
    compare(spec, layout, length, 1e-11 if name.startswith("hgrn2") else 5e-6)


FFNS = (SwiGLU(inner=24), *(SwiGLU2(inner=24, square=square) for square in ("silu", "product", "relu")))
MIXERS = (
    HGRN2(heads=2, rope=NoPE(), lower_bounds=True),
    HGRN2(heads=2, rope=RoPE(layers="even", theta=500.0), lower_bounds=True),
    HGRN2(heads=2, rope=RoPE(layout="interleaved")),
    HGRN2(heads=2, rope=RoPE(layout="interleaved"), rope_tie_gate=True),
    HGRN2(heads=2, rope=RoPE(layers="even"), rope_tie_gate=True, lower_bounds=True, forget_timescales=(2.0, 40.0)),
)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("ffn", FFNS)
def test_every_option_of_a_recurrence_has_the_native_gradients(mixer, ffn):
    for gate in (OTHERWISE.gate, Ungated()):
        compare(replace(HGRN, layers=2, mixer=mixer, ffn=ffn, gate=gate), HGRN2Format(context=64), 19, 1e-11)
