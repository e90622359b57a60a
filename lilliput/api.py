"""A published model in Python: `lilliput.load(path)`, then write, stream, score or embed text.

model = lilliput.load("runs/quickstart")
model.generate("What does `json.dumps(obj)` do?")
model.score("The sky is", ["blue", "green"])
"""

import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lilliput.base.background import run_in_background
from lilliput.base.errors import LilliputError, RecipeError, RunError
from lilliput.base.run_folder import no_run
from lilliput.generate.choice import Choice, weighed
from lilliput.generate.dtypes import states_dtype, weights_dtype
from lilliput.generate.engine import Beyond
from lilliput.generate.log_likelihood import log_likelihoods
from lilliput.generate.rank import RankedDocument, rank_documents
from lilliput.generate.request import Prefix, Request
from lilliput.generate.sampling import Sampling
from lilliput.generate.writer import Writer
from lilliput.model import LanguageModel, ModelSpec
from lilliput.publish.load import LoadedModel
from lilliput.publish.load import load as load_folder
from lilliput.publish.releases import folder_named, last_release, warn_if_outdated
from lilliput.tokenizer.encoder import Encoder
from lilliput.tokenizer.native import native
from lilliput.tokenizer.template import check_text, encode_template
from lilliput.train.machine import inference_device

Message = Mapping[str, str]
"""`role` (`system`, `user`, `assistant`) and `content` of a turn."""

DELIMITER = " "
"""Between a context and a choice, as lm-evaluation-harness has it."""


class Model:
    """A published model, ready to write. Made by `load`."""

    def __init__(
        self,
        published: LoadedModel,
        folder: Path,
        device: str,
        dtype: str = "fp32",
        *,
        compile: bool = False,
        state_dtype: str | None = None,
    ):
        self._published, self.folder = published, folder
        states = states_dtype(state_dtype, where="load")
        self._model = published.model.to(device, weights_dtype(dtype, where="load"))
        about = {"compile": compile, "int8": dtype == "int8", "state_dtype": states}
        self._writer = Writer(self._model, published.tokenizer, context=published.context, **about)
        self._prefix: Prefix | None = None
        """States after the last message of a conversation, from which its next one resumes."""

    def __repr__(self) -> str:
        device = next(self._model.parameters()).device
        size = self.parameters["total"]
        return f"<Model {str(self.folder)!r}: {size:,} parameters, {self.context:,} tokens of context, on {device}>"

    @property
    def spec(self) -> ModelSpec:
        """The shape of the model."""
        return self._published.model.spec

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer it was published with."""
        return self._published.tokenizer

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers of parameters: `total`, `embedding`, `non_embedding`."""
        return self.spec.skeleton().parameter_counts()

    @property
    def chat_template(self) -> str | None:
        """Jinja; None for a base model."""
        return self._published.chat_template

    @property
    def context(self) -> int:
        """Tokens the model was trained to read at once."""
        return self._published.context

    @property
    def max_new_tokens(self) -> int:
        """Return how many tokens it writes at most, by default."""
        return self._published.generation.max_new_tokens

    def generate(self, prompt: str | Sequence[Message], **settings: Any) -> str:
        """Return what the model writes after a prompt, without the prompt: `stream` in one piece."""
        return "".join(self.stream(prompt, **settings))

    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        max_new_tokens: int | None = None,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        beyond: Beyond = "refuse",
        **sampling: Any,
    ) -> Generator[str, None, str]:
        """Yield what the model writes, piece by piece, each of whole characters.

        The next message of a conversation resumes from the states after the last one. Warns where the text, or the
        prompt of a recurrent model, does not fit the context.

        Args:
            prompt: text to go on from, empty for the beginning of a document; or a conversation, which is put into the
                model's chat template and answered.
            max_new_tokens: tokens at most; None for the release's own.
            seed: the same seed gives the same text.
            stop: strings that end the text, which is then without them.
            beyond: what happens where attention has no room for a next position: `refuse` ends the text, and refuses
                a prompt that is longer than the context; `slide` lets the model read the last part of the text alone.
                A model of recurrent layers alone continues.
            **sampling: fields of `lilliput.generate.sampling.Sampling` (greedy, temperature, top_k, top_p, min_p,
                repetition_penalty, frequency_penalty, presence_penalty) where they differ from the release's own.

        Returns:
            why it ended, as the generator's value: `stop`, `length` (`max_new_tokens`) or `context` (it was full).

        Raises:
            LilliputError: a conversation for a model without a chat template, a setting that does not exist, or a
                prompt that is too long.
            RecipeError: a setting has an impossible value.
        """
        for name, value, least in (("max_new_tokens", max_new_tokens, 0), ("seed", seed, -(2**63))):
            if value is not None and not (type(value) is int and least <= value < 2**63):
                raise RecipeError(f"{name} cannot be {value!r:.80}", where="generate", hint="give a whole number")
        if beyond not in get_args(Beyond):
            raise RecipeError(f"beyond cannot be {beyond!r:.80}", where="generate", hint="give refuse or slide")
        ids = self._prompt(prompt)
        talks = not isinstance(prompt, str)
        request = Request(
            prompt=ids,
            max_new_tokens=self.max_new_tokens if max_new_tokens is None else max_new_tokens,
            sampling=self._sampling(sampling),
            stop_token_ids=self._published.stop_ids,
            stop_strings=(stop,) if isinstance(stop, str) else stop,
            seed=seed,
            prefix=self._prefix if talks and self._prefix is not None and self._prefix.begins(ids) else None,
        )
        pieces = self._writer.stream(request, beyond, keep=self._keep if talks else None)
        if not self.spec.states_grow:
            self._warn_beyond(len(ids), "what it writes may mean little")
        elif beyond == "slide":
            self._warn_beyond(len(ids), "the first are not read")
        return pieces

    def _keep(self, prefix: Prefix) -> None:
        self._prefix = prefix

    def count_tokens(self, prompt: str | Sequence[Message]) -> int:
        """Return how many tokens the model reads for a text, or for a conversation in its chat template."""
        return len(self._prompt(prompt))

    def score(self, context: str, choices: Sequence[str], *, delimiter: str = DELIMITER) -> list[Choice]:
        """Return how likely each choice is after a context, in the order given.

        Context, delimiter and choice are encoded together, as the model read text in training; the choice's tokens are
        those after as many as the context alone has. Blanks at the end of the context count as the choice's. So does
        lm-evaluation-harness, with the same numbers. Warns where that is more than the model's context.

        Raises:
            LilliputError: there is no choice, or an empty one.
        """
        if isinstance(choices, str):
            raise LilliputError(
                "choices is one text, not a list", where="score", hint='give a list, e.g. ["list", "banana"]'
            )
        if not choices or not all(isinstance(choice, str) and choice for choice in choices):
            raise LilliputError(
                "there is nothing to score" if not choices else "a choice is empty, or not a text",
                where="the choices of score",
                hint="give at least one text that is not empty",
            )
        for text in (context, delimiter):
            check_text(text, "score")
        requests = [self._split(context, delimiter + choice) for choice in choices]
        longest = max(sum(map(len, request)) for request in requests)
        self._warn_beyond(longest - 1, "the first are not read")
        likelihoods = log_likelihoods(self._model, requests, window=self.context)
        return weighed(choices, likelihoods, [len(continuation) for _, continuation in requests])

    def rank(self, texts: Sequence[str]) -> list[RankedDocument]:
        """Documents in the order of how likely the model finds them for each of their bytes, the likeliest first.

        Raises:
            LilliputError: there is no text, or an empty one.
        """
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise LilliputError(
                "a text is empty, or no text", where="rank", hint="give a list of texts, each not empty"
            )
        encoded = [(self._ids(text), len(text.encode())) for text in texts]
        return rank_documents(self._model, encoded, window=self.context, end_id=self._published.end_id)

    @property
    def module(self) -> LanguageModel:
        """The model itself, a `torch.nn.Module`: token ids [B, T] -> logits [B, T, V]."""
        return self._model

    def logits(self, text: str | Sequence[int]) -> Tensor:
        """Return what the model expects after each token of a text, [L, V] in fp32 on the CPU.

        Warns where the text is longer than the model's context.

        Args:
            text: not empty, encoded as it stands with nothing before it; or token ids.

        Raises:
            LilliputError: the text is empty, or an id is none of the vocabulary.
        """
        ids = self._ids(text) if isinstance(text, str) else self._checked(text)
        if not ids:
            raise LilliputError("an empty text has no tokens", where="logits", hint="give a text")
        self._warn_beyond(len(ids))
        with torch.inference_mode():
            rows = self._model(torch.tensor([ids], device=next(self._model.parameters()).device))
        return rows[0].float().cpu().clone()

    def losses(self, text: str | Sequence[int]) -> Tensor:
        """Return how much each token of a text but the first surprises the model, [L - 1] nats in fp32 on the CPU.

        Args:
            text: see `logits`; of at least two tokens.
        """
        ids = self._ids(text) if isinstance(text, str) else self._checked(text)
        if len(ids) < 2:
            raise LilliputError(
                f"{len(ids)} token has no loss: the first one is never predicted",
                where="losses",
                hint="give a longer text",
            )
        return torch.nn.functional.cross_entropy(self.logits(ids)[:-1], torch.tensor(ids[1:]), reduction="none")

    def _warn_beyond(self, count: int, therefore: str = "what it says of those after them means little") -> None:
        """Warn where a text has more tokens than the model was trained to read at once."""
        if count > self.context:
            what = f"the text has {count:,} tokens, and the model was trained to read {self.context:,} at once"
            warnings.warn(f"{what}: {therefore}", stacklevel=3)

    def _checked(self, ids: Sequence[int]) -> list[int]:
        known = range(self.spec.vocab)
        if not isinstance(ids, Sequence) or not all(type(one) is int and one in known for one in ids):
            raise LilliputError(
                f"{ids!r:.80} are not token ids",
                where=str(self.folder),
                hint=f"give a text, or a list of whole numbers below {self.spec.vocab}",
            )
        return list(ids)

    def embed_tokens(self, text: str, *, layer: int = -1) -> Tensor:
        """Return what the model makes of each token of a text, [L, D] in fp32 on the CPU.

        Args:
            text: not empty; it is encoded as it stands, with nothing before it.
            layer: after how many layers: 0 is the embedding itself, -1 the last layer after the final norm.

        Raises:
            LilliputError: the text is empty, or there are not so many layers.
        """
        ids = self._ids(text)
        last = self.spec.layers
        if not ids or type(layer) is not int or not -1 <= layer <= last:
            raise LilliputError(
                "an empty text has no tokens" if not ids else f"there is no layer {layer!r:.80}",
                where="embed_tokens",
                hint=f"give a text, and a layer from 0 to {last}, or -1",
            )
        self._warn_beyond(len(ids))
        with torch.no_grad():  # what comes back is an ordinary tensor, to train a probe on, say
            x = self._model.embed(torch.tensor([ids], device=next(self._model.parameters()).device)[..., None])
            x = self._model.forward_layers(x, slice(0, last if layer == -1 else layer))
            return (self._model.norm(x) if layer == -1 else x)[0].float().cpu()

    def _ids(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """The ids of a text.

        Raises:
            LilliputError: it is no text that can be encoded.
        """
        check_text(text, str(self.folder))
        with native(str(self.folder)):
            encoder = Encoder(self.tokenizer, where=f"a text for {self.folder}")
            return run_in_background(encoder.encode, text, add_special_tokens=add_special_tokens).tolist()

    def _prompt(self, prompt: str | Sequence[Message]) -> list[int]:
        if not isinstance(prompt, Sequence):
            raise LilliputError(
                f"{prompt!r:.80} is not a prompt",
                where=str(self.folder),
                hint='give a text, or a list of {"role": "user", "content": "..."}',
            )
        ids = self._ids(prompt, add_special_tokens=True) if isinstance(prompt, str) else self._encode(prompt)
        return ids or [self._published.end_id]

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        if self.chat_template is None:
            raise LilliputError(
                "this is a base model without a chat template",
                where=str(self.folder),
                hint="give the prompt as text, or load the instruct release",
            )
        tokens, where = self._published.special_tokens, str(self.folder)
        return run_in_background(
            encode_template, self.tokenizer, self.chat_template, messages, tokens=tokens, where=where
        )

    def _sampling(self, settings: Mapping[str, Any]) -> Sampling:
        fields = Sampling.__dataclass_fields__
        if unknown := [name for name in settings if name not in fields]:
            raise LilliputError(
                f"there is no such setting: {', '.join(unknown)}",
                where="generate",
                hint=f"settings are: max_new_tokens, seed, stop, beyond, {', '.join(fields)}",
            )
        for name, value in settings.items():
            if not isinstance(value, bool if name == "greedy" else int if name == "top_k" else int | float):
                raise RecipeError(f"{name} cannot be {value!r:.80}", where="generate", hint="give a number")
        return replace(self._published.generation.sampling, **settings)

    def _split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of a context and of what goes on from it, cut where the context alone would end."""
        kept = context.rstrip()
        joined, before = self._ids(context + continuation), self._ids(kept)
        if not before:
            return [self._published.end_id], joined
        cut = min(len(before), len(joined) - 1)  # where both merge into one token, that is the choice's
        return joined[:cut] or [self._published.end_id], joined[cut:]


def load(
    path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "fp32",
    compile: bool = False,
    state_dtype: str | None = None,
) -> Model:
    """Open a published model.

    Args:
        path: the folder of a release, a run folder (its last release), or a Hugging Face folder of a Llama, a Qwen3 or
            a release of ours that was saved again; or the name of a recipe, whose run is in `runs/<name>`.
        device: `cpu`, `cuda`, `mps`, or `auto` for the best one there is.
        dtype: `fp32`, `bf16` or `fp16`: weights are cast once, and are read at each token in half the bytes; or `int8`:
            a quarter of them, read from a release's own file if it has one (`--format hf,int8`).
        compile: compile the step that writes (on a processor with g++ or clang): some fifteen seconds before the first
            token, three the next time, and two to six times as many tokens a second.
        state_dtype: `fp32`, `bf16` or `fp16`, that states are stored in; None for those of `Engine`.

    Warns where the release of a run is older than what that has trained.

    Raises:
        RunError: there is no model, or its files are damaged.
        MachineError: the device is not there.
    """
    if not isinstance(path, str | PathLike):
        raise RunError(f"{path!r:.80} is not a path", where="load", hint="give the folder of a model, or of a run")
    run = folder_named(Path(path))
    if not run.exists():
        raise no_run(run)
    folder = last_release(run) or run
    if (folder / "recipe.json").is_file():
        raise RunError(
            "the run has no release yet",
            where=str(folder),
            hint=f"`lilliput run {folder}` trains and releases; `lilliput publish {folder}` releases what is trained; "
            "`lilliput.load_trained` opens the weights without a release",
        )
    warn_if_outdated(Path(path), folder)
    device = inference_device(device)
    published = load_folder(folder, int8=dtype == "int8")
    return Model(published, folder, device, dtype, compile=compile, state_dtype=state_dtype)
