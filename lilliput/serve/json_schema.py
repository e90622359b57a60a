"""The part of JSON Schema that the tables of fields are written in, checked with messages that name the field.

The words are `type`, `enum`, `anyOf`, `minimum`, `maximum`, `exclusiveMinimum`, `minLength`, `maxLength`, `minItems`,
`maxItems`, `items`, `properties`, `required` and `additionalProperties`. Others, such as `description`, check nothing.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from lilliput.base.untrusted import shown
from lilliput.serve.api_error import ApiError

Schema = Mapping[str, Any]

IS_TYPE: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": lambda value: _is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
NAMES = {"null": "null", "boolean": "true or false", "integer": "a whole number", "number": "a number"}
NAMES |= {"string": "a text", "array": "a list", "object": "an object"}


def check(value: Any, schema: Schema, path: str) -> None:
    """Refuse a value that a schema does not allow.

    Args:
        value: as JSON has it.
        schema: in the words above.
        path: of the value in the body, for the message.

    Raises:
        ApiError: it is not allowed.
    """
    if "anyOf" in schema:
        _check_any(value, schema["anyOf"], path)
    kinds = _kinds(schema)
    if kinds and not any(IS_TYPE[kind](value) for kind in kinds):
        raise _wrong(value, schema, path)
    if "enum" in schema and not any(type(one) is type(value) and one == value for one in schema["enum"]):
        raise _wrong(value, schema, path)
    if _is_number(value) and not _is_within(value, schema):
        raise _wrong(value, schema, path)
    if isinstance(value, str | list):
        unit = "Length" if isinstance(value, str) else "Items"
        if not schema.get(f"min{unit}", 0) <= len(value) <= schema.get(f"max{unit}", len(value)):
            raise _wrong(value, schema, path)
    if isinstance(value, list) and "items" in schema:
        for index, one in enumerate(value):
            check(one, schema["items"], f"{path}[{index}]")
    if isinstance(value, dict):
        _check_object(value, schema, path)


def expected(schema: Schema) -> str:
    """Say in a few words what a schema allows."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(expected, schema["anyOf"])))
    if "enum" in schema:
        return " or ".join("null" if one is None else str(one).lower() for one in schema["enum"])
    names = " or ".join(NAMES[kind] for kind in _kinds(schema))
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("minLength", "of at least"),
            ("maxLength", "of at most"),
            ("minItems", "of at least"),
            ("maxItems", "of at most"),
        )
        if key in schema
    ]
    return " ".join([names or "anything", *bounds])


def _check_any(value: Any, schemas: list[Schema], path: str) -> None:
    """Check against the first schema whose type fits, so that the message is about what was meant."""
    fitting = [one for one in schemas if any(IS_TYPE[kind](value) for kind in _kinds(one))]
    errors = []
    for one in fitting:
        try:
            return check(value, one, path)
        except ApiError as error:
            errors.append(error)
    raise errors[0] if len(errors) == 1 else _wrong(value, {"anyOf": schemas}, path)


def _check_object(value: dict[str, Any], schema: Schema, path: str) -> None:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, one in value.items():
        if name in known:
            check(one, known[name], f"{path}.{name}")
        elif others is False:
            raise ApiError(
                400,
                f"{path} has no field {shown(name)}; its fields are {', '.join(known)}.",
                param=f"{path}.{name}"[:200],
                code="unknown_parameter",
            )
        elif isinstance(others, Mapping):
            check(one, others, f"{path}.{name}"[:200])
    for name in schema.get("required", ()):  # last, as what is missing may follow from a value that is wrong
        if name not in value:
            raise ApiError(400, f"{path}.{name} is missing.", param=f"{path}.{name}", code="missing_required_parameter")


def _kinds(schema: Schema) -> tuple[str, ...]:
    kind = schema.get("type", ())
    return (kind,) if isinstance(kind, str) else tuple(kind)


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**300


def _is_within(value: float, schema: Schema) -> bool:
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return False
    return schema.get("minimum", value) <= value <= schema.get("maximum", value)


def _wrong(value: Any, schema: Schema, path: str) -> ApiError:
    said = f"{path} is {shown(value)}; give {expected(schema)}."
    return ApiError(400, said, param=path, code="invalid_value")
