"""Texts of random words, no two alike, and others that nearly are one of them."""

import random

SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu".split()


def prose(draw: random.Random, words: int) -> str:
    """A text of so many made-up words."""
    return " ".join("".join(draw.choices(SYLLABLES, k=3)) for _ in range(words)) + "."


def with_another_word(draw: random.Random, text: str, words: int = 1) -> str:
    """A text in which so many words are others."""
    parts = text.split(" ")
    for place in draw.sample(range(len(parts)), words):
        parts[place] = "something"
    return " ".join(parts)
