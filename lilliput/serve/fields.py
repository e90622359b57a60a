"""The fields of a request, in one table: it checks requests, and `/openapi.json` is made of it."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lilliput.base.untrusted import shown
from lilliput.serve.api_error import ApiError
from lilliput.serve.json_schema import Schema, check

SEED = 2**63
"""Seeds are whole numbers of 64 bits."""
MOST_TOKENS = 2**31 - 1
CHOICES = 128
TOP_LOGPROBS = 20
STOPS = 16
PROMPTS = 2048


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a request."""

    name: str
    schema: Schema
    """Values besides null, which stands for a field that is left out."""
    about: str
    default: Any = None
    is_required: bool = False
    is_refused: bool = False
    """True for a field of OpenAI's API that changes answers there in a way that has no equivalent here: the schema
    allows only values that change nothing."""

    @property
    def published_schema(self) -> dict[str, Any]:
        """The schema as `/openapi.json` has it."""
        schema: dict[str, Any] = dict(self.schema) if self.is_required else {"anyOf": [self.schema, {"type": "null"}]}
        default = {} if self.default is None else {"default": self.default}
        return schema | default | {"description": self.about}


def _number(name: str, about: str, **bounds: float) -> Field:
    return Field(name=name, about=about, schema={"type": "number", **bounds})


def _whole(name: str, about: str, **bounds: int) -> Field:
    return Field(name=name, about=about, schema={"type": "integer", **bounds})


def _refused(name: str, *allowed: Any) -> Field:
    about = "Not supported; only values that change nothing are taken."
    return Field(name=name, about=about, schema={"enum": [*allowed]}, is_refused=True)


def _ignored(name: str, **schema: Any) -> Field:
    return Field(name=name, about="Taken and not used.", schema=schema)


TEXT = {"type": "string"}
STOP = {"type": "string", "minLength": 1, "maxLength": 1000}
IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": MOST_TOKENS}}
SHARED: tuple[Field, ...] = (
    Field(name="model", schema=TEXT, about="Name of the model; it can be left out, as the server has one."),
    _number("temperature", "Above 1 bolder, below 1 safer; 0 takes the likeliest token.", minimum=0, maximum=100),
    _number("top_p", "Choose among the likeliest tokens that reach this probability.", exclusiveMinimum=0, maximum=1),
    _whole("top_k", "Choose among this many likeliest tokens; 0 for all.", minimum=0, maximum=MOST_TOKENS),
    _number("min_p", "Choose among tokens at least this many times as likely as the likeliest.", minimum=0, maximum=1),
    _number(
        "repetition_penalty", "Above 1, tokens that occurred already become less likely.", minimum=0.01, maximum=100
    ),
    _number(
        "frequency_penalty", "Subtracted from a logit for each time that its token was written.", minimum=-2, maximum=2
    ),
    _number("presence_penalty", "Subtracted from the logit of a token that was written.", minimum=-2, maximum=2),
    _whole("seed", "The same seed and the same request give the same text.", minimum=-SEED, maximum=SEED - 1),
    Field(
        name="n",
        schema={"type": "integer", "minimum": 1, "maximum": CHOICES},
        about="Answers to the same prompt.",
        default=1,
    ),
    Field(
        name="stop",
        schema={"anyOf": [STOP, {"type": "array", "maxItems": STOPS, "items": STOP}]},
        about="Texts that end an answer, which is then without them.",
    ),
    Field(name="stream", schema={"type": "boolean"}, about="Send the answer piece by piece, as events.", default=False),
    Field(
        name="stream_options",
        schema={
            "type": "object",
            "properties": {
                "include_usage": {"type": ["boolean", "null"]},
                "include_obfuscation": {"type": ["boolean", "null"]},
            },
            "additionalProperties": False,
        },
        about="`include_usage` adds an event with the counts of tokens.",
    ),
    _whole(
        "max_tokens", "Tokens to write at most; the release's own number by default.", minimum=1, maximum=MOST_TOKENS
    ),
    _ignored("user", type="string"),
    _refused("logit_bias", {}),
)
CHAT: tuple[Field, ...] = (
    Field(
        name="messages",
        schema={
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string", "maxLength": 100},
                    "content": {
                        "anyOf": [
                            TEXT,
                            {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {"type": {"enum": ["text"]}, "text": TEXT},
                                    "required": ["type", "text"],
                                    "additionalProperties": False,
                                },
                            },
                        ]
                    },
                    "name": {"type": ["string", "null"]},
                    # What an answer has besides, which clients send back.
                    **{name: {"enum": [None, []]} for name in ("refusal", "annotations", "audio", "tool_calls")},
                    "function_call": {"type": "null"},
                },
                "required": ["role", "content"],
                "additionalProperties": False,
            },
        },
        about="The conversation, which the model's chat template is given.",
        is_required=True,
    ),
    *SHARED,
    _whole("max_completion_tokens", "The same as `max_tokens`.", minimum=1, maximum=MOST_TOKENS),
    Field(name="logprobs", schema={"type": "boolean"}, about="Log-probabilities of the tokens written.", default=False),
    _whole("top_logprobs", "Likeliest tokens to tell at each place.", minimum=0, maximum=TOP_LOGPROBS),
    _ignored("metadata", type="object"),
    _ignored("parallel_tool_calls", type="boolean"),
    _ignored("prompt_cache_key", type="string"),
    _ignored("safety_identifier", type="string"),
    _refused("store", False),
    _refused("service_tier", "auto", "default"),
    _refused("modalities", ["text"]),
    _refused("response_format", {"type": "text"}),
    _refused("tools", []),
    _refused("tool_choice", "none", "auto"),
    _refused("functions", []),
    _refused("function_call", "none", "auto"),
    _refused("audio"),
    _refused("prediction"),
    _refused("reasoning_effort", "none"),
    _refused("verbosity"),
    _refused("web_search_options"),
)
COMPLETIONS: tuple[Field, ...] = (
    Field(
        name="prompt",
        schema={
            "anyOf": [
                TEXT,
                {"type": "array", "minItems": 1, "maxItems": PROMPTS, "items": TEXT},
                IDS,
                {"type": "array", "minItems": 1, "maxItems": PROMPTS, "items": IDS},
            ]
        },
        about="What to continue: a text, token ids, or a list of either. An empty text is the beginning of a document.",
        is_required=True,
    ),
    *SHARED,
    _whole(
        "logprobs",
        "Log-probabilities of the tokens written, and of so many likeliest.",
        minimum=0,
        maximum=TOP_LOGPROBS,
    ),
    _refused("echo", False),
    _refused("suffix", ""),
    _refused("best_of", 1),
)


def read_fields(fields: Sequence[Field], body: Any) -> dict[str, Any]:
    """Return the values of all fields of a request; the default of one that is left out or null.

    Raises:
        ApiError: a value is not allowed, or there is a field that the table does not have.
    """
    if not isinstance(body, dict):
        raise ApiError(400, f"The body is {shown(body)}; give a JSON object.", code="invalid_body")
    known = {field.name: field for field in fields}
    for name in body:
        if name not in known:
            near = difflib.get_close_matches(name[:100], known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(known)}."
            raise ApiError(400, f"There is no field {shown(name)}; {hint}", param=name[:200], code="unknown_parameter")
    return {field.name: _value(field, body) for field in fields}


def _value(field: Field, body: Mapping[str, Any]) -> Any:
    value = body.get(field.name)
    if value is None:
        if field.is_required:
            raise ApiError(400, f"{field.name} is missing.", param=field.name, code="missing_required_parameter")
        return field.default
    if field.is_refused and value not in field.schema["enum"]:
        raise ApiError(
            400,
            f"{field.name} is not supported by this server; leave it out.",
            param=field.name,
            code="unsupported_parameter",
        )
    check(value, field.schema, field.name)
    return int(value) if field.schema.get("type") == "integer" else value  # 5.0 is a whole number of JSON
