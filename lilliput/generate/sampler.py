"""Chooses the next token of every row of a batch, on the device, each by its own settings.

Draws are functions of (seed, position in the text) alone (`ops/counter_noise`): whatever else is in the batch, a
request draws the same numbers. They are made in blocks, as one launch makes many as fast as one.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from lilliput.generate.sampling import (
    Sampling,
    apply_frequency_penalty,
    apply_presence_penalty,
    apply_repetition_penalty,
    draw,
    min_p_threshold,
    top_k_top_p_threshold,
)
from lilliput.ops.counter_noise import uniform

DRAWS = 256
"""Positions of a text whose draws are made together."""


class Chosen(NamedTuple):
    """The next token of each row; K is the most of the likeliest tokens that a row asked for."""

    tokens: Tensor
    """[B] int64."""
    log_probabilities: Tensor | None = None
    """In the model's own distribution [B]; None where no row asked for them."""
    top_tokens: Tensor | None = None
    """The likeliest tokens in that distribution [B, K] int64, in this order; None where no row asked for them."""
    top_log_probabilities: Tensor | None = None
    """[B, K]."""


class Transfer:
    """The way of what was chosen to the host, in one piece. On CUDA it waits for nothing that is launched after it."""

    def __init__(self, chosen: Chosen):
        self._has_scores = chosen.log_probabilities is not None
        numbers = chosen.tokens
        if chosen.log_probabilities is not None:
            # fp32 holds every id below 2^24 as it is, and not every device has fp64.
            columns = [chosen.tokens.float()[:, None], chosen.log_probabilities[:, None]]
            if chosen.top_tokens is not None and chosen.top_log_probabilities is not None:
                columns += [chosen.top_tokens.float(), chosen.top_log_probabilities]
            numbers = torch.cat(columns, dim=1)
        self._event = torch.cuda.Event() if numbers.is_cuda else None
        self._numbers = numbers.to("cpu", non_blocking=numbers.is_cuda)
        if self._event is not None:
            self._event.record()

    def rows(self, indices: Sequence[int]) -> list[tuple[int, float | None, list[tuple[int, float]]]]:
        """Return token, log-probability and likeliest tokens of some rows, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        host, found = self._numbers.tolist(), []
        if not self._has_scores:
            return [(host[index], None, []) for index in indices]
        for index in indices:
            token, own, *top = host[index]
            ids, scores = top[: len(top) // 2], top[len(top) // 2 :]
            found.append((int(token), own, [(int(one), score) for one, score in zip(ids, scores, strict=True)]))
        return found


class Sampler:
    """The settings and the history of each row.

    Args:
        rows: of the batch.
        vocab: tokens to choose from.
        device: of the logits.
    """

    def __init__(self, rows: int, vocab: int, device: torch.device):
        self._vocab, self._device = vocab, device
        self._settings: list[Sampling] = [Sampling(greedy=True)] * rows
        self._wants_log_probability, self._top = [False] * rows, [0] * rows
        self._seeds, self._positions = [0] * rows, [0] * rows
        self._draws = torch.zeros(rows, DRAWS, device=device)
        self._columns = torch.zeros(rows, dtype=torch.int64, device=device)
        self._seen: Tensor | None = None
        """True where a token is in the text, [rows, V]; made for the first row with a penalty."""
        self._counts: Tensor | None = None
        """Times that a token was written, [rows, V] in fp32."""
        self._columns_of_settings: dict[str, Tensor] = {}

    def begin(
        self,
        row: int,
        sampling: Sampling,
        seed: int,
        prompt: Sequence[int],
        log_probabilities: bool = False,
        top_log_probabilities: int = 0,
    ) -> None:
        """Give a row to another text.

        Args:
            row: which one.
            sampling: its settings.
            seed: of its draws.
            prompt: tokens so far.
            log_probabilities: True if those of its tokens are asked for.
            top_log_probabilities: likeliest tokens that are asked for at each position.
        """
        self._settings[row], self._seeds[row], self._positions[row] = sampling, seed, len(prompt)
        self._wants_log_probability[row], self._top[row] = log_probabilities, min(top_log_probabilities, self._vocab)
        self._refill(row)
        if sampling.needs_history:
            seen, counts = self._history()
            seen[row], counts[row] = False, 0
            seen[row, torch.tensor(list(prompt), device=self._device)] = True
        self._columns_of_settings = {}

    def end(self, row: int) -> None:
        """Free a row: from now on it costs no more than the rows that need least."""
        self._settings[row] = Sampling(greedy=True)
        self._wants_log_probability[row], self._top[row] = False, 0
        self._columns_of_settings = {}

    def choose(self, logits: Tensor, rows: Sequence[int], is_choosing: Tensor) -> Chosen:
        """Choose the next token of some of the first rows.

        Args:
            logits: of the first rows, [B, V] in any floating dtype; what is computed of them is in fp32.
            rows: those that choose.
            is_choosing: the same as a mask [B]; the others' tokens are anything.
        """
        count, settings = len(logits), [self._settings[row] for row in rows]
        scores = self._penalized(logits, settings)
        tokens = scores.argmax(dim=-1)
        if not all(one.is_greedy for one in settings):  # greedy rows draw nothing: a launch less
            drawn = draw(self._filtered(scores.float(), settings), self._uniform(count))
            tokens = torch.where(self._column("greedy", count), tokens, drawn)
            self._columns[:count] += is_choosing
        for row in rows:
            self._positions[row] += 1
            if self._positions[row] % DRAWS == 0:
                self._refill(row)
        if self._seen is not None and self._counts is not None:
            chosen, seen = tokens[:, None], self._seen[:count]
            seen.scatter_(1, chosen, seen.gather(1, chosen) | is_choosing[:, None].bool())
            self._counts[:count].scatter_add_(1, chosen, is_choosing[:, None].float())
        width = max(self._top[row] for row in rows)
        if not width and not any(self._wants_log_probability[row] for row in rows):
            return Chosen(tokens)
        log_probabilities = logits.float().log_softmax(dim=-1)
        own = log_probabilities.gather(1, tokens[:, None])[:, 0]
        if not width:
            return Chosen(tokens, own)
        top = log_probabilities.topk(width)
        return Chosen(tokens, own, top.indices, top.values)

    def _penalized(self, scores: Tensor, settings: Sequence[Sampling]) -> Tensor:
        if not any(one.needs_history for one in settings):
            return scores
        count, scores = len(scores), scores.float()
        if any(one.repetition_penalty != 1 for one in settings):
            seen, _ = self._history()
            scores = apply_repetition_penalty(scores, seen[:count], self._column("repetition_penalty", count))
        if any(one.frequency_penalty for one in settings):
            _, counts = self._history()
            scores = apply_frequency_penalty(scores, counts[:count], self._column("frequency_penalty", count))
        if any(one.presence_penalty for one in settings):
            _, counts = self._history()
            scores = apply_presence_penalty(scores, counts[:count], self._column("presence_penalty", count))
        return scores

    def _filtered(self, scores: Tensor, settings: Sequence[Sampling]) -> Tensor:
        """Scores over the temperature, at minus infinity where a filter leaves a token out."""
        count = len(scores)
        scores = scores / self._column("temperature", count)[:, None]
        drawing = [one for one in settings if not one.is_greedy]
        limits = []
        if any(0 < one.top_k < self._vocab or one.top_p < 1 for one in drawing):
            # Where each top-p has a top-k, a few candidates are enough, and nothing is sorted.
            widths = [one.top_k or (self._vocab if one.top_p < 1 else 1) for one in drawing]
            widest = min(max(widths), self._vocab)
            limit = top_k_top_p_threshold(scores, self._column("top_k", count), self._column("top_p", count), widest)
            limits.append(limit.masked_fill(~self._column("is_limited", count), -inf))
        if any(one.min_p for one in drawing):
            limits.append(min_p_threshold(scores, self._column("min_p", count)))
        if not limits:
            return scores
        return scores.masked_fill(scores < torch.stack(limits).amax(dim=0)[:, None], -inf)

    def _column(self, name: str, count: int) -> Tensor:
        """A setting of all rows, a tensor that is made once for as long as the rows stay the same."""
        if name not in self._columns_of_settings:
            made = torch.tensor([self._value(name, one) for one in self._settings], device=self._device)
            self._columns_of_settings[name] = made
        return self._columns_of_settings[name][:count]

    def _value(self, name: str, sampling: Sampling) -> float:
        match name:
            case "greedy":
                return sampling.is_greedy
            case "is_limited":
                return sampling.top_k > 0 or sampling.top_p < 1
            case "top_k":
                return sampling.top_k or self._vocab
            case "temperature":
                return sampling.temperature or 1.0
            case _:
                return float(getattr(sampling, name))

    def _uniform(self, count: int) -> Tensor:
        return self._draws[:count].gather(1, self._columns[:count, None])[:, 0]

    def _refill(self, row: int) -> None:
        """Make the draws of the block of positions in which a row's text is."""
        block, column = divmod(self._positions[row], DRAWS)
        if not self._settings[row].is_greedy:
            positions = torch.arange(block * DRAWS, (block + 1) * DRAWS)
            self._draws[row] = uniform(torch.tensor(self._seeds[row]), positions, ()).to(self._device)
        self._columns[row] = column

    def _history(self) -> tuple[Tensor, Tensor]:
        if self._seen is None or self._counts is None:
            shape = len(self._settings), self._vocab
            self._seen = torch.zeros(shape, dtype=torch.bool, device=self._device)
            self._counts = torch.zeros(shape, device=self._device)
        return self._seen, self._counts
