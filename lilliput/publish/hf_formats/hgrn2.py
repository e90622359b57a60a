"""HGRN2LMForCausalLM: the one architecture that ships its code, three self-contained files beside the weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lilliput.model import ModelSpec
from lilliput.nn.block import ScalarGate, Ungated
from lilliput.nn.ffn import Activation, SwiGLU, SwiGLU2
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.norm import RMSNorm, ZeroCenteredRMSNorm
from lilliput.nn.rope import NoPE, RoPE
from lilliput.publish.hf_formats.format import exactly, expand

REMOTE = Path(__file__).parent.parent / "remote"
REMOTE_FILES = tuple(REMOTE / f"{part}_hgrn2_lm.py" for part in ("configuration", "modeling", "packing", "scan"))
AUTO_MAP = {
    "AutoConfig": "configuration_hgrn2_lm.HGRN2LMConfig",
    "AutoModel": "modeling_hgrn2_lm.HGRN2LMModel",
    "AutoModelForCausalLM": "modeling_hgrn2_lm.HGRN2LMForCausalLM",
}
"""Classes by their name for transformers."""

NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "layers.{}.mixer_norm.weight": "model.layers.{}.mixer_norm.weight",
    "layers.{}.mixer.query.weight": "model.layers.{}.mixer.q_proj.weight",
    "layers.{}.mixer.forget.weight": "model.layers.{}.mixer.f_proj.weight",
    "layers.{}.mixer.input.weight": "model.layers.{}.mixer.i_proj.weight",
    "layers.{}.mixer.output.weight": "model.layers.{}.mixer.o_proj.weight",
    "layers.{}.mixer.norm.weight": "model.layers.{}.mixer.norm.weight",
    "layers.{}.ffn_norm.weight": "model.layers.{}.ffn_norm.weight",
    "layers.{}.ffn.gate.weight": "model.layers.{}.ffn.gate_proj.weight",
    "layers.{}.ffn.up.weight": "model.layers.{}.ffn.up_proj.weight",
    "layers.{}.ffn.down.weight": "model.layers.{}.ffn.down_proj.weight",
    "norm.weight": "model.norm.weight",
}
GATE_NAMES = {
    "layers.{}.mixer_gate.logit": "model.layers.{}.mixer_gate.logit",
    "layers.{}.ffn_gate.logit": "model.layers.{}.ffn_gate.logit",
}
BIAS_NAME = {"layers.{}.mixer.forget_bias.weight": "model.layers.{}.mixer.f_bias"}
BOUND_NAME = {"shared.bound_logits": "model.lower_bounds"}
HEAD_NAME = {"output.weight": "lm_head.weight"}

SQUARES: dict[Activation, str] = {"silu": "swiglu2", "product": "swiglu2_product", "relu": "reglu2"}
GATES = {Ungated: "none", ScalarGate: "scalar"}
NORM_OFFSETS = {RMSNorm: 0, ZeroCenteredRMSNorm: 1}


@dataclass(frozen=True, kw_only=True)
class HGRN2Format:
    """An HGRN2 mixer with any of our rotations, norms, gates and feed-forward layers, and a cap of logits.

    The config does not say at which values gates and their biases began: the weights hold what became of them.
    """

    context: int
    """Not a limit: the state is as large after a million tokens as after one."""

    @property
    def remote_files(self) -> tuple[Path, ...]:
        return REMOTE_FILES

    def check_supported(self, spec: ModelSpec) -> None:
        self.config(spec)

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        mixer = exactly(self, "mixer", spec.mixer, HGRN2)
        rope = exactly(self, "mixer.rope", mixer.rope, RoPE, NoPE)
        norm = exactly(self, "norm", spec.norm, RMSNorm, ZeroCenteredRMSNorm)
        output_norm = exactly(self, "mixer.output_norm", mixer.output_norm, RMSNorm, ZeroCenteredRMSNorm)
        ffn = exactly(self, "ffn", spec.ffn, SwiGLU, SwiGLU2)
        return {
            "architectures": ["HGRN2LMForCausalLM"],
            "auto_map": dict(AUTO_MAP),
            "ffn": SQUARES[ffn.square] if isinstance(ffn, SwiGLU2) else "swiglu",
            "forget_bias": mixer.forget_timescales is not None,
            "gate": GATES[type(exactly(self, "gate", spec.gate, *GATES))],
            "hidden_size": spec.width,
            "initializer_range": spec.init.std,
            "intermediate_size": ffn.inner,
            "logit_cap": spec.logit_softcap,
            "lower_bounds": mixer.lower_bounds,
            "max_position_embeddings": self.context,
            "model_type": "hgrn2_lm",
            "norm_eps": norm.eps,
            "norm_offset": NORM_OFFSETS[type(norm)],
            "num_heads": mixer.heads,
            "num_hidden_layers": spec.layers,
            "output_norm_eps": output_norm.eps,
            "output_norm_offset": NORM_OFFSETS[type(output_norm)],
            "rope_layers": rope.layers if isinstance(rope, RoPE) else "none",
            "rope_pairs": rope.layout,
            "rope_theta": rope.theta,
            "rope_tie_gate": mixer.rope_tie_gate,
            "tie_word_embeddings": spec.tie_embeddings,
            "use_cache": True,
            "vocab_size": spec.vocab,
        }

    def names(self, spec: ModelSpec) -> dict[str, str]:
        mixer = exactly(self, "mixer", spec.mixer, HGRN2)
        gates = GATE_NAMES if type(spec.gate) is ScalarGate else {}
        bias = BIAS_NAME if mixer.forget_timescales else {}
        bounds = BOUND_NAME if mixer.lower_bounds else {}
        head = {} if spec.tie_embeddings else HEAD_NAME
        return expand(NAMES | bias | bounds | gates | head, spec.layers)

    def row_permutations(self, spec: ModelSpec) -> dict[str, Tensor]:
        return {}
