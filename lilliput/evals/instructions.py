"""Generated instructions that a program can check: lists, lengths, stopping, arithmetic and extraction.

They are a function of the seed, in plain words, and nothing about the world has to be known to follow them.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

THINGS = ("animals", "colors", "fruits", "cities", "tools", "sports", "plants", "countries", "drinks", "games")
TOPICS = ("the sea", "a bicycle", "winter", "bread", "a library", "the moon", "music", "a garden", "rain", "a clock")
WORDS = ("yes", "done", "blue", "stop", "seven", "apple", "ready", "north", "hello", "green")
COLORS = ("red", "blue", "green", "white", "black", "yellow")
HELD = ("pens", "coins", "nuts", "keys", "cards", "stones")
ALONE = ('Reply with the word "{}" and nothing else.', 'Say "{}" and then stop.', 'Answer only with "{}".')
BOXES = 3


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """A prompt, and what a reply to it has to be."""

    prompt: str
    follows: Callable[[str], bool]
    """True for a text that does as told."""


class Kind(NamedTuple):
    """A kind of instructions."""

    metric: str
    """Name of the share of replies that follow."""
    draw: Callable[[random.Random], Instruction]
    chance: float | None = None
    """Share that guessing among what the prompt names would have; None without such a guess."""


def instructions(kind: Kind, count: int, seed: int) -> Iterator[Instruction]:
    """Yield instructions of a kind, no two with one prompt where the kind has as many.

    Args:
        kind: one of `KINDS`.
        count: of instructions.
        seed: decides them, with the kind.
    """
    draw, seen, tries = random.Random(f"{seed}/{kind.metric}"), set[str](), 0
    while count:
        one, tries = kind.draw(draw), tries + 1
        if one.prompt in seen and tries < 100:
            continue
        seen.add(one.prompt)
        count, tries = count - 1, 0
        yield one


def _list(draw: random.Random) -> Instruction:
    count, things = draw.randint(2, 6), draw.choice(THINGS)
    return Instruction(
        prompt=f"List exactly {count} {things}, one on each line.", follows=lambda text: len(_lines(text)) == count
    )


def _length(draw: random.Random) -> Instruction:
    topic = draw.choice(TOPICS)
    if draw.random() < 0.5:
        return Instruction(
            prompt=f"Write exactly one sentence about {topic}.", follows=lambda text: len(_sentences(text)) == 1
        )
    most = draw.choice((5, 10, 15, 20))
    return Instruction(
        prompt=f"Write about {topic} in at most {most} words.", follows=lambda text: 0 < len(text.split()) <= most
    )


def _word(draw: random.Random) -> Instruction:
    word = draw.choice(WORDS)
    return Instruction(
        prompt=draw.choice(ALONE).format(word), follows=lambda text: re.sub(r"[^\w ]", "", text).strip().lower() == word
    )


def _sum(draw: random.Random) -> Instruction:
    one, other = draw.randint(1, 20), draw.randint(1, 20)
    if draw.random() < 0.5:
        one, other = max(one, other), min(one, other)
        return Instruction(prompt=f"What is {one} - {other}?", follows=_ends_in(one - other))
    return Instruction(prompt=f"What is {one} + {other}?", follows=_ends_in(one + other))


def _extraction(draw: random.Random) -> Instruction:
    colors, held = draw.sample(COLORS, BOXES), draw.choice(HELD)
    counts = draw.sample(range(2, 60), BOXES)
    facts = ", ".join(f"the {color} box holds {count} {held}" for color, count in zip(colors, counts, strict=True))
    asked = draw.randrange(BOXES)
    return Instruction(
        prompt=f"{facts[0].upper()}{facts[1:]}. How many {held} does the {colors[asked]} box hold?",
        follows=_ends_in(counts[asked]),
    )


def _ends_in(number: int) -> Callable[[str], bool]:
    """Return whether the last number of a text is this one."""
    return lambda text: re.findall(r"\d+", text)[-1:] == [str(number)]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(r"\w", line)]


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if re.search(r"\w", part)]


LISTS = Kind("lists of the asked length", _list)
LENGTHS = Kind("texts of the asked length", _length)
STOPS = Kind("one word and no more", _word)
ARITHMETIC = Kind("sums and differences", _sum)
EXTRACTION = Kind("a number found in the prompt", _extraction, chance=1 / BOXES)
KINDS = (LISTS, LENGTHS, STOPS, ARITHMETIC, EXTRACTION)
