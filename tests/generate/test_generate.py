"""Choosing tokens as Hugging Face does, decoding as the full forward pass does, text as the tokenizer does."""

from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch

from lilliput.base.terminal import Terminal
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.generate.chat import Chat
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.generate.stream_text import stream_text, write_texts
from lilliput.generate.wrapping import Wrapping
from lilliput.tokenizer.bpe import BPE, END_ID
from lilliput.tokenizer.template import check_text


def write(model, prompt, sampling, **limits):
    return Engine(model).stream(Request(prompt=prompt, sampling=sampling, **limits))


@pytest.fixture(params=tiny.SPECS)
def model(request):
    return tiny.SPECS[request.param].build(seed=0).eval()


def test_greedy_takes_the_likeliest_of_full_forward_passes(model):
    prompt = [5, 17, 42, 5]
    text = list(prompt)
    for _ in range(20):
        text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    written = list(
        Engine(model).stream(
            Request(prompt=prompt, sampling=Sampling(greedy=True), stop_token_ids=(), max_new_tokens=20)
        )
    )
    assert written == text[4:]


def test_a_stop_ends_the_text_and_is_its_last_token(model):
    whole = list(
        Engine(model).stream(
            Request(prompt=[5, 17], sampling=Sampling(greedy=True), stop_token_ids=(), max_new_tokens=20)
        )
    )
    stop = whole[7]
    assert (
        list(
            Engine(model).stream(
                Request(prompt=[5, 17], sampling=Sampling(greedy=True), stop_token_ids={stop}, max_new_tokens=20)
            )
        )
        == whole[: whole.index(stop) + 1]
    )


def test_sampling_is_a_function_of_the_seed(model):
    texts = [
        tuple(
            Engine(model).stream(
                Request(prompt=[5], sampling=Sampling(), stop_token_ids=(), max_new_tokens=12, seed=seed)
            )
        )
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_text_is_that_of_the_tokens_and_stops_at_a_string(model):
    tokenizer = BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(50)])
    request = Request(
        prompt=tokenizer.encode("plain text").ids,
        max_new_tokens=60,
        stop_token_ids={END_ID},
        seed=3,
        sampling=Sampling(),
    )
    ids = list(Engine(model).stream(request))
    ids = ids[: ids.index(END_ID)] if END_ID in ids else ids
    pieces = list(stream_text(Engine(model, tokenizer=tokenizer), request))
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert "".join(pieces) == text
    stop = text[9:14]
    kept = "".join(stream_text(Engine(model, tokenizer=tokenizer), replace(request, stop_strings=(stop,))))
    assert kept == text[: text.index(stop)]
    begun = replace(request, prompt=[END_ID], max_new_tokens=5, stop_token_ids=())
    assert list(stream_text(Engine(model, tokenizer=tokenizer), begun)), "an end begins a document"
    texts = write_texts(
        model, tokenizer, [request.prompt] * 2, Sampling(greedy=True), stop_token_ids={END_ID}, max_new_tokens=9
    )
    assert texts[0] == texts[1] and texts[0]


class Talk:
    """A chat whose lines are given, with a model that answers at once."""

    def __init__(self, *lines, ended="stop", most=10_000):
        self.heard, self.screen, self._ended = [], StringIO(), ended
        console = Terminal(file=self.screen, width=200)
        said = iter(lines)

        def read(prompt):
            line = next(said, None)
            if line is None:
                raise EOFError
            return line if isinstance(line, str) else line()

        chat = Chat(self.answer, console, seed=5, system="Be brief.", max_new_tokens=self.tokens, context=most)
        chat.hold(read)

    def answer(self, messages, seed):
        self.heard.append(([message["content"] for message in messages[1:]], seed))
        check_text(messages[-1]["content"], "here")
        yield from ("I ", "see")
        if self._ended == "interrupt":
            raise KeyboardInterrupt
        return self._ended

    @staticmethod
    def tokens(messages):
        return sum(len(message["content"]) for message in messages)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_an_answer_is_broken_between_words(size):
    text, wrapping = "one two  three, a-very-long-word and\nfour five six", Wrapping(12, 6)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    shown = "".join(map(wrapping.add, pieces)) + wrapping.rest()
    assert shown.split() == text.split(), "no word is cut, none is lost"
    first, *lines = shown.split("\n")
    assert len(first) <= 6 and all(len(line.rstrip()) <= 12 for line in lines if "very" not in line)


def test_a_chat_ends_by_either_word_and_says_that_it_forgot():
    assert len(Talk("hello", "/exit", "never").heard) == 1
    assert "what was said is forgotten" in Talk("hello", "/reset").screen.getvalue()


def test_a_conversation_is_remembered_until_it_is_reset():
    assert Talk("hello", "", "again", "/reset", "other", "/quit", "never").heard == [
        (["hello"], 6),
        (["hello", "I see", "again"], 7),
        (["other"], 8),
    ]


def test_another_answer_takes_the_place_of_the_last():
    assert Talk("hello", "/regenerate", "again").heard == [
        (["hello"], 6),
        (["hello"], 7),
        (["hello", "I see", "again"], 8),
    ]


def test_a_cut_answer_is_shown_as_cut_and_remembered():
    assert "(cut" not in Talk("hello").screen.getvalue()
    assert "I see\n(cut by its limit" in Talk("hello", ended="length").screen.getvalue()
    stopped = Talk("hello", "again", ended="interrupt")
    assert "I see\n(cut by Ctrl-C)" in stopped.screen.getvalue()
    assert stopped.heard[1][0] == ["hello", "I see", "again"]


def test_what_cannot_be_read_or_obeyed_ends_no_conversation(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    (tmp_path / "x.jsonl").mkdir()
    lines = (
        "/sing",
        "/regenerate",
        "/save x.txt",
        "/save \0.jsonl",
        "half \ud83d",
        interrupted,
        "hello",
        f"/save {tmp_path}/x.jsonl",
    )
    talk = Talk(*lines)
    for told in ("no such command", "no answer yet", "no .jsonl file", "unpaired surrogate", "cannot be written"):
        assert told in talk.screen.getvalue()
    assert talk.heard[-1][0] == ["hello"], "what could not be read is forgotten"


def test_a_saved_conversation_is_a_row_to_train_on(tmp_path):
    path = tmp_path / "talks.jsonl"
    for said in ("hello", "Grüße"):
        Talk(said, f"/save {path}")
    first, second = ChatFiles(paths=(str(path),)).conversations()
    assert [message.content for message in first.messages] == ["Be brief.", "hello", "I see"]
    assert second.messages[1].content == "Grüße"


def test_a_conversation_that_grew_too_long_is_read_from_a_later_turn_on():
    talk = Talk("hello", "again", "more", most=len("Be brief.helloI seeagain"))
    heard = [messages for messages, _ in talk.heard]
    assert heard == [["hello"], ["hello", "I see", "again"], ["again", "I see", "more"]]
    assert "the first 1 of your messages" in talk.screen.getvalue()
