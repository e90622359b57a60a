"""The API, as OpenAI's own client sees it: chat and completions, whole and streamed, of both families of models."""

import asyncio
import json

import openai
import pytest
import tiny
import tiny_server

SPECS = {"gqa": tiny.GQA_SPEC, "hgrn2": tiny.HGRN2_SPEC}
ASKED = [{"role": "system", "content": "Be plain."}, {"role": "user", "content": "What comes after small?"}]


@pytest.fixture(scope="module", params=SPECS)
def server(request):
    with tiny_server.running(tiny_server.published(SPECS[request.param]), rows=4) as one:
        yield one


@pytest.fixture(scope="module")
def base():
    with tiny_server.running(tiny_server.published(chat=False)) as one:
        yield one


def test_a_chat_is_answered(server):
    made = server.client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=7, temperature=0)
    (choice,) = made.choices
    assert made.object == "chat.completion" and choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length") and choice.message.content
    assert made.usage.completion_tokens == 7 and made.usage.total_tokens == made.usage.prompt_tokens + 7


def test_a_stream_is_the_answer_in_pieces(server):
    asked = dict(model="tiny", messages=ASKED, max_completion_tokens=12, seed=3)
    whole = server.client.chat.completions.create(**asked)
    pieces = [*server.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})]
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content and len(pieces) > 3
    assert pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_ends_with_done(server):
    body = {"prompt": "small models", "max_tokens": 3, "stream": True}
    status, said, headers = server.ask("POST", "/v1/completions", body)
    events = said.strip().split("\n\n")
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert events[-1] == "data: [DONE]" and all(json.loads(event[6:])["choices"] for event in events[:-1])


@pytest.mark.parametrize("prompt", ["small models", "", ["small", "models learn"], [5, 6, 7], [[5, 6], [7]]])
def test_prompts_of_all_forms_are_continued(server, prompt):
    made = server.client.completions.create(model="tiny", prompt=prompt, max_tokens=4, n=2)
    count = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    assert [choice.index for choice in made.choices] == [*range(2 * count)]
    assert made.usage.completion_tokens <= 8 * count


def test_the_same_seed_gives_the_same_text(server):
    def said(seed):
        return server.client.completions.create(model="tiny", prompt="small", max_tokens=12, seed=seed).choices[0].text

    assert said(1) == said(1) != said(2)


def test_a_stop_string_ends_a_text_before_it(server):
    asked = dict(model="tiny", prompt="small models", max_tokens=20, temperature=0)
    text = server.client.completions.create(**asked).choices[0].text
    stop = text[5:8]
    (cut,) = server.client.completions.create(**asked, stop=[stop, "never"]).choices
    assert cut.text == text[: text.find(stop)] and cut.finish_reason == "stop"


def test_models_are_listed(server):
    (model,) = server.client.models.list().data
    assert model.id == "tiny" and server.client.models.retrieve("tiny").context == tiny_server.CONTEXT
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="this server has tiny"):
        server.client.completions.create(model="other", prompt="small")


def test_a_base_model_has_no_conversations(base):
    with pytest.raises(openai.BadRequestError, match="/v1/completions") as caught:
        base.client.chat.completions.create(model="tiny", messages=ASKED)
    assert caught.value.param == "messages"
    assert base.client.completions.create(model="tiny", prompt="small", max_tokens=3, temperature=0).choices[0].text


def test_a_text_ends_where_the_context_is_full(server):
    prompt = [5] * (tiny_server.CONTEXT - 6)
    made = server.client.completions.create(model="tiny", prompt=prompt, max_tokens=100, temperature=0)
    assert made.choices[0].finish_reason == "length" and made.usage.completion_tokens == 6
    with pytest.raises(openai.BadRequestError, match=r"5,120 tokens.* 512 together") as caught:
        server.client.completions.create(model="tiny", prompt=[5] * 5120)
    assert caught.value.code == "context_length_exceeded"


def test_streams_at_the_same_time_are_what_each_is_alone(server):
    prompts = [" ".join(tiny.WORDS[start : start + 1 + start % 5]) for start in range(12)]

    def asked(prompt):
        return dict(model="tiny", prompt=prompt, max_tokens=16, temperature=0)

    alone = [server.client.completions.create(**asked(prompt)).choices[0].text for prompt in prompts]

    async def streamed(client, prompt):
        pieces = [piece async for piece in await client.completions.create(**asked(prompt), stream=True)]
        return "".join(piece.choices[0].text for piece in pieces)

    async def together():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(streamed(client, prompt) for prompt in prompts))

    assert asyncio.run(together()) == alone


def test_a_stream_that_is_closed_frees_its_row(server):
    stream = server.client.completions.create(model="tiny", prompt="small", max_tokens=10**6, stream=True)
    next(iter(stream))
    assert server.gauge("rows_busy") <= 1
    stream.close()
    server.wait_for("rows_busy", 0)
