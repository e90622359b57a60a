"""Checks of a mixer on whole rows: what it sees, what it is trained by, and its other forms."""

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.base.protocols import provides
from lilliput.check.compare import TOLERANCE, check_equal, largest_of
from lilliput.check.decoding import (
    decodes_narrow_states,
    decodes_padded_rows,
    decodes_parts,
    forks,
    holds_state_entries,
)
from lilliput.check.host_sync import says_whether_it_waits
from lilliput.check.layers import MixerLayer, layers_by_kind, scattered
from lilliput.check.mix_pair import mixes_pairs
from lilliput.check.result import CheckFailed, CheckSkipped, Result, result_of
from lilliput.growth.growth import Lineage
from lilliput.growth.stack import Stack
from lilliput.model import ModelSpec
from lilliput.nn.mixer import FusedMixer
from lilliput.ops.linear import fused_linear

ROW, LONG = 20, 80
"""Positions: every one is changed in a short row; of a long one, whose scan may be another, a few."""
DOCUMENTS = (7, 1, 9, 3)
"""Positions of the documents of a packed row."""


def check_mixers(spec: ModelSpec) -> Iterator[Result]:
    """Check each kind of mixer of a model."""
    name = type(spec.mixer).__name__
    layers = {}
    built = result_of("mixer", name, "build", lambda: layers.update(layers_by_kind(spec)) or "")
    if built.state == "failed":
        yield built
        return
    for kind, its in layers.items():
        for check, run in CHECKS.items():
            yield result_of("mixer", type(kind).__name__, check, lambda run=run, its=its: _said(map(run, its)))
    yield result_of("mixer", name, "stacking", lambda: _stacks(spec))


def _said(messages: Iterable[str]) -> str:
    """Return the first thing there is to say of a layer."""
    return next(filter(None, list(messages)), "")


@torch.no_grad()
def _is_causal(layer: MixerLayer) -> str:
    """A position changes no output before it, to the bit: in a tolerance a small leak would hide."""
    for length, places in ((ROW, range(1, ROW)), (LONG, (1, 31, 63, 64, 79))):
        x = layer.stream(2, length)
        for documents in (None, (torch.arange(length) // 7).expand(2, -1)):
            before = layer.whole(x, documents)
            for place in places:
                changed = x.clone()
                changed[:, place] += 3.0
                after = layer.whole(changed, documents)
                check_equal(
                    after[:, :place],
                    before[:, :place],
                    f"position {place} of {length} changes outputs before it",
                    where=layer.where("forward"),
                    hint="let position i read positions up to i alone, e.g. with a mask that is a lower triangle",
                    exact=True,
                )
    return ""


@torch.no_grad()
def _keeps_documents_apart(layer: MixerLayer) -> str:
    """A packed row is its documents, each in a row of its own."""
    x = layer.stream(2, sum(DOCUMENTS))
    numbers = torch.repeat_interleave(torch.arange(len(DOCUMENTS)), torch.tensor(DOCUMENTS)).expand(2, -1)
    packed = layer.whole(x, numbers)
    changed = x.clone()
    changed[:, DOCUMENTS[0] - 1] += 3.0
    leak = largest_of(layer.whole(changed, numbers)[:, DOCUMENTS[0] :] - packed[:, DOCUMENTS[0] :])
    if leak > TOLERANCE * largest_of(packed):
        raise CheckFailed(
            f"position {DOCUMENTS[0] - 1} of document 0 changes outputs of later documents by {leak:.3g}",
            where=layer.where("forward"),
            hint="let a position read those of equal document_ids alone, and begin each document with an empty state",
        )
    try:
        for number, part in enumerate(packed.split(DOCUMENTS, dim=1)):
            begin = sum(DOCUMENTS[:number])
            check_equal(
                part,
                layer.whole(x[:, begin : begin + DOCUMENTS[number]]),
                f"document {number} of a packed row, from position {begin} on, and the same document alone",
                where=layer.where("forward"),
                hint="start again with each document: its state, and its positions unless distances alone count",
            )
    except CheckFailed:
        if not layer.is_rotary:
            raise
        return "nothing crosses, but rotary positions of a row do not count by distance alone in it"
    return ""


def _learns(layer: MixerLayer) -> str:
    """Gradients are finite and reach the stream and every parameter."""
    x = layer.stream(2, ROW).requires_grad_()
    layer.model.zero_grad()
    weights = torch.linspace(-1, 1, x.numel()).view_as(x)
    (layer.whole(x) * weights).sum().backward()
    owned = {f"parameter {name}": one.grad for name, one in layer.module.named_parameters()}
    for name, gradient in {"the stream x": x.grad, **owned}.items():
        if gradient is None or not gradient.any() or not gradient.isfinite().all():
            found = "no gradient reaches" if gradient is None else "the gradient is zero of"
            if gradient is not None and not gradient.isfinite().all():
                found = f"{int((~gradient.isfinite()).sum()):,} of {gradient.numel():,} gradients are not finite of"
            raise CheckFailed(
                f"{found} {name}",
                where=layer.where("forward"),
                hint="use it in forward, without detach() or no_grad(), or leave it out",
            )
    return ""


@torch.no_grad()
def _is_fused_alike(layer: MixerLayer) -> str:
    """Products that are made outside of it are those that it makes itself."""
    if not provides(layer.module, FusedMixer):
        raise CheckSkipped("it has no in_weights and mix: it makes its products itself")
    module = cast(FusedMixer, layer.module)
    x = layer.stream(2, ROW)
    for documents in (None, (torch.arange(ROW) // 7).expand(2, -1)):
        mixed = module.mix(fused_linear(x, *module.in_weights), documents, *layer.shared).materialize()
        check_equal(
            mixed,
            layer.whole(x, documents),
            "mix of the products with in_weights, and forward",
            where=layer.where("mix"),
            hint="let forward return self.mix(fused_linear(x, *self.in_weights), document_ids).materialize()",
        )
    return ""


@torch.no_grad()
def _stacks(spec: ModelSpec) -> str:
    """Whole copies of the layers can be stacked on them; those that add nothing yet change nothing."""
    model = scattered(spec.build(seed=0))
    lineage = Lineage(model=model, tokenizer=cast("object", None), average={})  # type: ignore[arg-type]
    tokens = torch.arange(2 * ROW).view(2, ROW) % spec.vocab
    try:
        grown = [Stack(times=2, order=order).grow(lineage, seed=0).model for order in ("stack", "zero")]
    except RecipeError as error:
        return f"it is refused: {error.what}"
    stacked: Tensor = grown[0](tokens)
    if not stacked.isfinite().all():
        raise CheckFailed(
            "logits of a stacked model are not finite", where="Stack(times=2)", hint="let `build` follow from the layer"
        )
    check_equal(
        grown[1](tokens),
        model(tokens),
        'logits after Stack(times=2, order="zero") and before it',
        where=f"what {type(spec.mixer).__name__}.build returns",
        hint="name the matrix that writes to the stream `output`, without a bias: it is what begins as zeros",
    )
    return ""


CHECKS: dict[str, Callable[[MixerLayer], str]] = {
    "causality": _is_causal,
    "documents": _keeps_documents_apart,
    "decoding": decodes_parts,
    "rows of different lengths": decodes_padded_rows,
    "16-bit states": decodes_narrow_states,
    "forking": forks,
    "state_entries": holds_state_entries,
    "gradients": _learns,
    "host_sync": says_whether_it_waits,
    "fused form": _is_fused_alike,
    "mix_pair": mixes_pairs,
}
