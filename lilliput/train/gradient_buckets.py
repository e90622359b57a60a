"""The sum of gradients over ranks, in flat buckets that travel while the backward pass computes the rest.

Gradients are ready from the last layer to the first, so a bucket takes parameters in that order and is sent once the
last of them has its gradient. All ranks send the same buckets in the same order, whatever becomes ready first.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

BUCKET_BYTES = 4 * 2**20
"""Bytes of gradients sent together. DistributedDataParallel has 25 MiB; of SLM-10M, whose gradients are 40 MB, four
buckets more begin to travel earlier, and a step over 1 Gbit/s takes 0.99 s and not 1.09 (`benchmarks/exchange.py`)."""
FIRST_BYTES = 2**20
"""Bytes of the first bucket, which is sent soonest."""


class _Bucket(NamedTuple):
    parameters: list[nn.Parameter]
    flat: Tensor
    views: list[Tensor]


class GradientBuckets:
    """The gradients of some parameters, as one sum over all ranks."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype | None = None):
        """Lay out buckets.

        Args:
            parameters: the same on every rank.
            dtype: what gradients travel in; None for their own.
        """
        self._buckets = [_flat(group, dtype) for group in _grouped(list(parameters.values()), dtype)]
        self._bucket_of = {one: number for number, bucket in enumerate(self._buckets) for one in bucket.parameters}

    @property
    def bytes(self) -> int:
        """Bytes of all gradients as they are sent."""
        return sum(bucket.flat.nbytes for bucket in self._buckets)

    @contextmanager
    def reduced(self) -> Iterator[None]:
        """Sum gradients over ranks: sent in the backward pass of the `with` block, in place when it ends."""
        waiting = [len(bucket.parameters) for bucket in self._buckets]
        works: list[distributed.Work] = []

        def send_ready() -> None:
            while len(works) < len(waiting) and waiting[len(works)] == 0:
                works.append(_send(self._buckets[len(works)]))

        def gradient_is_ready(parameter: Tensor) -> None:
            waiting[self._bucket_of[parameter]] -= 1  # type: ignore[index]
            send_ready()

        hooks = [one.register_post_accumulate_grad_hook(gradient_is_ready) for one in self._bucket_of]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        waiting = [0] * len(waiting)  # of a parameter that no row reached: zeros
        send_ready()
        for work, bucket in zip(works, self._buckets, strict=True):
            work.wait()
            _hand_back(bucket)


def _grouped(parameters: list[nn.Parameter], dtype: torch.dtype | None) -> Iterator[list[nn.Parameter]]:
    """Parameters from the last to the first, in groups of one dtype and device that fill a bucket."""
    group: list[nn.Parameter] = []
    filled, most = 0, FIRST_BYTES
    for parameter in reversed(parameters):
        size = parameter.numel() * (dtype or parameter.dtype).itemsize
        if group and (filled + size > most or parameter.dtype != group[0].dtype):
            yield group
            group, filled, most = [], 0, BUCKET_BYTES
        group.append(parameter)
        filled += size
    if group:
        yield group


def _flat(parameters: list[nn.Parameter], dtype: torch.dtype | None) -> _Bucket:
    first = parameters[0]
    flat = torch.empty(sum(one.numel() for one in parameters), dtype=dtype or first.dtype, device=first.device)
    parts = flat.split([one.numel() for one in parameters])
    return _Bucket(parameters, flat, [part.view(one.shape) for part, one in zip(parts, parameters, strict=True)])


def _send(bucket: _Bucket) -> distributed.Work:
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in bucket.parameters]
    with torch.no_grad():
        torch._foreach_copy_(bucket.views, gradients)
    work = distributed.all_reduce(bucket.flat, async_op=True)
    assert work is not None
    return work


def _hand_back(bucket: _Bucket) -> None:
    """Gradients lie in the bucket until the next step, unless it is of another precision: a copy less."""
    for one, summed in zip(bucket.parameters, bucket.views, strict=True):
        one.grad = summed if summed.dtype == one.dtype else summed.to(one.dtype)
