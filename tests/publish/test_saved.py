"""Releases that transformers saved again: the config says the shape, and they are read as any other folder."""

import inspect
import itertools
from dataclasses import replace

import pytest
import torch
from tiny_checkpoints import change
from tiny_releases import HGRN, RELEASES, VOCAB, awake, offline, rows, tokenizer

from lilliput.base.errors import RunError
from lilliput.nn.block import ScalarGate, Ungated
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.norm import RMSNorm, ZeroCenteredRMSNorm
from lilliput.nn.rope import NoPE, RoPE
from lilliput.publish.export import Generation, export
from lilliput.publish.hf_config import architecture_of
from lilliput.publish.hf_config_hgrn2 import ABSENT, HORIZONS
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.load import load
from lilliput.publish.pretrained import PretrainedModel
from lilliput.publish.remote_code import check_code
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml

__all__ = ["offline"]

LAYOUT = HGRN2Format(context=64)
RECURRENT = [name for name in RELEASES if name.startswith("hgrn2")]
TURNED = [name for name in RELEASES if name.endswith("interleaved")]
"""Of which the export turned the channels round: they are halves from then on."""


def as_read(spec):
    """A shape without what no config says: where gates and their biases began."""
    mixer = spec.mixer
    if isinstance(mixer, HGRN2) and mixer.forget_timescales:
        mixer = replace(mixer, forget_timescales=HORIZONS)
    return replace(spec, mixer=mixer, gate=type(spec.gate)())


@pytest.mark.parametrize("name", [name for name in RELEASES if name not in TURNED])
def test_a_config_is_read_back_to_the_shape_that_wrote_it(name):
    spec, layout = RELEASES[name]
    config = layout.config(spec)
    read = architecture_of(config, "a folder")
    assert (read.shape, read.layout) == (as_read(spec), layout)
    assert read.layout.config(read.shape) == config


def test_every_option_is_read_back():
    norms = (RMSNorm(eps=1e-5), ZeroCenteredRMSNorm())
    ropes = (NoPE(theta=7.0), RoPE(layers="even", theta=500.0), RoPE(layout="interleaved"))
    ffns = (SwiGLU(inner=24), *(SwiGLU2(inner=24, square=square) for square in ("silu", "product", "relu")))
    flags = itertools.product((False, True), (None, 30.0), (None, (2.0, 9.0)))
    for rope, norm, output, ffn, gate, (on, cap, horizons) in itertools.product(
        ropes, norms, norms, ffns, (Ungated(), ScalarGate(init=0.3)), flags
    ):
        tied = on and not isinstance(rope, NoPE)
        mixer = HGRN2(
            heads=2, rope=rope, output_norm=output, rope_tie_gate=tied, lower_bounds=on, forget_timescales=horizons
        )
        spec = replace(HGRN, mixer=mixer, norm=norm, ffn=ffn, gate=gate, tie_embeddings=on, logit_softcap=cap)
        assert architecture_of(LAYOUT.config(spec), "a folder").shape == as_read(spec)


def test_a_silent_config_means_what_its_class_takes_for_granted():
    from lilliput.publish.remote.configuration_hgrn2_lm import HGRN2LMConfig

    known = {
        name: parameter.default
        for name, parameter in inspect.signature(HGRN2LMConfig).parameters.items()
        if parameter.default not in (None, inspect.Parameter.empty) and name != "use_cache"
    }
    assert known == ABSENT
    read = architecture_of({"model_type": "hgrn2_lm"}, "a folder")
    said = read.layout.config(read.shape)
    assert {key: said[key] for key in known} == known


def release(folder, name, vocab=VOCAB + 2):
    """A chat release, opened by transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec, layout = RELEASES[name]
    folder.mkdir()
    options = {"layout": layout, "dtype": "F32", "generation": Generation(), "chat_template": CHAT_TEMPLATE}
    export(awake(replace(spec, vocab=vocab)), add_chatml(tokenizer()), folder, **options)
    opened = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    return opened, AutoTokenizer.from_pretrained(folder, trust_remote_code=True)


def same(native, theirs):
    with torch.no_grad():
        expected = theirs(rows(2, 20)).logits
        torch.testing.assert_close(native(rows(2, 20)), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", [*RECURRENT, "qwen3"])
def test_what_transformers_saved_is_read_and_started_from(tmp_path, name, offline):
    theirs, words = release(tmp_path / "release", name)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(1.01)  # trained on
    saved = tmp_path / "saved"
    theirs.save_pretrained(saved, max_shard_size="40KB")
    words.save_pretrained(saved)
    assert check_code(saved) == name.startswith("hgrn2")
    published = load(saved)
    same(published.model, theirs)
    assert published.chat_template == CHAT_TEMPLATE and published.stop_ids == (VOCAB + 1, 0)
    assert (
        published.special_tokens["eos_token"] == "<|im_end|>"
        and published.tokenizer.to_str() == words._tokenizer.to_str()
    )
    start = PretrainedModel(checkpoint=str(saved))
    same(start.build(seed=0), theirs)
    assert start.layout == RELEASES[name][1] == published.layout
    start.layout.check_supported(start.shape)


@pytest.mark.parametrize("name", ["hgrn2-options", "qwen3"])
def test_a_release_that_was_saved_over_says_how_to_read_it(tmp_path, name, offline):
    folder = tmp_path / "release"
    theirs, _ = release(folder, name)
    with torch.no_grad():
        theirs.get_input_embeddings().weight.mul_(1.5)
    theirs.save_pretrained(folder)
    for reach in (load, check_code):
        with pytest.raises(RunError, match="is not the file that was released") as caught:
            reach(folder)
        assert "remove lilliput.json to read the folder as it is now" in caught.value.hint
    (folder / "lilliput.json").unlink()
    same(load(folder).model, theirs)
    assert check_code(folder) == name.startswith("hgrn2")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"ffn": "relu"}, "(?s)ffn is 'relu'.*only swiglu, swiglu2, swiglu2_product, reglu2 can be read"),
        ({"ffn": ["swiglu"]}, r"ffn is \['swiglu'\]"),
        ({"norm_offset": 2}, "norm_offset is 2"),
        ({"norm_offset": True}, "norm_offset is True"),
        ({"output_norm_eps": 0}, "output_norm_eps is 0"),
        ({"gate": "vector"}, "gate is 'vector'"),
        ({"rope_layers": "odd"}, "rope_layers is 'odd'"),
        ({"rope_pairs": "thirds"}, "rope_pairs is 'thirds'"),
        ({"rope_theta": float("nan")}, "rope_theta is nan"),
        ({"rope_tie_gate": 1}, "rope_tie_gate is 1"),
        ({"rope_layers": "none", "rope_tie_gate": True}, "rope_tie_gate needs a rotary embedding"),
        ({"num_heads": 7}, "num_heads is 7"),
        ({"num_heads": 32}, "(?s)num_heads is 32.*even parts"),
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers is 10000000"),
        ({"num_hidden_layers": 2}, r"does not name: .*model\.layers\.2"),
        ({"logit_cap": "30"}, "logit_cap is '30'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*4"),
        ({"forget_bias": True}, "does not name: .*f_bias"),
    ],
)
def test_a_config_that_is_none_of_ours_is_refused_by_its_entry(tmp_path, entries, says):
    folder = tmp_path / "release"
    folder.mkdir()
    options = {"layout": LAYOUT, "dtype": "F32", "generation": Generation(), "chat_template": None}
    export(awake(HGRN), tokenizer(), folder, **options)
    (folder / "lilliput.json").unlink()
    change(folder / "config.json", **entries)
    with pytest.raises(RunError, match=says) as caught:
        load(folder)
    assert str(folder) in caught.value.where and caught.value.hint
