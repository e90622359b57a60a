"""Judges a chat model without another model: what it writes, counted, and how well it foresees held-out answers."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from lilliput.data.messages import Message
from lilliput.evals.answer_bits import answer_bits, bits_score
from lilliput.evals.chat import ENDS, NothingToJudge, share
from lilliput.evals.instructions import KINDS, instructions
from lilliput.evals.replies import ROWS, ChatModel, Reply, message_end, prompt_ids, write_replies
from lilliput.evals.score import Score, mean_stderr

INSTRUCTIONS, REPLIES, HELD_OUT = "generated instructions", "all replies", "held-out conversations"
LOOPS, REPEATED, LENGTH = "replies that end in a loop", "repeated runs of four tokens", "tokens of a reply"
QUESTION = "held-out question"
"""Kind of a prompt that comes from held-out conversations."""


@dataclass(frozen=True, kw_only=True)
class JudgedReply:
    """A reply, and what it was asked for."""

    kind: str
    """Metric of the generated instruction, or `QUESTION`."""
    prompt: str
    reply: Reply
    follows: bool | None
    """True if it does as told; None where a program cannot say."""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        reply = self.reply
        return {
            "kind": self.kind,
            "prompt": self.prompt,
            "reply": reply.text,
            "tokens": len(reply.tokens),
            "ended": reply.ended,
            "closed": reply.is_closed,
            "loops": reply.loops,
            "repeated": reply.repeated,
            "follows": self.follows,
        }


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The figures of one model, and its replies."""

    scores: tuple[Score, ...]
    replies: tuple[JudgedReply, ...]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "scores": [asdict(score) for score in self.scores],
            "replies": [reply.plain() for reply in self.replies],
        }


def judge(
    chat: ChatModel,
    conversations: Sequence[Sequence[Message]] = (),
    *,
    each: int = 40,
    limit: int = 200,
    max_new_tokens: int = 128,
    seed: int = 0,
    rows: int = ROWS,
    report: Callable[[str], None] = lambda line: None,
) -> Judged:
    """Return the figures of a chat model.

    A reply follows a generated instruction if it does what a program can check, and ends by itself. Prompts are those
    of the seed, whatever the model; the questions that fit the context are drawn from the conversations.

    Args:
        chat: the model, in evaluation.
        conversations: held-out ones; without any there are no questions and no bits per byte.
        each: generated instructions of a kind.
        limit: held-out questions, and conversations whose answers are measured.
        max_new_tokens: of a reply.
        seed: of prompts and of the draw.
        rows: replies that are written at the same time.
        report: called with what is about to be done.

    Raises:
        ExportError: the model has no chat template.
        NothingToJudge: no prompt leaves room for a reply.
    """
    message_end(chat)
    asked: list[tuple[str, Sequence[dict[str, str]], Callable[[str], bool] | None]] = [
        (kind.metric, [{"role": "user", "content": one.prompt}], one.follows)
        for kind in KINDS
        for one in instructions(kind, each, seed)
    ]
    drawn = random.Random(seed).sample(list(conversations), min(limit, len(conversations)))
    asked += [(QUESTION, messages, None) for messages in map(_question, drawn) if messages]
    encoded = [(one, prompt_ids(chat, one[1])) for one in asked]
    fitting = [(one, ids) for one, ids in encoded if len(ids) + max_new_tokens <= chat.context]
    if not fitting:
        raise NothingToJudge(
            f"none of {len(asked)} prompts leaves room for a reply of {max_new_tokens:,} tokens in {chat.context:,}",
            where="the prompts to judge replies to",
            hint="ask for shorter replies: --max-new-tokens",
        )
    report(f"writing {len(fitting):,} replies")
    written = write_replies(chat, [ids for _, ids in fitting], max_new_tokens=max_new_tokens, rows=rows)
    replies = [
        JudgedReply(
            kind=kind,
            prompt=messages[-1]["content"],
            reply=reply,
            follows=None if follows is None else reply.is_closed and follows(reply.text),
        )
        for ((kind, messages, follows), _), reply in zip(fitting, written, strict=True)
    ]
    scores = [*_following(replies), *_of_all(replies)]
    if drawn:
        report(f"measuring answers of {len(drawn):,} conversations")
        found = answer_bits(chat.model, chat.tokenizer, drawn, context=chat.context)
        scores += [bits_score(HELD_OUT, found)] if found else []
    return Judged(scores=tuple(scores), replies=tuple(replies))


def _question(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The beginning of a conversation up to its first question; nothing where it does not begin with one."""
    after = next((place for place, one in enumerate(messages) if one.role == "user"), None)
    if after is None or any(one.role != "system" for one in messages[:after]):
        return []
    return [{"role": one.role, "content": one.content} for one in messages[: after + 1]]


def _following(replies: Sequence[JudgedReply]) -> list[Score]:
    scores = []
    for kind in KINDS:
        hits = [bool(one.follows) for one in replies if one.kind == kind.metric]
        if hits:
            scores.append(share(INSTRUCTIONS, kind.metric, hits, chance=kind.chance))
    return scores


def _of_all(replies: Sequence[JudgedReply]) -> list[Score]:
    every = [one.reply for one in replies]
    questions = [one.reply for one in replies if one.kind == QUESTION] or every
    task = HELD_OUT if len(questions) < len(every) else REPLIES
    loops = replace(share(REPLIES, LOOPS, [one.loops for one in every]), higher_is_better=False, note="")
    return [
        share(task, ENDS, [one.is_closed for one in questions]),
        loops,
        _mean(REPEATED, [one.repeated for one in every], higher_is_better=False),
        _mean(LENGTH, [float(len(one.tokens)) for one in every], higher_is_better=False),
    ]


def _mean(metric: str, values: Sequence[float], *, higher_is_better: bool) -> Score:
    return Score(
        task=REPLIES,
        metric=metric,
        value=fmean(values),
        stderr=mean_stderr(values),
        chance=None,
        items=len(values),
        higher_is_better=higher_is_better,
    )
