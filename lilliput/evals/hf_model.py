"""lm-evaluation-harness's Hugging Face model, for architectures that only transformers has, and to compare with.

It has what the harness's settings lack: ArithMark's encoding and progress.
"""

import time
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer

from lilliput.base.errors import DataError
from lilliput.evals.progress import Progress, Watcher
from lilliput.evals.suites import TaskUse
from lilliput.tokenizer.bpe import END
from lilliput.tokenizer.encoder import PIECE, Encoder

_HFLM: Any = HFLM  # its decorator hides it from type checkers


def _encoder(tokenizer: Any) -> Encoder | None:
    """Encodes as a tokenizer of transformers does; None where it is no library of native code that it calls."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return Encoder(copy, where="a text to evaluate")


class HFModel(_HFLM):
    """Log-likelihoods of a model, one task after the other.

    Args:
        folder: config, weights, tokenizer, and the model's own code where it has any.
        device: as torch names it.
        dtype: of the weights; softmax is always in float32.
        batch_size: rows of a forward pass.
        trust_remote_code: whether transformers may run the folder's own code.
        watcher: called after every forward pass; None for no reports.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        dtype: str,
        batch_size: int,
        trust_remote_code: bool,
        watcher: Watcher | None,
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        super().__init__(
            pretrained=str(folder),
            tokenizer=tokenizer,
            backend="causal",
            device=device,
            dtype=dtype,
            softmax_dtype="float32",
            batch_size=batch_size,
            trust_remote_code=trust_remote_code,
            # What the first token of a document is predicted from; tokenizers without it fall back on BOS or EOS.
            prefix_token_id=tokenizer.get_vocab().get(END),
        )
        self._encoder = _encoder(tokenizer)
        self._watcher = watcher

    def begin(self, use: TaskUse) -> None:
        """Requests from now on are those of a task."""
        self._use, self._rows, self._total, self._start = use, 0, 0, time.monotonic()

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Summed log-likelihoods of whole texts, in windows that share no token."""
        # A text is led by the prefix token; a second beginning, from the tokenizer, would count as text.
        beginning, self.add_bos_token = self.add_bos_token, False
        self._total = sum(-(-len(self.tok_encode(request.args[0])) // self.max_length) for request in requests)
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        finally:
            self.add_bos_token = beginning

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Log-likelihoods of choices after their contexts, and whether greedy decoding finds them."""
        self._total = len(requests)
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **settings: Any) -> list[int]:
        """The ids of a text: in pieces if it is long, for transformers takes 150 bytes of memory for each of its bytes.

        How transformers encodes its beginning, decides whether ours are its ids.
        """
        head = string[:PIECE]
        ids = super().tok_encode(head, add_special_tokens, **settings)
        encoder = self._encoder
        if head == string:
            return ids
        for added in (False, True):
            if encoder is not None and ids == encoder.encode(head, add_special_tokens=added).tolist():
                return encoder.encode(string, add_special_tokens=added).tolist()
        return super().tok_encode(string, add_special_tokens, **settings)

    def _encode_pair(self, context: str, continuation: str) -> Any:
        if self._use.likelihood == "joined":
            return super()._encode_pair(context, continuation)
        return tuple(self.tok_encode(text, add_special_tokens=False) for text in (context, continuation))

    def _loglikelihood_tokens(self, requests: Any, **settings: Any) -> Any:
        """Called once with all choices of a task, or with a batch of windows of texts after the other."""
        longest = max(len(tokens) for _, _, tokens in requests)
        if longest > self.max_length:
            raise DataError(
                f"a choice has {longest:,} tokens, the model's window {self.max_length:,}",
                where=f"task {self._use.display!r}",
                hint="leave the task out (--tasks), or give a model with a longer window",
            )
        # Requests that differ in their last token alone share a row.
        self._total -= len(requests) - len({tuple(context + tokens[:-1]) for _, context, tokens in requests})
        answers = super()._loglikelihood_tokens(requests, **settings)
        if self._use.likelihood != "apart, per token":
            return answers
        pairs = zip(answers, requests, strict=True)
        return [(total / len(tokens), greedy) for (total, greedy), (_, _, tokens) in pairs]

    def _model_call(self, inps: Tensor, **inputs: Any) -> Tensor:
        logits = super()._model_call(inps, **inputs)
        self._rows += len(inps)
        if self._watcher is not None:
            seconds = time.monotonic() - self._start
            self._watcher(Progress(task=self._use.display, rows=self._rows, total=self._total, seconds=seconds))
        return logits
