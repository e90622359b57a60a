"""Near-duplicates among texts of several sources: those that a comparison of all pairs finds, and no others."""

import random

import numpy as np
from tiny_prose import prose, with_another_word

from lilliput.data.near_pairs import LIKENESS, near_pairs


def runs(text: str) -> set[str]:
    words = text.lower().replace(".", "").split()
    return {" ".join(words[place : place + 5]) for place in range(len(words) - 4)}


def test_they_are_those_that_share_most_runs_of_words():
    draw = random.Random(0)
    texts = [prose(draw, 60) for _ in range(150)]
    texts += [with_another_word(draw, text, draw.choice((1, 2, 4))) for text in texts[:60]]
    sources = np.array([draw.randrange(3) for _ in texts])
    sets = [runs(text) for text in texts]
    expected = set()
    for one in range(len(texts)):
        for other in range(len(texts)):
            is_asked = sources[one] != sources[other] or other < one
            if is_asked and len(sets[one] & sets[other]) >= LIKENESS * len(sets[one] | sets[other]):
                expected.add((one, int(sources[other])))
    found = list(near_pairs(texts, sources))
    assert {(pair.one, int(sources[pair.other])) for pair in found} == expected and len(found) == len(expected) > 30
    pair = found[0]
    both = sets[pair.one] & sets[pair.other]
    assert pair.likeness == len(both) / len(sets[pair.one] | sets[pair.other])


def test_copies_of_a_template_are_each_found_once_a_source():
    text = prose(random.Random(1), 60)
    texts = [f"{text} Number {n}." for n in range(400)]
    found = list(near_pairs(texts, np.arange(400) % 4))
    assert len(found) == 4 * 400 - 4, "the first one of each source has none before it there"


def test_short_texts_and_none_are_never_near_duplicates():
    assert list(near_pairs([], np.zeros(0, dtype=int))) == []
    assert list(near_pairs(["Yes, of course.", "Yes, of course.", ""], np.zeros(3, dtype=int))) == []
