"""Decoding: rows of a batch, each at its own place in its own text, one token a step.

A request joins as soon as a row is free, and leaves when its text ends. Its prompt is read in chunks, a few tokens
each step, so that a long one does not keep the others waiting. What a request gets depends on it and its seed alone,
but for the rounding of products of other shapes. A step transfers one small tensor to the host, and nothing to the
device while the rows stay the same. Then the next step is launched before the host has the tokens of this one, so that
a GPU does not wait for the host's part, 0.1 ms for one row and up to 0.3 ms for 64 of OdinNext-138M's 1.35.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lilliput.base.errors import LilliputError
from lilliput.generate.decode_step import CapturedDecodeStep, DecodeStep
from lilliput.generate.prefix_cache import PrefixCache
from lilliput.generate.request import Prefix, Request, Token
from lilliput.generate.row import Row
from lilliput.generate.sampler import Sampler, Transfer
from lilliput.generate.states import SLOTS, RowStates
from lilliput.model import LanguageModel
from lilliput.nn.decoding_copy import decoding_copy

Beyond = Literal["refuse", "slide"]
"""Treatment of a text for whose next position attention has no room: it ends there, and a longer prompt is refused; or
its last part is read again as if it were all of it."""


class Launched(NamedTuple):
    """A step whose tokens are on their way to the host."""

    rows: list[tuple[int, Row]]
    """Rows that a token was chosen for, with their places in the batch."""
    chosen: Transfer


class Engine:
    """Answers requests with a model, several at a time.

    Args:
        model: in evaluation; its own dtype and device are used.
        rows: requests that are answered at the same time, at most.
        tokenizer: makes text of tokens; None for tokens alone.
        context: positions that a row may have where states grow with them, as keys and values do; None for any number.
            A model of recurrent layers alone has no such limit.
        beyond: one of `Beyond`.
        prefill_tokens: of prompts that are read in one step, padding included, at most.
        compile: compile the step that writes, some fifteen seconds before the first token; worth it for many.
        int8: round weights to 8 bits.
        state_dtype: torch.float16, bfloat16 or float32, that all states are stored in, keys and values too; arithmetic
            stays as it is. None: recurrent states in fp32, keys and values in fp32 or, on CUDA, as the weights.
        cache_bytes: of states after prompts and texts that are kept for requests which begin with them; 0 keeps none.
        run_ahead: launch the next step before this one's tokens are known, where no row can leave by its length; a text
            that ends otherwise has been read to its last token then. None: on CUDA.
    """

    def __init__(
        self,
        model: LanguageModel,
        rows: int = 1,
        *,
        tokenizer: Tokenizer | None = None,
        context: int | None = None,
        beyond: Beyond = "refuse",
        prefill_tokens: int = 512,
        compile: bool = False,
        int8: bool = False,
        state_dtype: torch.dtype | None = None,
        cache_bytes: int = 0,
        run_ahead: bool | None = None,
    ):
        assert rows > 0 and prefill_tokens > 0 and (context is None or context > 0), (rows, prefill_tokens, context)
        self._model, self._tokenizer = decoding_copy(model, int8=int8), tokenizer
        self._states_grow = model.spec.states_grow
        self._context = context if self._states_grow else None
        self._slides, self._budget, self._keeps = beyond == "slide", prefill_tokens, cache_bytes > 0
        self._device = next(model.parameters()).device
        self._rows: list[Row | None] = [None] * rows
        self._waiting: deque[Row] = deque()
        self._added = 0
        self._states = RowStates(self._model, rows, 1, state_dtype)
        self.cache = PrefixCache(cache_bytes, can_be_cut=self._states.can_be_cut)
        step = DecodeStep(self._model, compile=compile)
        captures = self._device.type == "cuda" and not any(layer.host_sync for layer in self._model.layers)
        self._step = CapturedDecodeStep(step) if captures else step
        self._runs_ahead = self._device.type == "cuda" if run_ahead is None else run_ahead
        self._launched: Launched | None = None
        self._sampler = Sampler(rows, model.spec.vocab, self._device)
        with torch.inference_mode():
            self._positions = torch.zeros(rows, dtype=torch.int64, device=self._device)
            self._last = torch.zeros(rows, dtype=torch.int64, device=self._device)
            self._lengths = torch.zeros(rows, dtype=torch.int64, device=self._device)
        self._writing: list[int] = []
        self._masks: dict[tuple[int, ...], Tensor] = {}

    def add(self, request: Request) -> int:
        """Let a request join as soon as there is a free row, and return its number; see `check` for what it raises."""
        self.check(request)
        assert request.max_new_tokens > 0, request
        self._added += 1
        self._waiting.append(Row(self._added, request, self._tokenizer, self._context))
        return self._added

    def check(self, request: Request) -> None:
        """Refuse a request that cannot be answered.

        Raises:
            LilliputError: its prompt is longer than the context, or does not continue its prefix; or there are stop
                strings, and no tokenizer.
        """
        assert request.prompt, request
        if request.prefix is not None and not request.prefix.begins(request.prompt):
            raise LilliputError(
                f"the prompt does not continue the {len(request.prefix.tokens):,} tokens of its prefix",
                where="the request",
                hint="give a prompt that begins with the prefix's tokens and has more, or no prefix",
            )
        if request.stop_strings and self._tokenizer is None:
            raise LilliputError(
                "stop strings need the text of tokens", where="the request", hint="give the engine a tokenizer"
            )
        self._check_length(len(request.prompt))

    @torch.inference_mode()
    def cancel(self, number: int) -> None:
        """Let a request leave, wherever it is."""
        self._waiting = deque(row for row in self._waiting if row.number != number)
        for index, row in enumerate(self._rows):
            if row is not None and row.number == number:
                self._leave(index)

    @property
    def is_idle(self) -> bool:
        """Return whether there is nothing left to do."""
        return not self._waiting and all(row is None or row.ended for row in self._rows)

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """Read one position of each row that is writing, and a chunk of prompts; return the tokens that were chosen."""
        launched, self._launched = self._launched, None
        if launched is None or not any(self._is_alive(*one) for one in launched.rows):
            launched = self._launch()
        if launched is None:
            return []
        none_joins = not self._waiting or None not in self._rows
        if self._runs_ahead and none_joins and all(row is None or row.can_run_ahead for row in self._rows):
            self._launched = self._launch()
        return self._written(launched)

    def _launch(self) -> Launched | None:
        """Let rows leave and join, read, and choose tokens; None where there is nothing to choose."""
        for index, row in enumerate(self._rows):
            if row is not None and row.ended:
                self._leave(index)
        self._join()
        writing = [index for index, row in enumerate(self._rows) if row is not None and row.is_writing]
        logits = self._read_last(writing) if writing else None
        begun, after = self._read_prompts()
        choosing = sorted((*writing, *begun))
        if not choosing:
            return None
        if after is not None:
            whole = after.new_zeros(max(choosing[-1] + 1, 0 if logits is None else len(logits)), after.shape[-1])
            if logits is not None:
                whole[: len(logits)] = logits
            whole[begun] = after
            logits = whole
        assert logits is not None
        mask = self._mask(choosing, len(logits))
        chosen = self._sampler.choose(logits, choosing, mask)
        torch.mul(chosen.tokens, mask, out=self._last[: len(logits)])
        return Launched([(index, self._row(index)) for index in choosing], Transfer(chosen))

    def _is_alive(self, index: int, row: Row) -> bool:
        """Return whether a row is still written: it may have ended, or left, since a step was launched."""
        return self._rows[index] is row and not row.ended

    def stream(self, request: Request) -> Iterator[int]:
        """Yield new tokens until one that ends the text, which is yielded too, or as many as the request asks for."""
        return (token for _, token in self.generate([request]))

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
        """Yield (index of the request, new token) as tokens come, until all requests are answered."""
        for index, token in self.tokens(requests):
            yield index, token.token

    def tokens(self, requests: Sequence[Request]) -> Iterator[tuple[int, Token]]:
        """Yield (index of the request, what was written) as tokens come, until all requests are answered.

        The engine has no other requests meanwhile: their tokens would be lost.
        """
        indices = {self.add(one): index for index, one in enumerate(requests) if one.max_new_tokens > 0}
        left = set(indices)
        try:
            while left:
                for token in self.step():
                    if token.ended:
                        left.discard(token.number)
                    if token.number in indices:
                        yield indices[token.number], token
        finally:
            for number in left:
                self.cancel(number)

    @torch.inference_mode()
    def read(self, tokens: Sequence[int]) -> Prefix:
        """Read the beginning of texts once, for requests that have it in common."""
        self._check_length(len(tokens))
        states, logits = self._states.empty(1, len(tokens)), None
        for start in range(0, len(tokens), self._budget):
            chunk = torch.tensor([list(tokens[start : start + self._budget])], device=self._device)
            logits = self._decode(chunk, states, [start], [chunk.shape[1]])
        assert logits is not None, "no tokens"
        last = self._model.logits(logits[:, -1:])[0, 0]
        return Prefix(tokens=list(tokens), states=states.row(0, len(tokens)), logits=last)

    @torch.inference_mode()
    def save(self, number: int) -> Prefix:
        """Return what a request's row has read so far: all but its last token. One that ended is there until the next
        step.
        """
        for index, row in enumerate(self._rows):
            if row is not None and row.number == number:
                return self._prefix(index)
        raise LilliputError(
            f"request {number} has no states", where="Engine.save", hint="save while it is written, or when it ended"
        )

    def _prefix(self, index: int) -> Prefix:
        row = self._row(index)
        logits = None if row.logits is None else row.logits.clone()
        return Prefix(tokens=row.read_tokens, states=self._states.row(index, row.read), logits=logits)

    def _check_length(self, tokens: int) -> None:
        if self._context is not None and tokens > self._context and not self._slides:
            raise LilliputError(
                f"the prompt has {tokens:,} tokens, and the model's attention reads {self._context:,} at once",
                where="the prompt",
                hint='give a shorter one, or let the model read the last ones alone: beyond="slide"',
            )

    def _join(self) -> None:
        """Give free rows to those that wait."""
        for index, row in enumerate(self._rows):
            if row is None and (joined := self._next()):
                self._rows[index], request = joined, joined.request
                if self._states_grow:
                    room = joined.unread + min(request.max_new_tokens, 8 * SLOTS)
                    self._states.fit(room if self._context is None else min(room, self._context))
                likelihoods = request.log_probabilities, request.top_log_probabilities
                self._sampler.begin(index, request.sampling, request.seed, request.prompt, *likelihoods)
                if joined.is_whole:
                    self._resume(index, joined)
                self._positions[index] = joined.read

    def _next(self) -> Row | None:
        """Take the next row that waits; one with the very prompt of a row that reads waits for the states after it."""
        rows = self._rows if self._keeps and self._waiting else ()
        read = {id(row.request.prompt) for row in rows if row is not None and row.is_reading}
        for place, row in enumerate(self._waiting):
            if id(row.request.prompt) not in read:
                del self._waiting[place]
                return row
        return None

    def _resume(self, index: int, row: Row) -> None:
        """Give a row the states after the beginning of its prompt, where there are any."""
        prefix = row.request.prefix
        if prefix is not None:
            self._states.load_row(index, prefix.states)
            row.read, row.logits = len(prefix.tokens), prefix.logits
        elif found := self.cache.find(row.tokens):
            prefix, row.read = found
            self._states.load_row(index, prefix.states, row.read)
            row.cached_tokens = row.read
            row.logits = prefix.logits if row.read == len(prefix.tokens) else None

    def _keep(self, index: int) -> None:
        """Keep what a row has read in the cache, unless its window slid."""
        row = self._row(index)
        if self._keeps and row.is_whole and row.read_tokens not in self.cache:
            self.cache.add(self._prefix(index))

    def _leave(self, index: int) -> None:
        self._rows[index] = None
        self._positions[index] = 0
        self._sampler.end(index)

    def _read_last(self, writing: Sequence[int]) -> Tensor:
        """Read the last token of some rows; logits after each row up to the last of them [B, V]."""
        count = min(len(self._rows), 1 << writing[-1].bit_length())  # few shapes: each is compiled and captured
        if self._writing != writing:
            self._writing = list(writing)
            self._lengths.copy_(self._mask(writing, len(self._rows)))
        # Rows that read a prompt are padding here, and what padding writes must not lie among what they have read.
        reach = max(row.read for row in self._rows[:count] if row is not None) + 1
        if self._states_grow:
            self._states.fit(reach)
        for index in writing:
            row = self._row(index)
            row.read, row.logits = row.read + 1, None
        return self._step(self._last[:count], self._states, reach, self._positions[:count], self._lengths[:count])

    def _read_prompts(self) -> tuple[list[int], Tensor | None]:
        """Read chunks of prompts, padded on the right; rows that have read all of theirs, and logits after them."""
        chunks: dict[int, list[int]] = {}
        known: dict[int, Tensor] = {}
        waiting = [(row.number, index) for index, row in enumerate(self._rows) if row is not None and row.is_reading]
        longest = 0
        for _, index in sorted(waiting):
            row = self._row(index)
            if not row.unread:
                assert row.logits is not None
                known[index] = row.logits
                continue
            size = min(self._unread(row), self._budget)
            if chunks and (len(chunks) + 1) * max(longest, size) > self._budget:
                break
            chunks[index], longest = row.next_tokens(size), max(longest, size)
        if chunks:
            known |= self._read_chunks(chunks)
            for index in chunks:
                row = self._row(index)
                row.logits = known.get(index)
                if not row.unread or row.read == row.request.shared_tokens:
                    self._keep(index)
        if not known:
            return [], None
        return list(known), torch.stack(list(known.values()))

    def _unread(self, row: Row) -> int:
        """Return how many tokens to read before the next place at which states are kept."""
        shared = row.request.shared_tokens
        is_kept = self._keeps and not self.cache.can_be_cut and row.is_whole and row.read < shared
        return shared - row.read if is_kept else row.unread

    def _read_chunks(self, chunks: dict[int, list[int]]) -> dict[int, Tensor]:
        """Read chunks of some rows' prompts into their states; logits after those that were the last ones."""
        indices, lengths = list(chunks), [len(chunk) for chunk in chunks.values()]
        tokens = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(chunk) for chunk in chunks.values()], batch_first=True
        ).to(self._device)
        positions = [self._row(index).read for index in indices]
        own = self._states.empty(len(indices), max(positions) + max(lengths))
        if begun := [place for place, position in enumerate(positions) if position]:
            own.copy_rows(begun, self._states, [indices[place] for place in begun])
        x = self._decode(tokens, own, positions, lengths)
        if self._states_grow:
            self._states.fit(max(position + length for position, length in zip(positions, lengths, strict=True)))
        self._states.copy_rows(indices, own, range(len(indices)))
        last = {}
        for place, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            row = self._row(index)
            row.read += length
            self._positions[index] = row.read
            if not row.unread:
                last[index] = x[place, length - 1]
        if not last:
            return {}
        logits = self._model.logits(torch.stack(list(last.values()))[:, None])[:, 0]
        return dict(zip(last, logits, strict=True))

    def _decode(self, tokens: Tensor, states: RowStates, positions: list[int], lengths: list[int]) -> Tensor:
        where, sizes = (torch.tensor(numbers, device=self._device) for numbers in (positions, lengths))
        return self._model.decode(self._model.embed(tokens[..., None]), states.layers, where, sizes)

    def _written(self, launched: Launched) -> list[Token]:
        """Add the tokens of a step to the texts of its rows."""
        written = []
        found = launched.chosen.rows([index for index, _ in launched.rows])
        for (index, row), (token, score, top) in zip(launched.rows, found, strict=True):
            if not self._is_alive(index, row):
                continue
            written.append(row.write(token, score, top[: row.request.top_log_probabilities], slides=self._slides))
            if row.ended:
                self._keep(index)
            if row.read == 0:  # the window slid
                self._positions[index] = 0
        return written

    def _mask(self, rows: Sequence[int], count: int) -> Tensor:
        """1 at some rows of the first `count`, [count] int64; kept while they stay the same."""
        key = (count, *rows)
        if key not in self._masks:
            mask = torch.zeros(count, dtype=torch.int64)
            mask[list(rows)] = 1
            if len(self._masks) >= 2:
                self._masks = {}
            self._masks[key] = mask.to(self._device)
        return self._masks[key]

    def _row(self, index: int) -> Row:
        row = self._rows[index]
        assert row is not None
        return row
