"""lm-evaluation-harness's interface to a model, served by Lilliput's own forward pass and engine.

The harness makes the requests and judges the answers; texts are encoded, cut and scored as by its Hugging Face model.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lilliput.base.errors import DataError
from lilliput.evals.native_model import Native
from lilliput.evals.progress import Progress, Watcher
from lilliput.evals.request_tokens import Ids, RequestTokenizer
from lilliput.evals.suites import TaskUse
from lilliput.generate.engine import Engine
from lilliput.generate.log_likelihood import Likelihood, score
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling

MAX_NEW_TOKENS = 256
"""Length of a text that a task asks for without saying how long; the harness's own default."""
ROWS = {"cpu": 8, "cuda": 64}
"""Texts that are written at a time, by device."""


class LilliputModel(LM):
    """Log-likelihoods and texts of a model, one task after the other.

    Args:
        model: loaded; it is moved to the device.
        device: as torch names it.
        dtype: of the weights; logits and softmax are always in float32.
        batch_size: rows of a forward pass at most; None for as many as memory is meant to hold.
        watcher: called after every batch; None for no reports.
    """

    def __init__(self, model: Native, *, device: str, dtype: str, batch_size: int | None, watcher: Watcher | None):
        super().__init__()
        self._native, self._most_rows, self._watcher = model, batch_size, watcher
        self._tokenizer = RequestTokenizer(model)
        self._model = model.model.to(device=device, dtype=getattr(torch, dtype))
        self._device = torch.device(device)

    def begin(self, use: TaskUse) -> None:
        """Requests from now on are those of a task."""
        self._use, self._start = use, time.monotonic()

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods of choices after their contexts, and whether greedy decoding finds them."""
        encoded = self._tokenizer.pairs([request.args for request in requests], self._use.likelihood)
        found: list[tuple[float, bool]] = []
        for (_, choice), one in zip(encoded, self._score(encoded), strict=True):
            per_token = self._use.likelihood == "apart, per token"
            found.append((one.total / len(choice) if per_token else one.total, one.is_greedy))
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Summed log-likelihoods of whole texts, in windows that share no token."""
        texts = [request.args[0] for request in requests]
        # A text is led by the prefix token; a second beginning, from the tokenizer, would count as text.
        encoded = self._tokenizer.encode(texts, add_special_tokens=False)
        windows: list[tuple[Ids, Ids]] = []
        owners: list[int] = []
        for owner, text in enumerate(texts):
            cut = get_rolling_token_windows(
                token_list=list(encoded[text]),
                prefix_token=self._tokenizer.prefix_id,
                max_seq_len=self._native.context,
                context_len=1,
            )
            for window in map(make_disjoint_window, cut):
                windows.append(window)
                owners.append(owner)
        totals = [0.0] * len(texts)
        for owner, one in zip(owners, self._score(windows), strict=True):
            totals[owner] += one.total
        return totals

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Texts that continue contexts until a stop string, or the end of a document."""
        contexts = self._tokenizer.encode(request.args[0] for request in requests)
        asked, stops = [], []
        for context, settings in (request.args for request in requests):
            plain: Any = normalize_gen_kwargs(settings, MAX_NEW_TOKENS)
            end = self._tokenizer.text_of(self._native.stop_ids[0]) if self._native.stop_ids else None
            stops.append(handle_stop_sequences(plain["until"], eos=end))
            room = self._native.context - plain["max_gen_toks"]
            if room < 1:
                raise DataError(
                    f"texts of {plain['max_gen_toks']:,} tokens leave no room for their contexts in "
                    f"{self._native.context:,}",
                    where=f"task {self._use.display!r}",
                    hint="leave the task out (--tasks), or give a model with a longer window",
                )
            asked.append(
                Request(
                    prompt=list(contexts[context])[-room:] or [self._tokenizer.prefix_id],
                    max_new_tokens=plain["max_gen_toks"],
                    sampling=self._sampling(plain),
                    stop_token_ids=self._native.stop_ids,
                    stop_strings=[stop for stop in stops[-1] if stop],
                )
            )
        engine = Engine(
            self._model,
            self._most_rows or ROWS.get(self._device.type, ROWS["cpu"]),
            tokenizer=self._native.tokenizer,
            context=self._native.context,
        )
        written: list[list[int]] = [[] for _ in asked]
        ended = 0
        for index, token in engine.tokens(asked):
            written[index].append(token.token)
            if token.ended:
                ended += 1
                self._tell(ended, len(asked))
        texts = (self._tokenizer.decode(ids) for ids in written)
        return [
            postprocess_generated_text(text, stop=stop, think_end_token=None)
            for text, stop in zip(texts, stops, strict=True)
        ]

    def _sampling(self, settings: dict[str, Any]) -> Sampling:
        names = ("top_k", "top_p", "min_p", "repetition_penalty")
        given: dict[str, Any] = {"repetition_penalty": self._native.repetition_penalty}
        given |= {name: settings[name] for name in names if settings.get(name) is not None}
        return Sampling(greedy=not settings["do_sample"], temperature=settings.get("temperature", 1.0), **given)

    def _score(self, requests: Sequence[tuple[Ids, Ids]]) -> list[Likelihood]:
        """Log-likelihoods of encoded continuations, none of which may be cut."""
        if not all(len(continuation) for _, continuation in requests):
            raise DataError(
                "a choice has no tokens",
                where=f"task {self._use.display!r}",
                hint="leave the task out (--tasks), or give each choice a text",
            )
        longest = max((len(continuation) for _, continuation in requests), default=0)
        if longest > self._native.context:
            raise DataError(
                f"a choice has {longest:,} tokens, the model's window {self._native.context:,}",
                where=f"task {self._use.display!r}",
                hint="leave the task out (--tasks), or give a model with a longer window",
            )
        return score(
            self._model,
            requests,
            window=self._native.context,
            most_rows=self._most_rows,
            watcher=self._tell,
        )

    def _tell(self, done: int, total: int) -> None:
        if self._watcher is not None:
            seconds = time.monotonic() - self._start
            self._watcher(Progress(task=self._use.display, rows=done, total=total, seconds=seconds))
