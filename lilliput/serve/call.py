"""A call of the API as requests to the engine."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lilliput.base.untrusted import shown
from lilliput.generate.request import Request
from lilliput.serve.api_error import ApiError
from lilliput.serve.fields import CHAT, COMPLETIONS, PROMPTS, read_fields
from lilliput.serve.served_model import Prompt, ServedModel

Kind = Literal["chat", "completion"]
SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
"""Fields that are settings of `Sampling` under the same name."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call: what is to be written, and in which form it is to be sent."""

    kind: Kind
    id: str
    created: int
    """Seconds since 1970."""
    model: str
    requests: Sequence[Request]
    """One for each choice: all of a prompt, then all of the next one."""
    choices_per_prompt: int
    prompt_tokens: int
    logprobs: bool = False
    stream: bool = False
    include_usage: bool = False


def chat_call(served: ServedModel, body: Any) -> Call:
    """Read the body of a call for chat completions.

    Raises:
        ApiError: it cannot be answered.
    """
    values = _values(served, CHAT, body)
    logprobs, top = values["logprobs"], values["top_logprobs"] or 0
    if top and not logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true.", param="top_logprobs", code="invalid_value")
    if values["max_completion_tokens"] is not None:
        values["max_tokens"] = values["max_completion_tokens"]
    messages = [_message(one) for one in values["messages"]]
    return _call("chat", served, values, [served.chat_prompt(messages)], logprobs, top)


def completion_call(served: ServedModel, body: Any) -> Call:
    """Read the body of a call for completions.

    Raises:
        ApiError: it cannot be answered.
    """
    values = _values(served, COMPLETIONS, body)
    given, top = values["prompt"], values["logprobs"]
    is_one = isinstance(given, str) or isinstance(given[0], int | float)
    prompts = [
        served.text_prompt(one, param) if isinstance(one, str) else served.token_prompt(one, param)
        for param, one in (
            ("prompt" if is_one else f"prompt[{n}]", one) for n, one in enumerate([given] if is_one else given)
        )
    ]
    return _call("completion", served, values, prompts, top is not None, top or 0)


def _values(served: ServedModel, fields: Any, body: Any) -> dict[str, Any]:
    values = read_fields(fields, body)
    if values["model"] not in (None, served.name):
        raise ApiError(
            404,
            f"There is no model {shown(values['model'])}; this server has {served.name}.",
            param="model",
            code="model_not_found",
        )
    if values["stream_options"] is not None and not values["stream"]:
        raise ApiError(400, "stream_options needs stream to be true.", param="stream_options", code="invalid_value")
    return values


def _message(message: Mapping[str, Any]) -> dict[str, str]:
    content = message["content"]
    if not isinstance(content, str):
        content = "".join(part["text"] for part in content)
    role = message["role"]
    return {"role": "system" if role == "developer" else role, "content": content}


def _call(
    kind: Kind, served: ServedModel, values: Mapping[str, Any], prompts: Sequence[Prompt], logprobs: bool, top: int
) -> Call:
    count, stop = values["n"], values["stop"] or ()
    if len(prompts) * count > PROMPTS:
        raise ApiError(
            400,
            f"{len(prompts)} prompts with {count} answers each are more than {PROMPTS}.",
            param="n",
            code="invalid_value",
        )
    seed = secrets.randbits(62) if values["seed"] is None else values["seed"]
    shared = Request(
        prompt=(),
        max_new_tokens=0,
        sampling=served.sampling({name: values[name] for name in SAMPLING}),
        stop_token_ids=served.published.stop_ids,
        stop_strings=(stop,) if isinstance(stop, str) else stop,
        log_probabilities=logprobs,
        top_log_probabilities=top,
    )
    requests = [
        replace(
            shared,
            prompt=prompt.tokens,
            max_new_tokens=served.most_tokens(prompt, values["max_tokens"]),
            seed=(seed + choice + 2**63) % 2**64 - 2**63,
            shared_tokens=prompt.shared,
        )
        for prompt in prompts
        for choice in range(count)
    ]
    options = values["stream_options"] or {}
    return Call(
        kind=kind,
        id=f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=served.name,
        requests=requests,
        choices_per_prompt=count,
        prompt_tokens=sum(len(prompt.tokens) for prompt in prompts),
        logprobs=logprobs,
        stream=values["stream"],
        include_usage=bool(options.get("include_usage")),
    )
