"""Log-likelihoods of given continuations, in batches that read what rows have in common once.

Rows that begin alike are a group: the choices of one question after its context. A batch reads the beginnings of its
groups, right-padded, and then the rest of every row from the states that its beginning left, keys and values or a
recurrent state. Beginnings that all rows share, such as examples before each question, are read once for all batches.
Logits are made only where a continuation is predicted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lilliput.generate.shared_prefixes import Group, Row, common_length, groups
from lilliput.generate.states import copy_rows
from lilliput.model import LanguageModel
from lilliput.nn.mixer import State

POSITIONS = {"cpu": 1_024, "cuda": 65_536}
"""Positions that a pass reads at most, padding included, by device: on a processor as many as its caches like; a longer
row has a pass of its own."""
SLOTS = 4
"""Slots of keys and values for each of these positions: rows of a group have a copy of their beginning each."""
LOGITS = {"cpu": 2**21, "cuda": 2**27}
"""Logits that are made at a time, by device: in a processor's cache, or 512 MiB."""
ALIGNED = {"cpu": 1, "cuda": 16}
"""Lengths are multiples of it, by device: few shapes, and kernels for aligned memory."""
GROUP = 64
"""Rows of a group at most."""
COMMON = 32
"""Tokens that all rows have to share before these are read for themselves."""

Request = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context (at least one) and of its continuation (at least one)."""


class Likelihood(NamedTuple):
    """The log-likelihood of a continuation."""

    total: float
    """In nats, summed over its tokens."""
    is_greedy: bool
    """True if each of its tokens is the likeliest one."""


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Tokens of a request whose likelihoods are wanted, in a row."""

    request: int
    first: int
    """The position that predicts the first of them."""
    targets: Row


def log_likelihoods(model: LanguageModel, requests: Sequence[Request], *, window: int) -> list[float]:
    """The log-likelihood of each continuation after its context, in nats, computed in fp32; see `score`."""
    return [one.total for one in score(model, requests, window=window)]


def score(
    model: LanguageModel,
    requests: Sequence[Request],
    *,
    window: int,
    most_rows: int | None = None,
    watcher: Callable[[int, int], None] = lambda done, total: None,
) -> list[Likelihood]:
    """The log-likelihood of each continuation after its context, and whether greedy decoding finds it.

    What does not fit the window of `window` positions is cut from the left, as lm-evaluation-harness does.

    Args:
        model: in evaluation; its own dtype and device are used, logits and softmax are in fp32.
        requests: contexts and continuations.
        window: tokens that the model reads at once.
        most_rows: rows of a forward pass at most; None for as many as memory is meant to hold.
        watcher: told how many rows of all are done, after every batch; requests that differ in their last token alone
            share a row.
    """
    if not requests:
        return []
    index: dict[Row, int] = {}
    wanted: list[list[_Wanted]] = []
    for number, (context, continuation) in enumerate(requests):
        text = (*context, *continuation)[-(window + 1) :]
        size = min(len(continuation), len(text) - 1)
        row = index.setdefault(text[:-1], len(wanted))
        if row == len(wanted):
            wanted.append([])
        wanted[row].append(_Wanted(request=number, first=len(text) - 1 - size, targets=text[len(text) - size :]))
    return _Scoring(model, list(index), wanted, most_rows).run(len(requests), watcher)


class _Scoring:
    """One pass over many rows."""

    def __init__(self, model: LanguageModel, rows: list[Row], wanted: list[list[_Wanted]], most_rows: int | None):
        self._model, self._wanted = model, wanted
        self._device = next(model.parameters()).device
        kind = "cuda" if self._device.type == "cuda" else "cpu"
        self._positions, self._aligned = POSITIONS[kind], ALIGNED[kind]
        self._head_rows = max(1, LOGITS[kind] // model.spec.vocab)
        self._most_rows = most_rows or self._positions
        self._start, self._common = _common(rows, wanted), rows[0]
        self._states: list[State] | None = None
        self._rows = [row[self._start :] for row in rows]

    @torch.inference_mode()
    def run(self, requests: int, watcher: Callable[[int, int], None]) -> list[Likelihood]:
        """Score all rows, the longest first, so that memory that does not suffice is known at once."""
        if self._start:
            self._states = self._model.empty_states(1, self._start)
            self._decode(torch.tensor([self._common[: self._start]], device=self._device), self._states, [0])
        found = groups(self._rows, most=min(GROUP, self._most_rows))
        waiting = sorted(found, key=self._size)
        totals, greedy = np.zeros(requests), np.ones(requests, dtype=bool)
        done, pending = 0, None
        while waiting or pending:
            made = None
            if waiting:
                batch = self._batch(waiting)
                made = self._attempt(batch)
                if made is None:
                    continue
                del waiting[-len(batch) :]
            # The device works on this batch while the numbers of the one before it are fetched.
            if pending is not None:
                owners, likelihoods, is_best, rows = pending
                np.add.at(totals, owners, likelihoods.cpu().double().numpy())
                np.logical_and.at(greedy, owners, is_best.cpu().numpy())
                done += rows
                watcher(done, len(self._rows))
            pending = made
        return [Likelihood(total, bool(best)) for total, best in zip(totals.tolist(), greedy, strict=True)]

    def _size(self, group: Group) -> tuple[bool, int]:
        """Sort key: groups that are read in the same way, of like lengths, are neighbors."""
        return any(len(self._rows[row]) > group.shared for row in group.rows), group.shared

    def _batch(self, waiting: Sequence[Group]) -> list[Group]:
        """The last groups that wait, as many as fit; the last one has the longest beginning."""
        kind, longest = self._size(waiting[-1])
        most = self._fitting(longest, self._start + longest)
        batch = waiting[-most:]
        return [group for group in reversed(batch) if self._size(group)[0] == kind]

    def _fitting(self, length: int, slots: int) -> int:
        """Rows of a pass that read so many positions each, and have so many slots of keys and values."""
        fitting = self._positions // length
        if self._model.spec.states_grow:
            fitting = min(fitting, SLOTS * self._positions // slots)
        return max(1, min(fitting, self._most_rows))

    def _attempt(self, batch: list[Group]) -> "tuple[np.ndarray, Tensor, Tensor, int] | None":
        """Score a batch; None where memory ran out, and half the positions are to be tried."""
        try:
            return self._scored(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        self._positions = max(1, self._positions // 2)
        self._head_rows = max(1, self._head_rows // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _scored(self, batch: list[Group]) -> tuple[np.ndarray, Tensor, Tensor, int]:
        """The request and log-likelihood of each wanted token, whether it is the likeliest, and the number of rows."""
        x, begins = self._read(batch)
        width = max(group.shared for group in batch)
        width = -(-width // self._aligned) * self._aligned
        where, targets, owners = [], [], []
        for place, group in enumerate(batch):
            for row in group.rows:
                for one in self._wanted[row]:
                    positions = np.arange(len(one.targets)) + one.first - self._start
                    later = positions - group.shared + begins.get(row, 0)
                    where.append(np.where(positions < group.shared, positions + place * width, later))
                    targets.extend(one.targets)
                    owners.append(np.full(len(one.targets), one.request))
        likelihoods, best, order = self._likelihoods(x, np.concatenate(where), np.array(targets))
        return np.concatenate(owners)[order], likelihoods, best, sum(len(group.rows) for group in batch)

    def _read(self, batch: list[Group]) -> tuple[Tensor, dict[int, int]]:
        """Read the beginnings of groups, and then the rest of each row, rows of like lengths together.

        Returns:
            the stream after all layers at all positions in one row, beginnings first, and where in it the rest of each
            row begins.
        """
        first = self._padded([self._rows[group.rows[0]][: group.shared] for group in batch])
        rest = [
            (len(self._rows[row]) - group.shared, place, row)
            for place, group in enumerate(batch)
            for row in group.rows
            if len(self._rows[row]) > group.shared
        ]
        if not rest and self._states is None:
            return self._model.forward_layers(self._model.embed(first[..., None])).flatten(0, 1), {}
        capacity = self._start + first.shape[1]
        states = self._forked(self._states, [0] * len(batch), capacity)
        parts = [self._decode(first, states, [self._start] * len(batch), [group.shared for group in batch])]
        begins: dict[int, int] = {}
        rest.sort(reverse=True)
        end = first.numel()
        while rest:
            longest = rest[0][0]
            count = self._fitting(longest, capacity + longest)
            part, rest = rest[:count], rest[count:]
            tokens = self._padded([self._rows[row][batch[place].shared :] for _, place, row in part])
            forked = self._forked(states, [place for _, place, _ in part], capacity + tokens.shape[1])
            places = [self._start + batch[place].shared for _, place, _ in part]
            parts.append(self._decode(tokens, forked, places, [length for length, _, _ in part]))
            for number, (_, _, row) in enumerate(part):
                begins[row] = end + number * tokens.shape[1]
            end += tokens.numel()
        return torch.cat([part.flatten(0, 1) for part in parts]), begins

    def _decode(
        self, tokens: Tensor, states: list[State], positions: list[int], lengths: list[int] | None = None
    ) -> Tensor:
        where = torch.tensor(positions, device=self._device)
        sizes = torch.tensor(lengths or [tokens.shape[1]] * len(tokens), device=self._device)
        return self._model.decode(self._model.embed(tokens[..., None]), states, where, sizes)

    def _forked(self, states: list[State] | None, rows: list[int], capacity: int) -> list[State]:
        """States with room for `capacity` positions that continue the given rows of others; empty ones of None."""
        forked = self._model.empty_states(len(rows), capacity)
        if states is not None:
            copy_rows(forked, range(len(rows)), states, rows)
        return forked

    def _likelihoods(self, x: Tensor, where: np.ndarray, targets: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        """Log-likelihoods of targets after places of x, whether each is the likeliest, and their order."""
        places, inverse = np.unique(where, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        ends = np.searchsorted(inverse[order], np.arange(0, len(places) + self._head_rows, self._head_rows))
        local = torch.from_numpy(inverse[order]).to(self._device)
        wanted = torch.from_numpy(targets[order]).to(self._device)
        x = x.index_select(0, torch.from_numpy(places).to(self._device))
        likelihoods, best = [], []
        for number, start in enumerate(range(0, len(places), self._head_rows)):
            part = slice(int(ends[number]), int(ends[number + 1]))
            logits = self._model.logits(x[None, start : start + self._head_rows])[0].float().log_softmax(dim=-1)
            found = logits[local[part] - start, wanted[part]]
            likelihoods.append(found)
            best.append(found == logits.amax(dim=-1)[local[part] - start])
        return torch.cat(likelihoods), torch.cat(best), order

    def _padded(self, rows: list[Row]) -> Tensor:
        length = -(-max(map(len, rows)) // self._aligned) * self._aligned
        tokens = np.zeros((len(rows), length), dtype=np.int64)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return torch.from_numpy(tokens).to(self._device)


def _common(rows: Sequence[Row], wanted: Sequence[Sequence[_Wanted]]) -> int:
    """The tokens that all rows begin with and that predict nothing that is wanted, if they are worth a pass."""
    most = min(one.first for row in wanted for one in row)
    common = min(most, common_length(min(rows), max(rows))) if len(rows) > 1 else 0
    return common if common >= COMMON else 0
