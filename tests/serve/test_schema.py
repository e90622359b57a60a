"""One table of fields: what it refuses and what the schema says are the same; and the page of metrics."""

import re

import pytest
import tiny_server

from lilliput.serve.api_error import ApiError
from lilliput.serve.call import SAMPLING
from lilliput.serve.fields import CHAT, COMPLETIONS, SHARED, read_fields
from lilliput.serve.json_schema import check, expected
from lilliput.serve.openapi import openapi

METRIC = re.compile(r"[a-z_]+(\{[a-z]+=\"[^\"]*\"(,[a-z]+=\"[^\"]*\")*\})? [0-9.e+-]+")


@pytest.fixture(scope="module")
def server():
    with tiny_server.running(tiny_server.published(), rows=2) as one:
        yield one


def test_the_schema_has_the_fields_of_the_table(server):
    schema = server.ask("GET", "/openapi.json")[1]["components"]["schemas"]
    for name, fields in (("ChatRequest", CHAT), ("CompletionRequest", COMPLETIONS)):
        assert list(schema[name]["properties"]) == [field.name for field in fields]
        assert all(one["description"] for one in schema[name]["properties"].values())
    assert schema["ChatRequest"]["required"] == ["messages"]
    assert {*SAMPLING} <= {field.name for field in SHARED}


def test_a_key_is_in_the_schema_where_one_is_asked_for():
    assert "security" not in openapi("tiny", has_key=False)
    assert openapi("tiny", has_key=True)["security"] == [{"key": []}]


def test_fields_that_are_null_or_left_out_have_their_defaults():
    values = read_fields(COMPLETIONS, {"prompt": "a", "n": None, "temperature": None, "max_tokens": 5.0})
    assert (values["n"], values["stream"], values["temperature"]) == (1, False, None)
    assert values["max_tokens"] == 5 and isinstance(values["max_tokens"], int)


def test_a_name_that_is_nearly_right_is_told():
    with pytest.raises(ApiError, match="did you mean temperature") as caught:
        read_fields(CHAT, {"messages": [], "temprature": 1})
    assert caught.value.body["error"]["code"] == "unknown_parameter"


@pytest.mark.parametrize(
    "value, schema",
    [
        (True, {"type": "integer"}),
        (1.5, {"type": "integer"}),
        (1, {"enum": [True]}),
        (0, {"enum": [False]}),
        ("", {"type": "string", "minLength": 1}),
        ([1, 2], {"type": "array", "maxItems": 1}),
        ({"a": 1}, {"type": "object", "properties": {"b": {}}, "additionalProperties": False}),
        ({"a": 1}, {"type": "object", "additionalProperties": {"type": "string"}}),
        ({}, {"type": "object", "required": ["a"]}),
        (None, {"anyOf": [{"type": "string"}, {"type": "array"}]}),
        (0, {"type": "number", "exclusiveMinimum": 0}),
    ],
)
def test_values_outside_of_a_schema_are_refused_at_their_path(value, schema):
    with pytest.raises(ApiError) as caught:
        check(value, schema, "field")
    assert caught.value.body["error"]["param"].startswith("field")


def test_what_is_expected_is_said_in_words():
    assert expected({"type": "integer", "minimum": 1, "maximum": 9}) == "a whole number from 1 to 9"
    assert expected({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "a text or null"
    assert expected({"enum": [False]}) == "false"


def test_metrics_are_in_the_format_of_prometheus(server):
    server.client.completions.create(model="tiny", prompt="small", max_tokens=4)
    status, said, headers = server.ask("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = said.splitlines()
    assert all(line.startswith(("# HELP lilliput_", "# TYPE lilliput_")) or METRIC.fullmatch(line) for line in lines)
    assert any(line.startswith('lilliput_requests_total{path="/v1/completions",status="200"}') for line in lines)
    first = [line for line in lines if line.startswith("lilliput_time_to_first_token_seconds_bucket")]
    counts = [int(line.split()[1]) for line in first]
    assert counts == sorted(counts) and first[-1] == 'lilliput_time_to_first_token_seconds_bucket{le="+Inf"} 1'
