"""Judging without a judge: what counts as following, repetition and loops, and bits per byte by hand."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import tiny
import torch
from tiny_releases import awake, tokenizer

from lilliput.base.errors import ExportError
from lilliput.data.messages import Message
from lilliput.evals.answer_bits import AnswerBits, answer_bits, bits_score
from lilliput.evals.chat import ENDS, NothingToJudge
from lilliput.evals.instructions import ARITHMETIC, EXTRACTION, KINDS, LENGTHS, LISTS, STOPS, instructions
from lilliput.evals.judge import HELD_OUT, LOOPS, QUESTION, judge
from lilliput.evals.replies import Reply, message_end, prompt_ids, write_replies
from lilliput.generate.sampling import Sampling
from lilliput.publish.export import Generation
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml, encode_messages, render


@dataclass(frozen=True, kw_only=True)
class Chat:
    model: Any
    tokenizer: Any
    context: int = 512
    chat_template: str | None = CHAT_TEMPLATE
    stop_ids: tuple[int, ...] = (0,)
    special_tokens: Any = None
    generation: Any = Generation(repetition_penalty=1.1)


@pytest.fixture(scope="module")
def chat():
    ours = add_chatml(tokenizer())
    return Chat(model=awake(replace(tiny.GQA_SPEC, vocab=ours.get_vocab_size())), tokenizer=ours, special_tokens={})


def talks(count):
    return [
        [Message("user", f"the quick fox {number}?"), Message("assistant", "the lazy dog " * (1 + number % 3))]
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (LISTS, lambda n: "\n".join(f"{i}. thing" for i in range(n)), lambda n: "thing, thing\n" * (n + 1)),
        (ARITHMETIC, lambda n: f"It is {n}.", lambda n: f"{n} or {n + 1}"),
    ],
)
def test_a_program_sees_whether_a_reply_follows(kind, good, bad):
    for one in instructions(kind, 20, seed=3):
        numbers = [int(word) for word in one.prompt.replace("?", "").split() if word.isdigit()]
        count = numbers[0] if kind is LISTS else sum(numbers) if "+" in one.prompt else numbers[0] - numbers[1]
        assert one.follows(good(count)) and not one.follows(bad(count)), one.prompt


def test_lengths_words_and_numbers_of_a_prompt():
    for one in instructions(LENGTHS, 20, seed=0):
        assert one.follows("It is wet.") and not one.follows("It is wet. " * 12) and not one.follows("")
    for one in instructions(STOPS, 20, seed=0):
        word = one.prompt.split('"')[1]
        assert one.follows(f"{word.title()}.") and not one.follows(f"{word} {word}") and not one.follows("no")
    for one in instructions(EXTRACTION, 20, seed=0):
        color = one.prompt.split("does the ")[1].split(" box")[0]
        number = one.prompt.lower().split(f"the {color} box holds ")[1].split()[0]
        assert one.follows(f"The {color} box holds {number}.") and not one.follows("I do not know.")


def test_prompts_are_a_function_of_the_seed():
    for kind in KINDS:
        first, again, other = ([one.prompt for one in instructions(kind, 20, seed)] for seed in (0, 0, 1))
        assert first == again != other and len(set(first)) > 5


def test_loops_and_repetition():
    def reply(*tokens):
        return Reply(text="", tokens=tokens, ended="length", is_closed=False)

    assert reply(1, 2, 3, 4, 5, 6, 5, 6, 5, 6, 5, 6).loops and reply(9, 9, 9, 9).loops
    assert not reply(5, 6, 5, 6, 5, 6, 1).loops and not reply(1, 2, 3).loops
    assert reply(1, 2, 3, 4, 5).repeated == reply(1).repeated == 0
    assert reply(1, 2, 3, 4, 1, 2, 3, 4).repeated == pytest.approx(1 / 5)


def test_replies_are_those_of_plain_greedy_decoding(chat):
    prompts = [
        prompt_ids(chat, [{"role": "user", "content": text}]) for text in ("the quick", "lazy dog and cat", "on")
    ]
    replies = write_replies(chat, prompts, max_new_tokens=12, rows=2)
    end = message_end(chat)
    for prompt, reply in zip(prompts, replies, strict=True):
        ids = list(prompt)
        for token in reply.tokens:
            logits = chat.model(torch.tensor([ids]))[0, -1].detach().clone()
            for seen in set(ids):
                logits[seen] = logits[seen] / 1.1 if logits[seen] > 0 else logits[seen] * 1.1
            assert int(logits.argmax()) == token
            ids.append(token)
        assert reply.is_closed == (reply.tokens[-1] == end) and len(reply.tokens) <= 12


def test_bits_per_byte_are_those_of_the_answers_with_their_ends(chat):
    conversation = [
        Message("system", "Be brief."),
        Message("user", "the quick fox?"),
        Message("assistant", "the lazy dog"),
        Message("user", "and?"),
        Message("assistant", "the mat", 0),
        Message("user", "and?"),
        Message("assistant", "the cat"),
    ]
    (found,) = answer_bits(chat.model, chat.tokenizer, [conversation, [Message("user", "x")]], context=512)
    nats, ids = 0.0, []
    for message, (part, mask) in zip(conversation, encode_messages(chat.tokenizer, conversation), strict=True):
        for token, weight in zip(part, mask, strict=True):
            if weight and message.weight:
                nats -= float(chat.model(torch.tensor([ids]))[0, -1].log_softmax(-1)[token].detach())
            ids.append(token)
    assert found.size == len("the lazy dog") + len("the cat")
    assert found.bits == pytest.approx(nats / math.log(2), rel=1e-4)
    score = bits_score("held out", [found, AnswerBits(20.0, 10), AnswerBits(8.0, 10)])
    assert score.value == pytest.approx((found.bits + 28) / (found.size + 20)) and score.stderr > 0


def test_a_model_is_judged_with_errors_and_records(chat):
    said = []
    judged = judge(chat, talks(12), each=3, limit=5, max_new_tokens=16, seed=1, report=said.append)
    assert judged == judge(chat, talks(12), each=3, limit=5, max_new_tokens=16, seed=1, rows=3)
    by_metric = {score.metric: score for score in judged.scores}
    assert {kind.metric for kind in KINDS} <= by_metric.keys()
    assert by_metric[ENDS].items == 5 and by_metric[ENDS].task == HELD_OUT
    assert by_metric[LOOPS].items == 20 and not by_metric[LOOPS].higher_is_better
    assert by_metric[EXTRACTION.metric].chance == pytest.approx(1 / 3)
    assert by_metric["answers, bits per byte"].value > 0 and by_metric["answers, bits per byte"].stderr > 0
    plain = judged.plain()
    assert len(plain["replies"]) == 20 and plain["replies"][-1]["kind"] == QUESTION
    assert said == ["writing 20 replies", "measuring answers of 5 conversations"]
    alone = judge(chat, each=2, max_new_tokens=8)
    assert "answers, bits per byte" not in {score.metric for score in alone.scores}
    assert isinstance(chat.generation.sampling, Sampling) and render([{"role": "user", "content": "x"}])


def test_what_cannot_be_judged_is_refused(chat):
    with pytest.raises(ExportError, match="no chat template"):
        judge(replace(chat, chat_template=None))
    with pytest.raises(NothingToJudge, match="leaves room for a reply of 600 tokens in 512"):
        judge(chat, max_new_tokens=600)
