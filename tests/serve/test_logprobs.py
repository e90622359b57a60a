"""Log-probabilities in both of OpenAI's forms, beside full passes of the model."""

import pytest
import tiny
import tiny_server
import torch

from lilliput.serve.token_text import TokenText


@pytest.fixture(scope="module")
def model():
    return tiny_server.published(tiny.HGRN2_SPEC)


@pytest.fixture(scope="module")
def server(model):
    with tiny_server.running(model, rows=2) as one:
        yield one


def expected(model, ids, count):
    """The likeliest tokens after each position of the last part of a text."""
    with torch.inference_mode():
        return model.model(torch.tensor([ids]))[0].log_softmax(dim=-1).topk(count)


def test_chats_tell_the_likeliest_tokens_with_their_bytes(server, model):
    messages = [{"role": "user", "content": "What is small?"}]
    asked = dict(model="tiny", messages=messages, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3)
    whole = server.client.chat.completions.create(**asked).choices[0]
    listed = whole.logprobs.content
    assert len(listed) == 6
    for one in listed:
        assert len(one.top_logprobs) == 3 and one.token == one.top_logprobs[0].token, "the likeliest was taken"
        assert one.logprob == one.top_logprobs[0].logprob
        assert bytes(one.bytes).decode(errors="replace") == one.token
    spelled = b"".join(bytes(one.bytes) for one in listed).decode(errors="replace")
    assert spelled == whole.message.content
    pieces = server.client.chat.completions.create(**asked, stream=True)
    streamed = [one for piece in pieces for one in (piece.choices[0].logprobs or empty()).content or []]
    assert [one.token for one in streamed] == [one.token for one in listed]


def empty():
    return type("Empty", (), {"content": []})


def test_completions_tell_them_as_lists(server, model):
    ids = model.tokenizer.encode("small models").ids
    asked = dict(model="tiny", prompt=ids, max_tokens=5, temperature=0, logprobs=2)
    found = server.client.completions.create(**asked).choices[0].logprobs
    names, text = TokenText(model.tokenizer), list(ids)
    for place in range(5):
        top = expected(model, text, 2)
        token = int(top.indices[-1, 0])
        assert found.tokens[place] == names.named(token)[0]
        assert found.token_logprobs[place] == pytest.approx(float(top.values[-1, 0]), abs=1e-4)
        assert found.top_logprobs[place][found.tokens[place]] == found.token_logprobs[place]
        text.append(token)
    assert found.text_offset[0] == 0 and len(found.text_offset) == 5


def test_a_completion_of_no_likeliest_tokens_tells_its_own(server):
    found = server.client.completions.create(model="tiny", prompt="small", max_tokens=3, logprobs=0).choices[0].logprobs
    assert len(found.token_logprobs) == len(found.tokens) and not any(found.top_logprobs)
    plain = server.client.completions.create(model="tiny", prompt="small", max_tokens=3)
    assert plain.choices[0].logprobs is None


def test_every_token_has_its_bytes(model):
    names = TokenText(model.tokenizer)
    text = "Größe – 三 🙂 small"
    ids = model.tokenizer.encode(text).ids
    assert b"".join(bytes(names.named(one)[1]) for one in ids).decode() == text
    assert names.named(model.stop_ids[0]) == ("<|im_end|>", [*b"<|im_end|>"])
    assert names.named(10**6) == ("", [])
