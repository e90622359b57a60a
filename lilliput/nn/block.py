"""One layer of a model: mix positions, then transform each, both added to the residual stream.

x  = x + g_m * mixer(norm(x))
x  = x + g_f * ffn(norm(x))

Norms, gates and sums are made here; where mixer and feed-forward layer let it, together with the products that they
begin and end with, which is faster (`lilliput.ops.add_rms_norm_linear`).
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from lilliput.base.protocols import check_module, provides
from lilliput.base.spec import check_range
from lilliput.nn.ffn import FFN, FFNSpec, FusedFFN
from lilliput.nn.mixer import FusedMixer, Mixer, MixerSpec, PairMixer, State
from lilliput.nn.modulation import LayerModulation
from lilliput.nn.norm import Norm, NormSpec
from lilliput.ops.add_rms_norm_linear import add_rms_norm_linear
from lilliput.ops.linear import LinearOutput, fused_linear


class GateSpec(Protocol):
    """Gate that multiplies a branch before it joins the stream."""

    def build(self) -> nn.Module:
        """A module () -> one number, or None for 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ungated:
    """Branches join as they are."""

    def build(self) -> nn.Module:
        return NoGate()


@dataclass(frozen=True, kw_only=True)
class ScalarGate:
    """Branches join times sigmoid(a), one learned number each."""

    init: float = 0.0
    """a at first; sigmoid(0) is 1/2."""

    def __post_init__(self) -> None:
        check_range("ScalarGate", -20, 20, init=self.init)  # beyond, sigmoid is flat in fp32

    def build(self) -> nn.Module:
        return ScalarGateLayer(self.init)


class NoGate(nn.Module):
    """Nothing to multiply by."""

    def forward(self) -> None:
        return None


class ScalarGateLayer(nn.Module):
    """sigmoid(a)."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.first = first
        self.logit = nn.Parameter(torch.empty(()))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.logit, self.first)

    def forward(self) -> Tensor:
        return torch.sigmoid(self.logit)


class Block(nn.Module):
    """A mixer and a feed-forward layer, each behind a norm."""

    def __init__(self, width: int, layer: int, mixer: MixerSpec, ffn: FFNSpec, norm: NormSpec, gate: GateSpec):
        super().__init__()
        self.mixer_norm = norm.build(width)
        self.mixer = mixer.build(width, layer)
        self.mixer_gate = gate.build()
        self.ffn_norm = norm.build(width)
        self.ffn = ffn.build(width)
        self.ffn_gate = gate.build()
        check_module(self.mixer, Mixer, built_by=mixer)
        check_module(self.ffn, FFN, built_by=ffn)
        check_module(self.mixer_norm, Norm, built_by=norm)
        self.has_fused_mixer = provides(self.mixer, FusedMixer)
        self.has_fused_ffn = provides(self.ffn, FusedFFN)

    @property
    def host_sync(self) -> bool:
        """Return whether the mixer may read numbers back from a device, as one does that says nothing about it."""
        return getattr(self.mixer, "host_sync", True)

    def forward(self, x: Tensor, document_ids: Tensor | None, *shared: Tensor) -> Tensor:
        """Whole rows: [B, L, D], document numbers [B, L] and what mixers share -> [B, L, D]."""
        mixer, norm = cast(FusedMixer, self.mixer), cast(Norm, self.mixer_norm)
        if not self.has_fused_mixer:
            return self._transformed(self._joined(x, mixer(norm(x), document_ids, *shared)))
        x, projected = add_rms_norm_linear(x, mixer.in_weights, norm.gain, norm.eps)
        return self._transformed(x, mixer.mix(projected, document_ids, *shared))

    def forward_pair(
        self,
        clean: Tensor,
        noisy: Tensor,
        document_ids: Tensor | None,
        target_document_ids: Tensor | None,
        *shared: Tensor,
        modulation: LayerModulation | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Whole rows of a clean stream and of a noised one beside it, [B, L, D] each; see `PairMixer.mix_pair`."""
        mixer, norm = cast(PairMixer, self.mixer), cast(Norm, self.mixer_norm)
        documents = document_ids, target_document_ids
        if modulation is not None:
            read = (modulation.mixer.applied(norm(x)) for x in (clean, noisy))
            clean_projected, noisy_projected = (fused_linear(x, *mixer.in_weights) for x in read)
            made = mixer.mix_pair(clean_projected, noisy_projected, *documents, *shared)
            clean_made, noisy_made = (output.materialize() for output in made)
            return self._modulated(clean, clean_made, modulation), self._modulated(noisy, noisy_made, modulation)
        clean, clean_projected = add_rms_norm_linear(clean, mixer.in_weights, norm.gain, norm.eps)
        noisy, noisy_projected = add_rms_norm_linear(noisy, mixer.in_weights, norm.gain, norm.eps)
        mixed, read = mixer.mix_pair(clean_projected, noisy_projected, *documents, *shared)
        return self._transformed(clean, mixed), self._transformed(noisy, read)

    def decode(
        self,
        x: Tensor,
        state: State,
        positions: Tensor,
        lengths: Tensor,
        *shared: Tensor,
        modulation: LayerModulation | None = None,
    ) -> Tensor:
        """The next positions of rows, [B, L, D] -> [B, L, D]; `state` is changed in place, see `Mixer.decode`.

        The stream may be wider than the weights; mixer and feed-forward layer read it in the precision of the weights.
        """
        mixer, norm, dtype = cast(Mixer, self.mixer), cast(Norm, self.mixer_norm), next(self.parameters()).dtype
        read = norm(x) if modulation is None else modulation.mixer.applied(norm(x))
        made = mixer.decode(read.to(dtype), state, positions, lengths, *shared)
        if modulation is not None:
            return self._modulated(x, made, modulation)
        x = self._joined(x, made)
        if self.has_fused_ffn:
            return self._transformed(x)
        made, gate = self.ffn(cast(Norm, self.ffn_norm)(x).to(dtype)), self.ffn_gate()
        return x + (made if gate is None else gate * made)

    def _modulated(self, x: Tensor, mixed: Tensor, modulation: LayerModulation) -> Tensor:
        """The stream after both branches with adaptive norms, the mixer's made already."""
        x = self._joined(x, modulation.mixer.gate * mixed)
        ffn, norm, gate = cast(FFN, self.ffn), cast(Norm, self.ffn_norm), self.ffn_gate()
        made = modulation.ffn.gate * ffn(modulation.ffn.applied(norm(x)))
        return x + (made if gate is None else gate * made)

    def _joined(self, x: Tensor, mixed: Tensor) -> Tensor:
        gate = self.mixer_gate()
        return x + (mixed if gate is None else gate * mixed)

    def _transformed(self, x: Tensor, branch: LinearOutput | None = None) -> Tensor:
        """The stream after the feed-forward layer, where a branch may have to join it first."""
        ffn, norm, gate = cast(FusedFFN, self.ffn), cast(Norm, self.ffn_norm), self.ffn_gate()
        branch = None if branch is None else branch._replace(scale=self.mixer_gate())
        if self.has_fused_ffn:
            x, projected = add_rms_norm_linear(x, ffn.in_weights, norm.gain, norm.eps, branch=branch)
            return ffn.add_to(x, projected, gate)
        x = x if branch is None else x + branch.materialize()
        made = ffn(norm(x))
        return x + (made if gate is None else gate * made)


@cache
def compile_decode_once() -> None:
    """Have `Block.decode` compiled once for all layers that are alike: 12 of them in 9 s instead of 25."""
    Block.decode = torch.compiler.nested_compile_region(Block.decode)  # type: ignore[method-assign]


def stream_precision(weight: Tensor) -> torch.dtype:
    """Return the dtype of the residual stream: bf16 where a GPU multiplies in bf16, otherwise that of the weights.

    On a GPU norms and additions wait for memory, not for arithmetic, and half the bytes are half the time. fp16 lacks
    the range for a sum over many layers.
    """
    narrow = weight.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16
    return torch.bfloat16 if narrow else weight.dtype
