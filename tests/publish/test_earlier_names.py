"""Releases of Lilliput 0.1 are read for good, whatever types and fields are called today."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_releases import RELEASES, awake, tokenizer

from lilliput.base.files import verify_checksum, with_checksum
from lilliput.base.spec import from_plain, to_plain
from lilliput.model import ModelSpec
from lilliput.nn.block import ScalarGate
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.norm import ZeroCenteredRMSNorm
from lilliput.nn.rope import NoPE, RoPE
from lilliput.publish.earlier_names import with_present_names
from lilliput.publish.export import RELEASE_FILE, Generation, export
from lilliput.publish.load import load

NAMES = {
    "lilliput.publish.hf_formats.": "lilliput.publish.layouts.",
    "HGRN2Format": "HGRN2Layout",
    "LlamaFormat": "LlamaLayout",
    "Qwen3Format": "Qwen3Layout",
    "lilliput.nn.init:": "lilliput.nn.initialise:",
    "ZeroCenteredRMSNorm": "ZeroCentredRMSNorm",
    "NoPE": "Nowhere",
    '"logit_softcap"': '"logit_cap"',
    '"forget_timescales"': '"horizons"',
    '"layout": "half"': '"pairs": "half"',
    '"layout": "interleaved"': '"pairs": "interleaved"',
}


def of_before(plain):
    """The plain form as 0.1 wrote it."""
    text = json.dumps(plain)
    for new, old in NAMES.items():
        text = text.replace(new, old)
    for layers, old in (("even", "EvenLayers"), ("all", "Everywhere")):
        text = text.replace(f', "layers": "{layers}"', "")
        text = (
            text.replace("lilliput.nn.rope:RoPE", f"lilliput.nn.rope:{old}")
            if f'"{layers}"' in json.dumps(plain)
            else text
        )
    return json.loads(text)


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_of_before_is_the_same_model(name, tmp_path):
    spec, layout = RELEASES[name]
    model = awake(spec)
    export(model, tokenizer(), tmp_path, layout=layout, dtype="F32", generation=Generation(), chat_template=None)
    path = tmp_path / RELEASE_FILE
    release = verify_checksum(json.loads(path.read_text()))
    before = of_before({key: release[key] for key in ("layout", "model", "generation")})
    assert before != {key: release[key] for key in before}
    path.write_text(json.dumps(with_checksum(release | before)))
    ids = torch.tensor([[1, 5, 9]])
    assert torch.equal(load(tmp_path).model(ids), model(ids)) and load(tmp_path).layout == layout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"type": "lilliput.nn.rope:EvenLayers", "theta": 9.0, "pairs": "half"}, RoPE(theta=9.0, layers="even")),
        ({"type": "lilliput.nn.rope:Everywhere", "theta": 9.0, "pairs": "half"}, RoPE(theta=9.0)),
        ({"type": "lilliput.nn.rope:Nowhere", "theta": 9.0}, NoPE(theta=9.0)),
        ({"type": "lilliput.nn.block:ScalarGate", "first": 0.5}, ScalarGate(init=0.5)),
        ({"type": "lilliput.nn.norm:ZeroCentredRMSNorm", "eps": 0.5}, ZeroCenteredRMSNorm(eps=0.5)),
        ({"type": "lilliput.nn.gqa:GQA", "heads": 2, "kv_heads": 1, "head_width": 4, "cap": 5.0}, None),
        ({"type": "lilliput.nn.hgrn2:HGRN2", "heads": 2, "horizons": [2.0, 9.0]}, None),
    ],
)
def test_every_name_of_before_has_one_of_today(old, new):
    wanted = new or (
        GQA(heads=2, kv_heads=1, head_width=4, softcap=5.0)
        if "cap" in old
        else HGRN2(heads=2, forget_timescales=(2, 9))
    )
    found = with_present_names({"inside": [old]})["inside"][0]
    assert from_plain(found) == wanted and with_present_names(to_plain(wanted)) == to_plain(wanted)


def test_a_model_of_before_has_its_soft_cap():
    spec = replace(RELEASES["hgrn2"][0], logit_softcap=3.0)
    plain = to_plain(spec)
    old = {("logit_cap" if key == "logit_softcap" else key): value for key, value in plain.items()}
    assert from_plain(with_present_names(old)) == spec and isinstance(spec, ModelSpec)
