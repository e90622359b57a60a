"""Decoding: a pass over each prompt, then one position of every row at a time from the mixers' states.

Rows differ in length, in settings and in when they begin: a row that ended makes room for the next request. What a
request gets depends on it and its seed alone, but for the rounding of products of other shapes.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lilliput.generate.sampling import Sampling, sample
from lilliput.generate.states import RowStates
from lilliput.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Request:
    """A text to continue."""

    prompt: Sequence[int]
    """Token ids, at least one."""
    max_new_tokens: int
    sampling: Sampling = Sampling()
    stop_token_ids: Collection[int] = ()
    """Ids that end the text."""
    seed: int = 0
    """The same seed gives the same text."""


@dataclass(kw_only=True)
class _Row:
    """A request that is being answered."""

    number: int
    request: Request
    text: Tensor
    """[1, T], prompt and what was written."""
    generator: torch.Generator = field(default_factory=torch.Generator)
    written: int = 0

    @property
    def read(self) -> int:
        """Positions that its state has seen: all but the last token."""
        return self.text.shape[1] - 1

    def choose(self, logits: Tensor) -> int:
        """Choose the next token from logits [1, V]."""
        chosen = sample(logits, self.text, self.request.sampling, self.generator)
        self.text = torch.cat((self.text, chosen[:, None]), dim=1)
        self.written += 1
        return int(chosen)

    def has_ended(self, token: int) -> bool:
        return token in self.request.stop_token_ids or self.written == self.request.max_new_tokens


class Engine:
    """Answers requests with a model, several at a time.

    Args:
        model: in evaluation; its own dtype and device are used.
        rows: requests that are answered at the same time, at most.
    """

    def __init__(self, model: LanguageModel, rows: int = 1):
        assert rows > 0, rows
        self._model, self._count = model, rows
        self._device = next(model.parameters()).device

    def stream(self, request: Request) -> Iterator[int]:
        """Yield new tokens until one that ends the text, which is yielded too, or as many as the request asks for."""
        return (token for _, token in self.generate([request]))

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
        """Yield (number of the request, new token) as tokens come, until all requests are answered."""
        waiting = deque((number, one) for number, one in enumerate(requests) if one.max_new_tokens > 0)
        rows: list[_Row | None] = [None] * min(self._count, len(waiting))
        states = RowStates(self._model, len(rows), 1)
        while waiting or any(rows):
            free = [index for index, row in enumerate(rows) if row is None][: len(waiting)]
            if free:
                for index in free:
                    rows[index] = self._begin(*waiting.popleft())
                indices, logits = free, self._read_prompts(rows, free, states)
            else:
                indices, logits = range(len(rows)), self._read_last(rows, states)
            for index, one in zip(indices, logits, strict=True):
                row = rows[index]
                if row is None:
                    continue
                token = row.choose(one[None])
                if row.has_ended(token):
                    rows[index] = None
                yield row.number, token

    def _begin(self, number: int, request: Request) -> _Row:
        text = torch.tensor([list(request.prompt)], device=self._device)
        return _Row(number=number, request=request, text=text, generator=torch.Generator().manual_seed(request.seed))

    def _read_prompts(self, rows: Sequence[_Row | None], indices: Sequence[int], states: RowStates) -> Tensor:
        """Read the prompts of some rows, padded on the right, into their states; logits after each [N, V]."""
        prompts = [row.text[0] for index in indices if (row := rows[index]) is not None]
        tokens = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
        own = RowStates(self._model, len(prompts), tokens.shape[1])
        logits = self._decode(tokens, own, [0] * len(prompts), [len(prompt) for prompt in prompts])
        states.fit(own.capacity)
        states.copy_rows(indices, own, range(len(prompts)))
        return logits

    def _read_last(self, rows: Sequence[_Row | None], states: RowStates) -> Tensor:
        """Read the last token of each row; logits after it [B, V], anything where there is no row."""
        tokens = torch.zeros(len(rows), 1, dtype=torch.long, device=self._device)
        for one, row in zip(tokens, rows, strict=True):
            if row is not None:
                one[0] = row.text[0, -1]
        positions = [0 if row is None else row.read for row in rows]
        states.fit(max(positions) + 1)
        return self._decode(tokens, states, positions, [0 if row is None else 1 for row in rows])

    @torch.inference_mode()
    def _decode(self, tokens: Tensor, states: RowStates, positions: list[int], lengths: list[int]) -> Tensor:
        """Tokens [B, L] -> logits [B, V] of the last position of each row that is no padding."""
        where, sizes = (torch.tensor(numbers, device=self._device) for numbers in (positions, lengths))
        x = self._model.decode(self._model.embed(tokens[..., None]), states.layers, where, sizes)
        last = (sizes - 1).clamp(min=0)[:, None, None].expand(-1, 1, x.shape[-1])
        return self._model.logits(x.gather(1, last))[:, 0]
