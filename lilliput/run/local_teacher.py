"""A teacher in a local folder: any model that Lilliput loads, through its own engine, many prompts at a time."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from lilliput.base.background import run_in_background
from lilliput.base.errors import LilliputError, RunError
from lilliput.base.files import sha256
from lilliput.data.replies.prompts import Prompt
from lilliput.data.replies.reply import FAILED, LENGTH, STOP, Reply, now, reply_to
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.publish.load import load
from lilliput.publish.releases import last_release
from lilliput.tokenizer.template import encode_template

ROWS = {"cpu": 8, "cuda": 64}
"""Prompts that are answered at a time, by device: what a small model's states leave room for."""


@dataclass
class _Answer:
    """A reply that is being written."""

    prompt: Prompt
    prompt_tokens: int
    began: float
    text: str = ""
    tokens: int = 0


class LocalTeacher:
    """A model that was loaded to answer.

    Args:
        folder: of a model, or of a run with a release.
        settings: `temperature`, `top_p`, `max_tokens` and `seed`.
        device: to run on.

    Raises:
        RunError: there is no model in the folder, or one without a chat template.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], device: Any):
        folder = last_release(folder) or folder
        self._loaded, self._where, self._settings = load(folder), str(folder), dict(settings)
        if self._loaded.chat_template is None:
            raise RunError(
                "the teacher has no chat template",
                where=str(folder),
                hint="give the folder of an instruction-tuned model",
            )
        self._model = self._loaded.model.to(device)
        self._rows = ROWS.get(str(device).partition(":")[0], ROWS["cpu"])
        weights = sorted(folder.glob("*.safetensors"))
        self._name = f"{folder.resolve().name}@{'+'.join(sha256(path)[:12] for path in weights)}"
        self._sampling = Sampling(temperature=settings["temperature"], top_p=settings.get("top_p", 1.0))

    def replies(self, prompts: Iterable[Prompt], stop: threading.Event) -> Iterator[Reply]:
        """Yield replies as they end; a prompt that the model cannot read gets none."""
        engine = Engine(self._model, self._rows, tokenizer=self._loaded.tokenizer, context=self._loaded.context)
        waiting, left = iter(prompts), True
        writing: dict[int, _Answer] = {}
        while (left or writing) and not stop.is_set():
            while left and len(writing) < 2 * self._rows:
                prompt = next(waiting, None)
                if prompt is None:
                    left = False
                    break
                try:
                    request = self._request(prompt)
                    number = engine.add(request)
                except LilliputError as error:
                    yield self._reply(prompt, text="", finish=FAILED, error=error.what)
                    continue
                writing[number] = _Answer(prompt, len(request.prompt), perf_counter())
            for token in engine.step() if writing else ():
                answer = writing[token.number]
                answer.text, answer.tokens = answer.text + token.text, answer.tokens + 1
                if token.ended:
                    del writing[token.number]
                    yield self._reply(
                        answer.prompt,
                        text=answer.text,
                        finish=STOP if token.ended == "stop" else LENGTH,
                        prompt_tokens=answer.prompt_tokens,
                        completion_tokens=answer.tokens,
                        seconds=round(perf_counter() - answer.began, 3),
                    )

    def _request(self, prompt: Prompt) -> Request:
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        loaded = self._loaded
        ids = run_in_background(
            encode_template,
            loaded.tokenizer,
            loaded.chat_template or "",
            messages,
            tokens=loaded.special_tokens,
            where=self._where,
        )
        return Request(
            prompt=ids,
            max_new_tokens=self._settings["max_tokens"],
            sampling=self._sampling,
            stop_token_ids=loaded.stop_ids,
            seed=self._settings["seed"] + prompt.number,
        )

    def _reply(self, prompt: Prompt, **fields: Any) -> Reply:
        return reply_to(prompt, teacher=self._name, settings=dict(self._settings), at=now(), **fields)
