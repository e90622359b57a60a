"""Check of a mixer that mixes a noised stream beside a clean one, by its definition: one ordinary row a position."""

from typing import cast

import torch
from torch import Tensor

from lilliput.base.protocols import provides
from lilliput.check.compare import check_equal
from lilliput.check.layers import MixerLayer
from lilliput.check.result import CheckSkipped
from lilliput.nn.mixer import PairMixer
from lilliput.ops.linear import fused_linear

ROW = 10
NUMBERS = (0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2)
"""Documents of the positions, and of the target after them."""
Documents = tuple[Tensor | None, Tensor | None]
"""Document numbers of inputs and of targets."""
ONE: Documents = (None, None)


@torch.no_grad()
def mixes_pairs(layer: MixerLayer) -> str:
    """A noised position is the last one of a row that ends with it, and no other position sees it."""
    if not provides(layer.module, PairMixer):
        raise CheckSkipped("it has no mix_pair: objectives that denoise would refuse it")
    clean, noisy = layer.stream(2, ROW), layer.stream(2, ROW, seed=1)
    numbers = torch.tensor(NUMBERS)
    several: Documents = numbers[:-1].expand(2, -1), numbers[1:].expand(2, -1)
    for documents in (ONE, several):
        mixed, read = _pair(layer, clean, noisy, documents)
        check_equal(
            mixed,
            layer.whole(clean, documents[0]),
            "the clean stream of mix_pair, and that of whole rows",
            where=layer.where("mix_pair"),
            hint="give clean positions what mix gives them: they see no noised one",
        )
        check_equal(
            read,
            _by_rows(layer, clean, noisy, documents),
            "noised positions, and the last ones of rows that end with them",
            where=layer.where("mix_pair"),
            hint="let noised position j see clean ones up to j of its target's document, and itself",
        )
        for place in range(ROW):
            _does_not_leak(layer, clean, noisy, documents, place)
    return ""


def _does_not_leak(layer: MixerLayer, clean: Tensor, noisy: Tensor, documents: Documents, place: int) -> None:
    """Change one position of either stream: nothing that must not see it changes by a bit."""
    mixed, read = _pair(layer, clean, noisy, documents)
    others = torch.arange(ROW) != place
    changed = noisy.clone()
    changed[:, place] += 3.0
    after_mixed, after_read = _pair(layer, clean, changed, documents)
    leaks = [
        (after_mixed, mixed, f"noised position {place} changes the clean stream"),
        (after_read[:, others], read[:, others], f"noised position {place} changes other noised ones"),
    ]
    changed = clean.clone()
    changed[:, place] += 3.0
    after_mixed, after_read = _pair(layer, changed, noisy, documents)
    leaks += [
        (after_mixed[:, :place], mixed[:, :place], f"clean position {place} changes clean ones before it"),
        (after_read[:, :place], read[:, :place], f"clean position {place} changes noised ones before it"),
    ]
    for found, expected, what in leaks:
        hint = "a noised position is seen by itself alone, a clean one from there on"
        check_equal(found, expected, what, where=layer.where("mix_pair"), hint=hint, exact=True)


def _pair(layer: MixerLayer, clean: Tensor, noisy: Tensor, documents: Documents) -> tuple[Tensor, Tensor]:
    module = cast(PairMixer, layer.module)
    projected = [fused_linear(stream, *module.in_weights) for stream in (clean, noisy)]
    mixed, read = module.mix_pair(projected[0], projected[1], *documents, *layer.shared)
    return mixed.materialize(), read.materialize()


def _by_rows(layer: MixerLayer, clean: Tensor, noisy: Tensor, documents: Documents) -> Tensor:
    last, (own, targets) = [], documents
    for place in range(ROW):
        row = torch.cat((clean[:, : place + 1], noisy[:, place : place + 1]), dim=1)
        numbers = None
        if own is not None and targets is not None:
            numbers = torch.cat((own[:, : place + 1], targets[:, place : place + 1]), dim=1)
        last.append(layer.whole(row, numbers)[:, -1])
    return torch.stack(last, dim=1)
