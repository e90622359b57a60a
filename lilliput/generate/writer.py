"""Texts of one model, one after the other or several at a time, with engines that are kept between them."""

from collections.abc import Callable, Generator
from typing import Any

import torch
from tokenizers import Tokenizer

from lilliput.generate.engine import Beyond, Engine
from lilliput.generate.request import Prefix, Request
from lilliput.generate.stream_text import stream_text
from lilliput.model import LanguageModel


class Writer:
    """Lends an engine to each text: what an engine copies and compiles is done once.

    Args:
        model: in evaluation; its engines are made again when its weights have changed.
        tokenizer: its tokenizer.
        context: positions that attention may read.
        compile, int8, state_dtype: as of `Engine`.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        context: int,
        compile: bool,
        int8: bool,
        state_dtype: torch.dtype | None,
    ):
        self._model = model
        self._about: dict[str, Any] = {"tokenizer": tokenizer, "context": context}
        self._about |= {"compile": compile, "int8": int8, "state_dtype": state_dtype}
        self._idle: dict[Beyond, Engine] = {}
        self._versions: list[tuple[int, int]] = []
        """Versions of the weights that the engines have copies of."""

    def stream(
        self, request: Request, beyond: Beyond, keep: Callable[[Prefix], None] | None
    ) -> Generator[str, None, str]:
        """Yield a text as `stream_text` does.

        Raises:
            LilliputError: the request cannot be answered, see `Engine.check`.
        """
        engine = self._borrowed(beyond)
        engine.check(request)
        return self._returned(engine, beyond, stream_text(engine, request, keep))

    def _borrowed(self, beyond: Beyond) -> Engine:
        versions = [(one.data_ptr(), one._version) for one in self._model.parameters()]
        if versions != self._versions:
            self._idle, self._versions = {}, versions
        if beyond in self._idle:
            return self._idle.pop(beyond)
        return Engine(self._model, beyond=beyond, **self._about)

    def _returned(self, engine: Engine, beyond: Beyond, pieces: Generator[str, None, str]) -> Generator[str, None, str]:
        versions = self._versions
        try:
            return (yield from pieces)
        finally:
            pieces.close()
            if versions is self._versions:
                self._idle[beyond] = engine
