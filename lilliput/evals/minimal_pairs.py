"""Generated minimal pairs: two sentences that differ in one word, of which grammar allows one.

The form is that of BLiMP (Warstadt et al. 2020, arXiv 1912.00582): a model is right where the sentence that grammar
allows is the likelier one, summed over its tokens. Phenomena, templates and words are our own, so that no file of a
published test can have been learned in their place. Each form is right in every other pair, so that a model that
prefers one of them, or the shorter one, is right half of the time.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lilliput.base.files import write_text

PAIRS = 400
"""Pairs of each phenomenon; one standard error at chance is 2.5 points."""

PEOPLE = (
    ("plumber", "plumbers"), ("gardener", "gardeners"), ("librarian", "librarians"), ("beekeeper", "beekeepers"),
    ("postman", "postmen"), ("fisherman", "fishermen"), ("violinist", "violinists"), ("carpenter", "carpenters"),
    ("tailor", "tailors"), ("sailor", "sailors"), ("mayor", "mayors"), ("potter", "potters"),
)  # fmt: skip
THINGS = (
    ("kettle", "kettles"), ("lantern", "lanterns"), ("ladder", "ladders"), ("basket", "baskets"),
    ("blanket", "blankets"), ("shelf", "shelves"), ("knife", "knives"), ("bench", "benches"),
    ("barrel", "barrels"), ("compass", "compasses"), ("anvil", "anvils"), ("canoe", "canoes"),
)  # fmt: skip
ADJECTIVES = ("heavy", "yellow", "dusty", "narrow", "wooden", "cheap", "crooked", "shiny", "old", "broken")
PLACES = ("near the harbor", "behind the mill", "in the attic", "beside the chapel", "under the bridge", "by the well")
STATES = ("tired", "hungry", "late", "patient", "careful", "proud", "quiet", "busy")
ACTS = (("repair", "repairs"), ("carry", "carries"), ("paint", "paints"), ("clean", "cleans"), ("sell", "sells"))
PAST = (("took", "taken"), ("wrote", "written"), ("broke", "broken"), ("chose", "chosen"), ("stole", "stolen"),
        ("drew", "drawn"), ("hid", "hidden"), ("threw", "thrown"))  # fmt: skip
PRONOUNS = (("he", "him"), ("she", "her"), ("they", "them"), ("we", "us"))
REFLECTED = ("admired", "hurt", "blamed", "praised", "washed", "defended")
MEN = tuple(f"the {noun}" for noun in ("uncle", "grandfather", "king", "nephew", "monk", "duke", "groom", "waiter"))
WOMEN = tuple(
    f"the {noun}" for noun in ("aunt", "grandmother", "queen", "niece", "nun", "duchess", "bride", "waitress")
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sentences."""

    good: str
    bad: str


def minimal_pairs(phenomenon: str, *, count: int = PAIRS, seed: int = 0) -> list[Pair]:
    """Distinct pairs of a phenomenon, a function of the seed.

    Args:
        phenomenon: one of `PHENOMENA`.
        count: number of pairs.
        seed: of the draw.
    """
    draw, found = random.Random(f"minimal pairs/{phenomenon}/{seed}"), dict[Pair, None]()
    while len(found) < count:
        found[PHENOMENA[phenomenon](draw, len(found) % 2)] = None
    return list(found)


def write_pairs(phenomenon: str, path: Path, *, seed: int = 0) -> Path:
    """Write the pairs of a phenomenon as JSON lines, the right sentence first in every other one."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in _rows(minimal_pairs(phenomenon, seed=seed))))
    return path


def _rows(pairs: list[Pair]) -> Iterator[dict[str, object]]:
    for number, pair in enumerate(pairs):
        sentences = (pair.good, pair.bad) if number % 2 == 0 else (pair.bad, pair.good)
        yield {"sentences": list(sentences), "label": number % 2}


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _pair(template: str, good: str, bad: str) -> Pair:
    """The template with the one word in its gap, and with the other."""
    return Pair(good=_capital(template.replace("_", good)), bad=_capital(template.replace("_", bad)))


def _agreement(draw: random.Random, number: int) -> Pair:
    noun, (many, one) = draw.choice(PEOPLE)[number], draw.choice(ACTS)
    verbs = (one, many) if number == 0 else (many, one)
    thing = draw.choice(THINGS)[draw.randrange(2)]
    return _pair(f"the {noun} {draw.choice(PLACES)} _ the {draw.choice(ADJECTIVES)} {thing}.", *verbs)


def _attraction(draw: random.Random, number: int) -> Pair:
    """A noun of the other number stands between the subject and its verb."""
    subject, other = draw.choice(THINGS)[number], draw.choice(PEOPLE)[1 - number]
    verbs = ("is", "are") if number == 0 else ("are", "is")
    return _pair(f"the {subject} of the {other} _ {draw.choice(ADJECTIVES)}.", *verbs)


def _relative(draw: random.Random, number: int) -> Pair:
    """A clause about the subject stands between it and its verb."""
    subject, other = draw.choice(PEOPLE)[number], draw.choice(PEOPLE)[1 - number]
    verbs = ("was", "were") if number == 0 else ("were", "was")
    return _pair(f"the {subject} that the {other} {draw.choice(REFLECTED)} _ {draw.choice(STATES)}.", *verbs)


def _determiner(draw: random.Random, number: int) -> Pair:
    nouns = draw.choice(THINGS)
    determiner = (draw.choice(("this", "that")), draw.choice(("these", "those")))[number]
    person, act = draw.choice(PEOPLE)[1], draw.choice(ACTS)[0]
    sentence = f"the {person} {act} {determiner} {draw.choice(ADJECTIVES)} _ {draw.choice(PLACES)}."
    return _pair(sentence, nouns[number], nouns[1 - number])


def _reflexive_number(draw: random.Random, number: int) -> Pair:
    subject = draw.choice((*MEN, *WOMEN)) if number == 0 else f"the {draw.choice(PEOPLE)[1]}"
    own = "herself" if subject in WOMEN else "himself" if number == 0 else "themselves"
    other = "themselves" if number == 0 else draw.choice(("himself", "herself"))
    return _pair(f"{subject} {draw.choice(PLACES)} {draw.choice(REFLECTED)} _.", own, other)


def _reflexive_gender(draw: random.Random, number: int) -> Pair:
    subject = draw.choice((MEN, WOMEN)[number])
    forms = ("himself", "herself") if number == 0 else ("herself", "himself")
    return _pair(f"{subject} {draw.choice(PLACES)} {draw.choice(REFLECTED)} _.", *forms)


def _participle(draw: random.Random, number: int) -> Pair:
    """After a form of "have", or without one."""
    past, participle = draw.choice(PAST)
    person, thing = draw.choice(PEOPLE)[draw.randrange(2)], draw.choice(THINGS)[draw.randrange(2)]
    if number == 0:
        return _pair(f"the {person} had _ the {draw.choice(ADJECTIVES)} {thing}.", participle, past)
    return _pair(f"the {person} {draw.choice(PLACES)} _ the {draw.choice(ADJECTIVES)} {thing}.", past, participle)


def _case(draw: random.Random, number: int) -> Pair:
    """A pronoun is the subject, or the object."""
    subject, other = draw.choice(PRONOUNS)
    person, place = draw.choice(PEOPLE)[draw.randrange(2)], draw.choice(PLACES)
    if number == 0:
        return _pair(f"_ {draw.choice(REFLECTED)} the {person} {place}.", subject, other)
    return _pair(f"the {person} {place} {draw.choice(REFLECTED)} _.", other, subject)


PHENOMENA: dict[str, Callable[[random.Random, int], Pair]] = {
    "agreement": _agreement,
    "attraction": _attraction,
    "relative_clause": _relative,
    "determiner": _determiner,
    "reflexive_number": _reflexive_number,
    "reflexive_gender": _reflexive_gender,
    "participle": _participle,
    "case": _case,
}
"""Makers of a pair by phenomenon, given the draw and a number: 0 for one of the two forms, 1 for the other."""
