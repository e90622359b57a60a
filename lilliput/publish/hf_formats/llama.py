"""LlamaForCausalLM: grouped-query attention without QK-norm. Most of what reads models reads this one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lilliput.model import ModelSpec
from lilliput.publish.hf_formats.format import expand, refuse
from lilliput.publish.hf_formats.qwen3 import (
    HEAD_NAME,
    TRANSFORMER_NAMES,
    transformer_config,
    transformer_orders,
    transformer_parts,
)


@dataclass(frozen=True, kw_only=True)
class LlamaFormat:
    """GQA(qk_norm=False, rope=RoPE()), RMSNorm, SwiGLU, Ungated."""

    context: int

    @property
    def remote_files(self) -> tuple[Path, ...]:
        return ()

    def check_supported(self, spec: ModelSpec) -> None:
        mixer, _, _ = transformer_parts(self, spec)
        if mixer.qk_norm:
            refuse(self, "mixer", mixer, "GQA(qk_norm=False)")
        if spec.width % mixer.heads:
            refuse(self, "width", spec.width, f"a width that the {mixer.heads} heads divide")

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        return transformer_config(self, spec) | {
            "architectures": ["LlamaForCausalLM"],
            "mlp_bias": False,
            "model_type": "llama",
            "pretraining_tp": 1,
        }

    def names(self, spec: ModelSpec) -> dict[str, str]:
        return expand(TRANSFORMER_NAMES | ({} if spec.tie_embeddings else HEAD_NAME), spec.layers)

    def row_permutations(self, spec: ModelSpec) -> dict[str, Tensor]:
        return transformer_orders(self, spec)
