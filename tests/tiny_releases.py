"""Tiny models of every architecture that is published, for the tests of `lilliput.publish`."""

import sys
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.block import ScalarGate
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.norm import RMSNorm, ZeroCenteredRMSNorm
from lilliput.nn.rope import RoPE
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.tokenizer.bpe import BPE

torch.set_num_threads(1)  # threads cost tiny models ten times what they bring once other processes want the cores

VOCAB = 280

QWEN3 = ModelSpec(
    vocab=VOCAB,
    width=32,
    layers=2,
    mixer=GQA(heads=4, kv_heads=2, head_width=8, qk_norm=True, rope=RoPE(theta=100_000.0)),
    ffn=SwiGLU(inner=48),
)
LLAMA = replace(
    QWEN3,
    mixer=GQA(heads=4, kv_heads=4, head_width=8, rope=RoPE(theta=5_000.0)),
    norm=RMSNorm(eps=1e-5),
    tie_embeddings=False,
)
HGRN = ModelSpec(
    vocab=VOCAB,
    width=32,
    layers=3,
    mixer=HGRN2(heads=2, rope=RoPE(layers="even", theta=100_000.0), output_norm=ZeroCenteredRMSNorm()),
    ffn=SwiGLU2(inner=48),
    norm=ZeroCenteredRMSNorm(eps=1e-5),
    gate=ScalarGate(),
)
OTHERWISE = replace(
    HGRN,
    mixer=replace(
        HGRN.mixer,
        rope=RoPE(layers="even", layout="interleaved"),
        rope_tie_gate=True,
        lower_bounds=True,
        forget_timescales=(2.0, 40.0),
    ),
    ffn=SwiGLU2(inner=48, square="product"),
    gate=ScalarGate(init=1.0),
    logit_softcap=2.0,
)
"""Whatever model cards leave open, otherwise than we read them."""


def neighbours(spec: ModelSpec) -> ModelSpec:
    """The same attention, with channels 2j and 2j + 1 turning together."""
    assert isinstance(spec.mixer, GQA)
    return replace(spec, mixer=replace(spec.mixer, rope=RoPE(theta=spec.mixer.rope.theta, layout="interleaved")))


RELEASES = {
    "qwen3": (QWEN3, Qwen3Format(context=64)),
    "qwen3-untied": (replace(QWEN3, tie_embeddings=False), Qwen3Format(context=64)),
    "llama": (LLAMA, LlamaFormat(context=64)),
    "llama-tied": (replace(LLAMA, tie_embeddings=True), LlamaFormat(context=64)),
    "qwen3-interleaved": (neighbours(QWEN3), Qwen3Format(context=64)),
    "llama-interleaved": (neighbours(LLAMA), LlamaFormat(context=64)),
    "hgrn2": (HGRN, HGRN2Format(context=64)),
    "hgrn2-horizons": (
        replace(HGRN, mixer=replace(HGRN.mixer, forget_timescales=(2.0, 40.0))),
        HGRN2Format(context=64),
    ),
    "hgrn2-options": (OTHERWISE, HGRN2Format(context=64)),
    "hgrn2-untied": (replace(HGRN, tie_embeddings=False), HGRN2Format(context=64)),
}


def awake(spec: ModelSpec, seed: int = 0) -> LanguageModel:
    """A model whose every weight matters: norms and gates too are away from their neutral value."""
    model = spec.build(seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.dim() < 2 else 0.15))
    return model


def hugging_face(layout: HFFormat, spec: ModelSpec) -> Any:
    """The exported architecture in transformers, with first weights of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    from lilliput.publish.remote.configuration_hgrn2_lm import HGRN2LMConfig
    from lilliput.publish.remote.modeling_hgrn2_lm import HGRN2LMForCausalLM

    config = layout.config(spec)
    kinds: dict[str, Any] = {
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
        "hgrn2_lm": (HGRN2LMConfig, HGRN2LMForCausalLM),
    }
    config_kind, model_kind = kinds[config["model_type"]]
    assert config["architectures"] == [model_kind.__name__]
    return model_kind(config_kind(**config))


def rows(count: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random token ids [count, length]."""
    return torch.randint(1, VOCAB, (count, length), generator=torch.Generator().manual_seed(seed))


@cache
def tokenizer() -> Tokenizer:
    """A real one with `VOCAB` ids."""
    return BPE(vocab=VOCAB).train(["the quick brown fox jumps over the lazy dog and thinks of the cat on the mat"] * 3)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """transformers in this process: nothing from the net, and remote code cached for this test alone."""
    from transformers import dynamic_module_utils

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
            del sys.modules[name]

    forget()
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    # First of all: where another test put model code before, its package of the same name would be found.
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield
    forget()
