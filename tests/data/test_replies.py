"""A teacher's replies: prompts, an endpoint that misbehaves, the file that keeps them, and the filters."""

import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import tiny_teacher
from tiny_teacher import KEY, TinyTeacher

from lilliput.base.errors import DataError, RecipeError
from lilliput.data.conversations import Conversation
from lilliput.data.messages import Message
from lilliput.data.near_duplicates import NearDuplicates
from lilliput.data.replies import asking, endpoint
from lilliput.data.replies.asking import AskedEndpoint, OwnAnswers
from lilliput.data.replies.endpoint import Endpoint, named_wait, wait_before
from lilliput.data.replies.prompts import Prompt, Prompts
from lilliput.data.replies.reply import Reply, reply_of, reply_to
from lilliput.data.replies.reply_file import ReplyFile, read_replies
from lilliput.data.replies.reply_filters import ReplyFilters, is_refusal
from lilliput.data.replies.teacher_replies import TeacherReplies

SETTINGS = {"temperature": 0.0, "max_tokens": 64, "seed": 7}


@dataclass(frozen=True)
class Chats:
    """Conversations of roles and contents."""

    given: tuple[tuple[tuple[str, str], ...], ...]

    def identity(self) -> Any: ...

    def conversations(self):
        for number, turns in enumerate(self.given):
            yield Conversation(tuple(Message(*turn) for turn in turns), f"c{number}", f"g{number}")


def questions(count: int) -> list[Prompt]:
    return list(
        Prompts(Chats(tuple(((("user", f"Number {n}?"), ("assistant", f"Own {n}."))) for n in range(count))), count)
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second is waited for; the jitter stays."""
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.05)


def ask(teacher: TinyTeacher, prompts: list[Prompt], concurrency: int = 4, **changes: Any) -> list[Reply]:
    asked = Endpoint(url=teacher.url, model="big", key=KEY, **changes)
    every = AskedEndpoint(endpoint=asked, settings=SETTINGS, concurrency=concurrency)
    return sorted(every.replies(prompts, threading.Event()), key=lambda reply: reply.number)


def a_reply(text: str, number: int = 0, **changes: Any) -> Reply:
    prompt = replace(questions(1)[0], number=number, messages=(Message("user", f"Number {number}?"),))
    return reply_to(prompt, text=text, teacher="big", settings={}, **({"finish": "stop", "at": ""} | changes))


def test_prompts_end_with_the_last_turn_of_a_user_and_each_is_asked_once() -> None:
    several = (("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    again = (("user", "x"), ("assistant", "other"))
    chats = Chats(
        (several, (("user", "x"),), again, (("assistant", "y"),), (("user", " "),), (("tool", "t"), ("user", "z")))
    )
    prompts = Prompts(chats, 10)
    for _ in range(2):
        first, second = prompts
        assert [message.content for message in first.messages] == ["S", "a", "b", "c"] and first.own_answer == "d"
        assert (first.number, second.number, second.id, second.group, second.own_answer) == (0, 1, "c1", "g1", None)
        assert prompts.skipped == {
            "the same prompt again": 1,
            "without a user's turn": 2,
            "with other roles than system, user and assistant": 1,
        }
    assert len(list(Prompts(chats, 1))) == 1 and len({prompt.key for prompt in questions(50)}) == 50


def test_every_prompt_is_answered_once_with_where_its_reply_comes_from() -> None:
    with TinyTeacher(lambda prompt, attempt: "slow") as teacher:
        replies = ask(teacher, questions(12), concurrency=12)
        assert teacher.most_at_a_time > 6, "requests wait together"
    assert [reply.text for reply in replies] == [tiny_teacher.reply_to(f"Number {n}?") for n in range(12)]
    assert set(teacher.answered.values()) == {1} and teacher.keys == {f"Bearer {KEY}"}
    one = replies[3]
    assert (one.teacher, one.host, one.settings) == ("big-as-served", f"127.0.0.1:{teacher.port}", SETTINGS)
    assert one.finish == "stop" and one.prompt_tokens == 2 and one.completion_tokens == len(one.text.split())
    assert one.seconds >= 0.3 and one.at.endswith("Z") and reply_of(one.line()) == one
    assert {key: teacher.requests[0][key] for key in ("model", "stream", *SETTINGS)} == {
        "model": "big",
        "stream": False,
    } | SETTINGS
    assert teacher.requests[0]["path"] == "/v1/chat/completions" and KEY not in one.line()


def test_what_may_pass_is_asked_again_until_it_does(quick: None) -> None:
    troubles = ["429", "500", "503", "malformed", "close", "half", "408", "ok"]

    def behavior(prompt: str, attempt: int) -> str:
        return troubles[min(len(troubles) - 1, int(prompt.split()[1].rstrip("?")) % 8 + attempt - 1)]

    with TinyTeacher(behavior) as teacher:
        replies = ask(teacher, questions(24))
    assert [reply.number for reply in replies] == list(range(24)) and all(reply.text for reply in replies)
    assert set(teacher.answered.values()) == {1}, "nothing is paid twice"
    assert teacher.asked["Number 0?"] == 8 and teacher.asked["Number 7?"] == 1


def test_a_server_says_how_long_to_wait() -> None:
    with TinyTeacher(lambda prompt, attempt: "ok" if attempt > 1 else "429", headers={"Retry-After": "1"}) as teacher:
        began = monotonic()
        ask(teacher, questions(2))
        assert 1.0 <= monotonic() - began < 10
    assert named_wait("2.5") == 2.5 and named_wait(None) is None and named_wait("soon") is None
    assert named_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0 and named_wait("1e9") == 600 and named_wait("nan") is None
    for attempt in range(1, 20):
        assert (
            0.5 <= wait_before(attempt, None) <= min(60.0, 2.0 ** (attempt - 1)) and 3 <= wait_before(attempt, 3.0) <= 4
        )


def test_a_slow_answer_is_given_up_and_asked_for_again(quick: None) -> None:
    with TinyTeacher(lambda prompt, attempt: "slow" if attempt == 1 else "ok") as teacher:
        (reply,) = ask(teacher, questions(1), timeout=0.1)
    assert reply.text and teacher.asked["Number 0?"] == 2


def test_a_prompt_that_is_refused_gets_no_answer_and_the_others_do() -> None:
    with TinyTeacher(lambda prompt, attempt: "400" if "3" in prompt else "ok") as teacher:
        replies = ask(teacher, questions(10))
    assert [reply.number for reply in replies if reply.finish == "failed"] == [3]
    assert "HTTP 400" in replies[3].error and KEY not in replies[3].error and teacher.asked["Number 3?"] == 1


def test_settings_that_an_endpoint_refuses_stop_at_once() -> None:
    for count in (3, 100):
        with TinyTeacher(lambda prompt, attempt: "422") as teacher, pytest.raises(DataError, match="refuses") as error:
            ask(teacher, questions(count))
        assert KEY not in str(error.value) and teacher.asked.total() < 20


def test_a_wrong_key_stops_at_once_and_is_not_repeated() -> None:
    with TinyTeacher(lambda prompt, attempt: "401") as teacher, pytest.raises(DataError, match="401") as error:
        ask(teacher, questions(50))
    assert KEY not in str(error.value) and KEY not in repr(Endpoint(url=teacher.url, model="m", key=KEY))
    assert "OPENAI_API_KEY" in error.value.hint and teacher.asked.total() <= 8


def test_an_endpoint_that_is_gone_is_told_of(quick: None) -> None:
    with TinyTeacher() as teacher:
        pass
    with pytest.raises(DataError, match="does not answer: ConnectionRefusedError") as error:
        ask(teacher, questions(3))
    assert "repeat the command" in error.value.hint


def test_a_prompt_that_always_fails_is_asked_again_last_and_then_left(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ATTEMPTS", 5)
    with TinyTeacher(lambda prompt, attempt: "500" if "13" in prompt else "ok") as teacher:
        replies = ask(teacher, questions(30), concurrency=3)
    assert [reply.number for reply in replies if reply.finish == "failed"] == [13] and len(replies) == 30
    assert "HTTP 500" in replies[13].error and teacher.asked["Number 13?"] == 10


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://user:word@host/v1", "http://x/v1?key=1", ""])
def test_what_is_no_endpoint_is_refused_without_repeating_a_password(url: str) -> None:
    with pytest.raises(RecipeError) as error:
        Endpoint(url=url, model="m")
    assert "word@" not in str(error.value)


def test_who_stops_gets_what_was_asked_and_asks_for_no_more() -> None:
    stop = threading.Event()
    with TinyTeacher(lambda prompt, attempt: "slow") as teacher:
        asked = AskedEndpoint(endpoint=Endpoint(url=teacher.url, model="m"), settings=SETTINGS, concurrency=4)
        replies = asked.replies(questions(40), stop)
        first = next(replies)
        stop.set()
        rest = list(replies)
    assert 3 <= len(rest) <= 8 and teacher.asked.total() <= 9
    assert {first.key, *(reply.key for reply in rest)} == {
        prompt.key for prompt in questions(40) if teacher.answered[prompt.messages[0].content]
    }


def test_own_answers_stand_in_without_a_model() -> None:
    prompts = [*questions(2), replace(questions(3)[2], own_answer=None)]
    replies = list(OwnAnswers(settings=SETTINGS).replies(prompts, threading.Event()))
    assert [reply.text for reply in replies] == ["Own 0.", "Own 1.", ""]
    assert {reply.teacher for reply in replies} == {"answers"}


def test_the_file_of_replies_outlives_a_kill_at_any_byte(tmp_path: Path) -> None:
    replies = [a_reply(f"text {number} “é”", number) for number in range(3)]
    with ReplyFile(tmp_path / "whole.jsonl") as file:
        file.append(replies[:2])
        file.append(replies[2:])
    whole = (tmp_path / "whole.jsonl").read_bytes()
    assert list(read_replies(tmp_path / "whole.jsonl")) == replies
    for size in range(0, len(whole) + 1, 7):
        path = tmp_path / "torn.jsonl"
        path.write_bytes(whole[:size])
        with ReplyFile(path) as file:
            kept = file.keys.copy()
            assert len(kept) == whole[:size].count(b"\n")
            file.append([reply for reply in reversed(replies) if reply.key not in kept])
        assert list(read_replies(path)) == replies
    (tmp_path / "torn.jsonl").write_bytes(b'{"key": 1}\n[[[\n\xff\n' + whole)
    assert ReplyFile(tmp_path / "torn.jsonl").keys == {reply.key for reply in replies}
    (tmp_path / "torn.jsonl").write_bytes(b"{}\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_replies(tmp_path / "torn.jsonl")


def test_replies_are_dropped_for_one_reason_each() -> None:
    long = "The answer to this is that there are several things that one has to know before one begins to cook."
    given = {
        "no answer": a_reply("", 0, finish="failed", error="HTTP 400"),
        "cut off": a_reply(long, 1, finish="length"),
        "empty": a_reply(" \n", 2),
        "too long": a_reply(long, 3, completion_tokens=2_000),
        "refusal": a_reply("I'm sorry, but I can't assist with that.", 4),
        "another language": a_reply("Der Hund lief so schnell er konnte nach Hause und fand dort den Ball.", 5),
        "benchmark overlap": a_reply(long, 6),
        "": a_reply(long, 7),
        "nearly the same reply": a_reply(long.replace("cook", "bake"), 8),
    }
    overlaps = {given["benchmark overlap"].key: ["piqa"]}
    judged = list(ReplyFilters().judge(given.values(), overlaps))
    assert [reason for _, reason in judged] == list(given)
    free = ReplyFilters(cut_off=False, refusals=False, languages=(), likeness=0.0, benchmarks=False, max_tokens=2_000)
    dropped = [reason for _, reason in free.judge(given.values(), overlaps) if reason]
    assert dropped == ["no answer", "empty"]
    for settings in ({"max_tokens": 0}, {"likeness": 1.5}):
        with pytest.raises(RecipeError):
            ReplyFilters(**settings)


def test_refusals_are_told_from_what_only_begins_like_them() -> None:
    for text in (
        "I’m sorry, but I cannot help with that request.",
        "As an AI language model, I don't have feelings.",
        "Unfortunately, as an AI, I can't browse.",
        "I'm unable to view images.",
        "Sorry, I can't help with that.",
        "I'm afraid I can't do that",
        "I apologize, but I cannot create that.",
        "I don't have access to real-time data",
    ):
        assert is_refusal(text), text
    for text in (
        "I'm sorry to hear that you lost your cat.",
        "Sorry for the delay! Here is the list.",
        "As an example, take x.",
        "I cannot recommend this book enough!",
        "Unfortunately, the Roman empire fell.",
        "I'm afraid of spiders, said Tom",
        "An AI is a program.",
    ):
        assert not is_refusal(text), text


def test_near_duplicates_share_most_runs_of_words_and_short_texts_have_none() -> None:
    words = [f"word{number}" for number in range(60)]
    seen = NearDuplicates()
    assert not seen.add(" ".join(words)) and seen.add(" ".join(words).upper() + "!")
    assert seen.add(" ".join([*words[:30], "else", *words[31:]])) and not seen.add(" ".join(words[:35]))
    assert not seen.add("Yes.") and not seen.add("Yes.")
    assert not any(seen.add(" ".join(f"{n}x{m}" for m in range(40))) for n in range(50))


def test_a_corpus_of_replies_learns_the_teachers_words_alone(tmp_path: Path) -> None:
    chat = (("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    (prompt,) = Prompts(Chats((chat,)), 1)
    path = tmp_path / "replies.jsonl"
    with ReplyFile(path) as file:
        file.append(
            [a_reply("", 1), reply_to(prompt, text="The teacher's.", finish="stop", teacher="t", settings={}, at="")]
        )
    corpus = TeacherReplies(path=path, sha256="x", count=5, filters=ReplyFilters(), overlaps={})
    conversation, reason = corpus.iterate()
    assert [conversation] == list(corpus.conversations())
    roles = [(message.role, message.content, message.weight) for message in conversation.messages]
    assert roles == [
        ("system", "S", 0),
        ("user", "a", 0),
        ("assistant", "b", 0),
        ("user", "c", 0),
        ("assistant", "The teacher's.", 1),
    ]
    assert (conversation.id, conversation.group) == ("c0", "g0") and reason == "empty"
    assert json.dumps(corpus.identity())
