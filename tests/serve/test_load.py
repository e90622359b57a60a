"""Many at the same time: two hundred streams, none lost or mixed up; a server that stops; a run over the schema."""

import asyncio
import random

import openai
import pytest
import schemathesis
import tiny
import tiny_server
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
SPECS = {"gqa": tiny.GQA_SPEC, "hgrn2": tiny.HGRN2_SPEC}


def asked(number):
    words = random.Random(number).choices(tiny.WORDS, k=1 + number % 7)
    return dict(model="tiny", prompt=" ".join(words), max_tokens=6, temperature=0)


async def stream(client, number):
    pieces = [piece async for piece in await client.completions.create(**asked(number), stream=True)]
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")
    return "".join(piece.choices[0].text for piece in pieces)


async def streams(server, numbers):
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=tiny_server.SECONDS
    ) as client:
        return await asyncio.gather(*(stream(client, number) for number in numbers))


@pytest.mark.parametrize("name", ["hgrn2", pytest.param("gqa", marks=pytest.mark.slow)])
def test_two_hundred_streams_are_each_what_it_is_alone(name):
    with tiny_server.running(tiny_server.published(SPECS[name]), rows=32, queue=200) as server:
        together = asyncio.run(streams(server, range(200)))
        for number in range(0, 200, 20):
            alone = server.client.completions.create(**asked(number)).choices[0].text
            assert together[number] == alone
        assert server.gauge("time_to_first_token_seconds_count") == 210
        assert server.gauge("rows_busy") == server.gauge("requests_waiting") == 0


def test_a_server_that_stops_ends_what_it_writes():
    with tiny_server.running(tiny_server.published(context=1 << 20), rows=2, grace_seconds=0.3) as server:
        pieces = iter(
            server.client.completions.create(model="tiny", prompt=[5], max_tokens=10**6, temperature=0, stream=True)
        )
        next(pieces)
        server.stop()
        with pytest.raises(openai.APIError, match="stopping"):
            for _ in pieces:
                pass


@pytest.mark.slow
@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/models/{id}"])
def test_requests_of_all_kinds_get_answers_that_the_schema_knows(path, mode):
    """What schemathesis makes of the schema, within it and outside of it."""
    with tiny_server.running(tiny_server.published(), rows=8) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        method = "POST" if "completions" in path else "GET"

        @given(case=schema[path][method].as_strategy(generation_mode=mode))
        @settings(
            max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
        )
        def ask(case):
            case.call_and_validate(checks=CHECKS, timeout=tiny_server.SECONDS)  # 10 are few on a busy machine

        ask()
        assert server.ask("GET", "/health")[0] == 200
