"""Estimates the tokens of a recipe's corpora, and notes what they mean for a model."""

from typing import Any

from lilliput.base.text_units import duration, number
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.plan import plan
from lilliput.plan.corpora import BYTES_PER_TOKEN
from lilliput.recipe import Recipe

ENOUGH_TOKENS = 20
"""Tokens per parameter that are usual."""
MOST_PASSES = 4
"""Most passes over a text that lose little."""
SAMPLE = 4_000_000
"""Bytes of conversations that are counted; of more it is known that they are many."""


def corpus_tokens(recipe: Recipe) -> dict[str, int | None]:
    """Tokens of each corpus that the timeline reads; None where only encoding all of it would tell."""
    found = {one["name"]: one["text_bytes"] for one in plan(recipe)["corpora"]}
    for name in found:
        corpus = recipe.corpora[name]
        if found[name] is None and isinstance(corpus, ChatFiles):
            found[name] = _chat_bytes(corpus)
    return {name: None if size is None else size // BYTES_PER_TOKEN for name, size in found.items()}


def _chat_bytes(corpus: ChatFiles) -> int | None:
    size = 0
    for conversation in corpus.conversations():
        size += sum(len(message.content.encode("utf-8", "surrogatepass")) for message in conversation.messages)
        if size > SAMPLE:
            return None
    return size


def notes(planned: dict[str, Any], tokens: dict[str, int | None], seconds: float) -> list[str]:
    """Return what a plan comes to, in sentences; where it is too little or too often, that and what to do.

    Args:
        planned: what `lilliput.plan.plan` made of a recipe.
        tokens: of its corpora, as `corpus_tokens` has them.
        seconds: of training.
    """
    parameters, read = planned["model"]["parameters"]["total"], planned["totals"]["tokens"]
    each = read / parameters
    said = [f"{number(read)} tokens for {number(parameters)} parameters: {each:,.2g} tokens a parameter"]
    if each < ENOUGH_TOKENS:
        longer = duration(seconds * ENOUGH_TOKENS / each)
        said[0] += f". That is little: {ENOUGH_TOKENS} or more are usual, which would take {longer} here"
    for corpus in planned["corpora"]:
        size = tokens.get(corpus["name"])
        if size and (passes := corpus["tokens_read"] / size) > MOST_PASSES:
            said.append(
                f"{corpus['name']} is read about {passes:,.0f} times. Up to {MOST_PASSES} passes lose little; after "
                "more of them a model knows it by heart. Give more of it, or fewer tokens to the phases that read it"
            )
    return said
