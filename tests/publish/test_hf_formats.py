"""Layouts: a bijection of names that is transformers' own, a config it understands, and a refusal of all else."""

from dataclasses import replace

import pytest
import torch
from tiny_releases import HGRN, LLAMA, QWEN3, RELEASES, hugging_face

from lilliput.base.errors import ExportError
from lilliput.base.spec import from_plain, to_plain
from lilliput.nn.block import ScalarGate, Ungated
from lilliput.nn.ffn import SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.norm import RMSNorm, ZeroCenteredRMSNorm
from lilliput.nn.rope import NoPE, RoPE
from lilliput.publish.card.card import OLDEST_TRANSFORMERS
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.hf_formats.qwen3 import Qwen3Format


@pytest.mark.parametrize("name", RELEASES)
def test_names_are_a_bijection_onto_the_parameters_of_the_architecture(name):
    spec, layout = RELEASES[name]
    layout.check_supported(spec)
    names = layout.names(spec)
    native = {key: value.shape for key, value in spec.skeleton().named_parameters()}
    assert names.keys() == native.keys()
    assert len(set(names.values())) == len(names)
    with torch.device("meta"):
        theirs = {key: value.shape for key, value in hugging_face(layout, spec).named_parameters()}
    assert {names[key]: shape for key, shape in native.items()} == theirs


@pytest.mark.parametrize("name", RELEASES)
def test_rows_change_places_only_where_neighbours_turn_and_the_architecture_turns_halves(name):
    spec, layout = RELEASES[name]
    orders, native = layout.row_permutations(spec), dict(spec.skeleton().named_parameters())
    assert bool(orders) == name.endswith("interleaved")
    for parameter, order in orders.items():
        assert torch.equal(order.sort().values, torch.arange(len(native[parameter]))), parameter
        assert order[:8].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_ungated_models_have_no_gates_in_the_table():
    spec = replace(HGRN, gate=Ungated())
    names = HGRN2Format(context=8).names(spec)
    assert names.keys() == dict(spec.skeleton().named_parameters()).keys()


@pytest.mark.parametrize("name", RELEASES)
def test_layouts_are_specs(name):
    layout = RELEASES[name][1]
    assert from_plain(to_plain(layout)) == layout


def test_only_hgrn2_ships_code():
    for name, (_, layout) in RELEASES.items():
        assert bool(layout.remote_files) == name.startswith("hgrn2")
        assert all(file.is_file() for file in layout.remote_files)


def test_the_remote_code_needs_torch_and_transformers_only():
    import ast

    for file in HGRN2Format(context=8).remote_files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert {name.name.split(".")[0] for name in node.names} <= {"math", "torch", "transformers"}
            if isinstance(node, ast.ImportFrom):
                module = node.module if node.level == 0 else "." + node.module
                own = (".configuration_hgrn2_lm", ".packing_hgrn2_lm", ".scan_hgrn2_lm")
                assert module.split(".")[0] in ("torch", "transformers") or module in own


def test_the_remote_code_asks_for_the_version_that_the_card_names():
    configuration = HGRN2Format(context=8).remote_files[0].read_text()
    assert f'require_version("transformers>={OLDEST_TRANSFORMERS}"' in configuration


REFUSED = {
    "recurrence as qwen3": (Qwen3Format(context=8), HGRN, "mixer"),
    "attention as hgrn2": (HGRN2Format(context=8), QWEN3, "mixer"),
    "no qk-norm as qwen3": (Qwen3Format(context=8), LLAMA, "mixer"),
    "qk-norm as llama": (LlamaFormat(context=8), QWEN3, "mixer"),
    "two epsilons": (Qwen3Format(context=8), replace(QWEN3, norm=RMSNorm(eps=1e-5)), "mixer"),
    "no rotation": (Qwen3Format(context=8), replace(QWEN3, mixer=replace(QWEN3.mixer, rope=NoPE())), "mixer.rope"),
    "half rotation": (
        LlamaFormat(context=8),
        replace(LLAMA, mixer=replace(LLAMA.mixer, rope=RoPE(layers="even"))),
        "mixer.rope",
    ),
    "squared gate": (Qwen3Format(context=8), replace(QWEN3, ffn=SwiGLU2(inner=48)), "ffn"),
    "zero-centred norm": (LlamaFormat(context=8), replace(LLAMA, norm=ZeroCenteredRMSNorm()), "norm"),
    "residual gates": (Qwen3Format(context=8), replace(QWEN3, gate=ScalarGate()), "gate"),
    "uneven heads": (
        LlamaFormat(context=8),
        replace(LLAMA, mixer=GQA(heads=5, kv_heads=5, head_width=8)),
        "width",
    ),
    "capped logits as qwen3": (Qwen3Format(context=8), replace(QWEN3, logit_softcap=30.0), "logit_softcap"),
    "capped logits as llama": (LlamaFormat(context=8), replace(LLAMA, logit_softcap=30.0), "logit_softcap"),
    "capped scores as qwen3": (
        Qwen3Format(context=8),
        replace(QWEN3, mixer=replace(QWEN3.mixer, softcap=50.0)),
        "mixer",
    ),
    "a strange gate": (HGRN2Format(context=8), replace(HGRN, gate=RMSNorm()), "gate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_layout_cannot_express_is_refused_with_three_parts(case):
    layout, spec, part = REFUSED[case]
    with pytest.raises(ExportError) as caught:
        layout.check_supported(spec)
    assert type(layout).__name__ in caught.value.what and f"{part}=" in caught.value.what
    assert caught.value.where and "needs" in caught.value.hint
