"""Bits per byte of what an assistant says in held-out conversations: one unit for models of any tokenizer."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from lilliput.data.chat_rows import ROLES, shorten, without_unlearned
from lilliput.data.messages import Message
from lilliput.evals.score import Score, jackknife_stderr
from lilliput.generate.log_likelihood import log_likelihoods
from lilliput.model import LanguageModel
from lilliput.tokenizer.chatml import encode_messages

METRIC = "answers, bits per byte"


class AnswerBits(NamedTuple):
    """The answers of one conversation."""

    bits: float
    """Bits of their tokens, the closing ones too."""
    size: int
    """Bytes of their texts."""


def answer_bits(
    model: LanguageModel, tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]], *, context: int
) -> list[AnswerBits]:
    """Return the bits of the answers of each conversation, each predicted from all that is before it.

    A conversation longer than the context loses its oldest turns, as in training; one that is still too long, or has no
    answer to learn, is left out.

    Args:
        model: in evaluation.
        tokenizer: of the model, with the tokens of ChatML.
        conversations: messages of each.
        context: tokens that the model reads at once.
    """
    requests: list[tuple[list[int], list[int]]] = []
    sizes: list[int] = []
    owners: list[int] = []
    for number, messages in enumerate(conversations):
        if any(message.role not in ROLES for message in messages):
            continue
        encoded = shorten(messages, without_unlearned(messages, encode_messages(tokenizer, messages)), context)
        if sum(len(ids) for ids, _ in encoded) > context:
            continue
        read: list[int] = []
        for message, (ids, mask) in zip(messages[-len(encoded) :], encoded, strict=True):
            first = next((place for place, weight in enumerate(mask) if weight), None)
            if first is not None:
                after = len(mask) - next(place for place, weight in enumerate(reversed(mask)) if weight)
                requests.append(([*read, *ids[:first]], list(ids[first:after])))
                sizes.append(len(message.content.encode()))
                owners.append(number)
            read += ids
    found: dict[int, AnswerBits] = {}
    likelihoods = log_likelihoods(model, requests, window=context)
    for owner, size, total in zip(owners, sizes, likelihoods, strict=True):
        before = found.get(owner, AnswerBits(0.0, 0))
        found[owner] = AnswerBits(before.bits - total / math.log(2), before.size + size)
    return [one for one in found.values() if one.size]


def bits_score(task: str, found: Sequence[AnswerBits]) -> Score:
    """Return bits per byte over all conversations, with a standard error by leaving out one at a time.

    Args:
        task: name of the task on cards.
        found: of at least one conversation.
    """
    bits, size = sum(one.bits for one in found), sum(one.size for one in found)
    without = [(bits - one.bits) / (size - one.size) for one in found if size > one.size]
    return Score(
        task=task,
        metric=METRIC,
        value=bits / size,
        stderr=jackknife_stderr(without) if len(without) > 1 else None,
        chance=None,
        items=len(found),
        higher_is_better=False,
    )
