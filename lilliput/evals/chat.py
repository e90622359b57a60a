"""Evaluates replies to held-out questions: does the model finish, and does it listen to the question?"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lilliput.base.errors import DataError
from lilliput.evals.replies import ROWS, ChatModel, message_end, prompt_ids, write_replies
from lilliput.evals.score import Score, against_chance, mean_stderr, when_alike
from lilliput.generate.log_likelihood import log_likelihoods
from lilliput.tokenizer.specials import literal

TASK = "held-out questions"
ENDS = "replies that end by themselves"
PREFERS = "right answer preferred over a shuffled one"


def judge_replies(
    chat: ChatModel,
    conversations: Sequence[tuple[str, str]],
    *,
    limit: int = 100,
    max_new_tokens: int = 128,
    seed: int = 0,
    rows: int = ROWS,
) -> list[Score]:
    """Two scores on at most `limit` conversations, drawn without replacement by `seed`.

    `ENDS`: the share of greedy replies whose `<|im_end|>` is among the first `max_new_tokens` tokens. Decoding uses
    the model's own repetition penalty, and stops at its end tokens too.

    `PREFERS`: the share of questions under which the right answer, with its `<|im_end|>`, has a higher mean
    log-likelihood per token than another question's answer. The draw is a random order; the other answer is the next
    differing one in it, round and round, so every answer is tried as right and as wrong, and a model deaf to the
    question scores half. The mean decides because a sum would mostly ask which answer is shorter (the note gives the
    sum's share). Standard errors take the items as independent; neighbours share an answer, so the true one of
    `PREFERS` near chance is smaller. Where all answers are the same, or there is one, `ENDS` is the only score.

    Only conversations whose question leaves room for `max_new_tokens` in the model's window, and whose answer with its
    end has at most that many tokens, take part.

    Args:
        chat: the model.
        conversations: (question, right answer), the first two turns of held-out conversations.
        limit: conversations to judge.
        max_new_tokens: length of a reply that did not end.
        seed: of the draw.
        rows: replies that are written at the same time.

    Raises:
        ExportError: the tokenizer has no `<|im_end|>`, or there is no chat template.
        NothingToJudge: no conversation fits.
    """
    end, window = message_end(chat), chat.context
    encoded = [_encode(chat, question, answer, end) for question, answer in conversations]
    fitting = [one for one in encoded if len(one.prompt) + max_new_tokens <= window]
    fitting = [one for one in fitting if len(one.answer) <= max_new_tokens]
    if not fitting or limit < 1:
        raise NothingToJudge(
            f"{len(fitting)} of {len(conversations)} questions fit {window:,} tokens with a reply of "
            f"{max_new_tokens}, {limit} are to be judged",
            where="the held-out conversations to judge replies with",
            hint="hold out more conversations that begin with a question and an answer",
        )
    chosen = random.Random(seed).sample(fitting, min(limit, len(fitting)))
    replies = write_replies(chat, [one.prompt for one in chosen], max_new_tokens=max_new_tokens, rows=rows)
    ends = [reply.is_closed for reply in replies]
    others = _other_answers(chosen)
    if others is None:
        return [share(TASK, ENDS, ends, also=f"{PREFERS}: not judged, there is one answer alone")]
    asked = [(one.prompt, answer) for one, other in zip(chosen, others, strict=True) for answer in (one.answer, other)]
    sums = log_likelihoods(chat.model, asked, window=window)
    means = [total / len(answer) for total, (_, answer) in zip(sums, asked, strict=True)]
    by_sum = _share_of_first(sums)
    also = f"by summed log-likelihood: {sum(by_sum) / len(by_sum):.1%}"
    return [share(TASK, ENDS, ends), share(TASK, PREFERS, _share_of_first(means), chance=0.5, also=also)]


class NothingToJudge(DataError):
    """There is no conversation that replies could be judged by."""


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    prompt: list[int]
    """Ids of the question as the chat template asks it, up to where the reply starts."""
    answer: list[int]
    """Ids of the right answer, then `<|im_end|>`."""


def _encode(chat: ChatModel, question: str, answer: str, end: int) -> _Encoded:
    return _Encoded(
        prompt=prompt_ids(chat, [{"role": "user", "content": question}]),
        answer=[*literal(chat.tokenizer).encode(answer, add_special_tokens=False).ids, end],
    )


def _other_answers(chosen: list[_Encoded]) -> list[list[int]] | None:
    """Return for each conversation the next answer in the (random) order that is not the same; None if all are."""
    answers = [one.answer for one in chosen]
    others = []
    for index, answer in enumerate(answers):
        later = answers[index + 1 :] + answers[:index]
        other = next((one for one in later if one != answer), None)
        if other is None:
            return None
        others.append(other)
    return others


def _share_of_first(pairs: list[float]) -> list[bool]:
    return [first > second for first, second in zip(pairs[::2], pairs[1::2], strict=True)]


def share(task: str, metric: str, hits: Sequence[bool], *, chance: float | None = None, also: str = "") -> Score:
    """Return the score of a share of hits.

    Args:
        task: name of the task on cards.
        metric: name of the figure.
        hits: one an item.
        chance: chance level; None if guessing is impossible.
        also: a note.
    """
    value, stderr = sum(hits) / len(hits), mean_stderr(hits)
    notes = (when_alike(hits), against_chance(value, stderr=stderr, chance=chance, items=len(hits)), also)
    return Score(
        task=task,
        metric=metric,
        value=value,
        stderr=stderr,
        chance=chance,
        items=len(hits),
        higher_is_better=True,
        note="; ".join(note for note in notes if note),
    )
