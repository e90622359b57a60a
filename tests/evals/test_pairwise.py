"""Pairwise judging: both orders, ties and contradictions counted by hand, and an endpoint that misbehaves."""

import re
import threading
from math import sqrt

import pytest
from rich.console import Console
from tiny_teacher import TinyTeacher

from lilliput.base.errors import DataError, LilliputError
from lilliput.data.replies import asking as replies_asking
from lilliput.data.replies import endpoint
from lilliput.data.replies.reply_file import read_replies
from lilliput.evals.judge import QUESTION
from lilliput.evals.pairwise import Comparison, comparisons, prompts_of, verdict, win_rate
from lilliput.run.asking import URL, Asking
from lilliput.run.pairwise import judge_pairs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No second is waited for."""
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.05)
    monkeypatch.delenv(URL, raising=False)


def judged(texts, kind=QUESTION):
    return {"replies": [{"kind": kind, "prompt": f"Question {n}?", "reply": text} for n, text in enumerate(texts)]}


def longer(prompt):
    """A judge that prefers the longer answer."""
    first, second = re.search(r"\[Answer A\]\n(.*)\n\n\[Answer B\]\n(.*)\n\nReply", prompt, re.S).groups()
    return "C" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


def ask(names, models, path, url, judge="wise", **settings):
    asking = Asking(endpoint=url, concurrency=4, **settings)
    return judge_pairs(names, models, judge=judge, path=path, asking=asking, console=Console(quiet=True))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        (" **B**.\n", "B"),
        ("[[C]]", "C"),
        ("<think>A is long, B is short.</think>\nVerdict: B", "B"),
        ("A or B", None),
        ("Answer A is better than answer B", None),
        ("a", None),
        ("Apples", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_only_letter_of_the_last_line(text, letter):
    assert verdict(text) == letter


def test_win_rates_are_counted_over_both_orders():
    pairs = [Comparison(question=f"{n}?", reply=f"ours {n}", other=f"theirs {n}") for n in range(6)]
    pairs.append(Comparison(question="6?", reply="the same", other="the same"))
    said = ["AB", "BA", "CC", "AA", "AC", "A?"]  # a win, a loss, a tie, a contradiction, half a tie, half unjudged
    verdicts = {
        prompt.key: letter
        for pair, letters in zip(pairs, said, strict=False)
        for prompt, letter in zip(pair.prompts("wise", 0), letters, strict=True)
    }
    found = win_rate("new", "old", pairs, verdicts, "wise")
    points = [1.0, 0.0, 0.5, 0.5, 0.75, 0.5]
    mean = sum(points) / 6
    assert found.value == pytest.approx(mean)
    assert found.stderr == pytest.approx(sqrt(sum((one - mean) ** 2 for one in points) / 5 / 6))
    assert (found.wins, found.losses, found.ties, found.contradictions, found.unjudged) == (1, 1, 3, 1, 1)
    assert found.questions == 6 and found.first == pytest.approx(6 / 8)
    assert found.interval[0] == pytest.approx(mean - 1.96 * found.stderr)
    assert len(list(prompts_of(pairs, "wise"))) == 12, "nobody is asked about equal replies"


def test_held_out_questions_are_compared_and_else_all_prompts():
    models = [judged(["a", "b"]), judged(["c"])]
    both = {"replies": [*models[0]["replies"], {"kind": "sums", "prompt": "1 + 1?", "reply": "2"}]}
    assert [one.question for one in comparisons(both, models[1])] == ["Question 0?"]
    assert [one.question for one in comparisons(judged(["x"], "sums"), judged(["y"], "sums"))] == ["Question 0?"]


def test_an_endpoint_that_misbehaves_is_asked_until_it_answers_and_paid_once(tmp_path):
    ways = ("slow", "429", "500", "malformed", "half", "close")
    models = [judged(["short"] * 12), judged(["rather a long answer"] * 12), judged(["brief"] * 12)]

    def behavior(prompt, attempt):
        return ways[int(re.search(r"Question (\d+)", prompt)[1]) % len(ways)] if attempt == 1 else "ok"

    with TinyTeacher(behavior, reply=longer, headers={"Retry-After": "0.01"}) as server:
        first, second = ask(["old", "new", "other"], models, tmp_path / "v.jsonl", server.url)
        assert (first.value, first.wins, first.contradictions) == (1.0, 12, 0) and first.first == 0.5
        assert (second.value, second.ties) == (0.5, 12)
        assert set(server.answered.values()) == {1} and len(server.answered) == 48
        assert all(request["max_tokens"] == 512 and request["temperature"] == 0 for request in server.requests)
        before = len(server.requests)
        assert ask(["old", "new", "other"], models, tmp_path / "v.jsonl", server.url)[0] == first
        assert len(server.requests) == before, "nothing is asked twice"
    models[1]["replies"][0]["reply"] = "another long answer, which nobody has judged"
    with TinyTeacher(reply=longer) as server:
        assert ask(["old", "new"], models[:2], tmp_path / "v.jsonl", server.url)[0].wins == 12
        assert len(server.requests) == 2


def test_a_server_that_dies_in_the_middle_loses_no_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(replies_asking, "ATTEMPTS", 3)
    path, models, died = tmp_path / "v.jsonl", [judged(["short"] * 10), judged(["quite long"] * 10)], threading.Event()

    def behavior(prompt, attempt):
        if len(server.answered) >= 7:
            died.set()
        return "close" if died.is_set() else "ok"

    with TinyTeacher(behavior, reply=longer) as server:
        with pytest.raises(DataError, match="the endpoint does not answer"):
            ask(["old", "new"], models, path, server.url)
        paid = dict(server.answered)
    assert {reply.prompt[0][1] for reply in read_replies(path)} == paid.keys()
    path.write_bytes(path.read_bytes() + b'{"key": "torn')
    with TinyTeacher(reply=longer) as server:
        assert ask(["old", "new"], models, path, server.url)[0].wins == 10
        assert len(server.answered) == 20 - len(paid) and not server.answered.keys() & paid.keys()


def test_pairs_that_are_refused_or_not_answered_with_a_letter_are_unjudged(tmp_path):
    models = [judged(["short"] * 6), judged(["quite long"] * 6)]

    def behavior(prompt, attempt):
        return "422" if "Question 2?" in prompt else "ok"

    def reply(prompt):
        return "Both are fine." if "Question 3?" in prompt else longer(prompt)

    with TinyTeacher(behavior, reply=reply) as server:
        (found,) = ask(["old", "new"], models, tmp_path / "v.jsonl", server.url)
    assert (found.wins, found.unjudged, found.questions) == (4, 2, 4)
    assert found.stderr is None and found.interval is None, "four wins of four are no certainty"


def test_what_cannot_be_asked_is_refused(tmp_path):
    path, models = tmp_path / "v.jsonl", [judged(["short"]), judged(["quite long"])]
    with pytest.raises(LilliputError, match="nothing to be compared with"):
        ask(["old"], models[:1], path, None)
    with pytest.raises(LilliputError, match="no endpoint is given"):
        ask(["old", "new"], models, path, None)
    with TinyTeacher(reply=longer) as server:
        ask(["old", "new"], models, path, server.url)
        with pytest.raises(LilliputError, match="those of wise, not of other"):
            ask(["old", "new"], models, path, server.url, judge="other")
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"a": 1}\n')
    with pytest.raises(LilliputError, match="something else than verdicts"):
        ask(["old", "new"], models, mine, None)
    assert mine.read_text() == '{"a": 1}\n'
