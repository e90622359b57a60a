"""Texts with planted faults, and how many of them each filter of curation finds: recall and precision."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lilliput.data.corpora.filters import Exact, Filter, InLanguage
from lilliput.data.corpora.filters.c4 import C4Quality
from lilliput.data.corpora.filters.decontaminate import Decontaminate
from lilliput.data.corpora.filters.fineweb import FineWebQuality
from lilliput.data.corpora.filters.gopher import GopherQuality, GopherRepetition
from lilliput.data.corpora.filters.mojibake import RepairMojibake
from lilliput.data.corpora.filters.near_duplicates import NearDuplicates
from lilliput.data.corpora.filters.personal_data import PersonalData
from lilliput.data.documents import Document
from lilliput.data.ngram_index import NgramIndex

COUNT = 60
"""Of planted texts of a kind, among ten times as many that are fine."""
NOUNS = """river garden teacher window letter engine valley doctor market painter bridge captain forest kitchen
library farmer station island writer harbor village student castle museum meadow mountain orchard
sailor lantern theater""".split()
VERBS = """watched carried followed painted repaired crossed remembered described measured visited opened
studied found reached admired answered protected surrounded replaced questioned""".split()
ADJECTIVES = """quiet narrow ancient bright careful distant gentle hollow patient silver broken crowded golden
humble lonely modern pleasant rapid sudden wooden""".split()
PLACES = """near the harbor| before the winter| behind the old mill| with great care| on a cold morning| after
the long war| without any help| for many years| in the early spring| under the stone arch| by the
light of a candle| at the end of the road"""
GERMAN = """Der alte Mann ging langsam durch den Wald und dachte an seine Kinder.| Die Stadt hatte im Winter
kaum Licht, und die Leute blieben zu Hause.| Er schrieb ihr einen langen Brief, den sie niemals
bekam.| Am Morgen lag Schnee auf den Dächern der kleinen Häuser.| Wir haben gestern über die neue
Brücke gesprochen, die niemand braucht."""
FRENCH = """Le vieil homme marchait lentement dans la forêt et pensait à ses enfants.| La ville n'avait presque
pas de lumière en hiver, et les gens restaient chez eux.| Il lui écrivit une longue lettre qu'elle
ne reçut jamais.| Au matin, la neige couvrait les toits des petites maisons.| Nous avons parlé hier
du nouveau pont dont personne n'a besoin."""
SPANISH = """El viejo caminaba despacio por el bosque y pensaba en sus hijos.| La ciudad apenas tenía luz en
invierno, y la gente se quedaba en casa.| Le escribió una larga carta que ella nunca recibió.| Por
la mañana la nieve cubría los tejados de las casas pequeñas.| Ayer hablamos del puente nuevo que
nadie necesita."""
ACCENTED = "café naïve Zürich señor façade fiancée Málaga “quoted” it’s — déjà".split()
PERSONAL = (
    "write to anna.smith+news@mail.example-host.co.uk",
    "mail jo_doe99@hotmail.com",
    "<Sales@Shop.org>",
    "the server 8.8.4.4",
    "from 81.2.69.142.",
    "at 2606:4700:4700::1111",
    "call (212) 642-4100",
    "call 415-555-2671",
    "+1 650.253.0000",
    "ring +44 20 7946 0958",
    "ruf +49 (0)30 1234567",
    "1-800-234-5678",
)
"""Personal data in the forms that people write."""
HARMLESS = (
    "version 10.0.0.1 of the local network",
    "at 127.0.0.1:8080",
    "v1.2.3.4",
    "release 3.11.7",
    "at 12:34:56",
    "in 1914-1918",
    "on 2024-05-17",
    "ISBN 978-3-16-148410-0",
    "page 200 of 300 and 4000",
    "@handle",
    "a @ b",
    "1,234,567,890 people",
    "the sum of 2125551234",
    "std::vector",
    "dead:beef",
    "3.14159",
)
"""Other numbers and signs that look a little like it."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A filter on the texts that are fine and those of one kind that are not."""

    filter: str
    planted: str
    """Kind of fault."""
    count: int
    recall: float
    """Share of faulty texts that were dropped, or repaired in full."""
    precision: float
    """Share of texts that are faulty, of those that were dropped or changed."""


def found(folder: Path, seed: int = 0) -> Iterator[Found]:
    """Judge every kind of fault by the filter that is made for it."""
    draw = random.Random(seed)
    fine = [prose(draw) for _ in range(10 * COUNT)]
    items = [" ".join(sentence(draw).split()[:14]) for _ in range(COUNT)]
    NgramIndex(("planted", item) for item in items).write(folder / "index")
    kinds: Sequence[tuple[str, Filter, Callable[[], str]]] = (
        ("another language", InLanguage(languages=("en",)), lambda: foreign(draw)),
        ("too few words", GopherQuality(), lambda: sentence(draw)),
        ("hash signs", GopherQuality(), lambda: " ".join(f"#{word} and" for word in prose(draw).split())),
        ("word lists", GopherQuality(), lambda: " ".join(draw.choices(NOUNS, k=200))),
        (
            "repeated lines",
            GopherRepetition(),
            lambda: "\n".join(draw.choices([sentence(draw) for _ in range(5)], k=40)),
        ),
        ("repeated runs", GopherRepetition(), lambda: f"{prose(draw)} {sentence(draw) * 20}"),
        ("menus", FineWebQuality(), lambda: "\n".join(draw.choices(NOUNS, k=60))),
        ("code", C4Quality(), lambda: f"{prose(draw)}\nif (x) {{ return 1; }} and so on."),
        ("placeholder text", C4Quality(), lambda: f"{prose(draw)}\nLorem ipsum dolor sit amet."),
        ("duplicates", Exact(), lambda: draw.choice(fine).upper().replace(" ", "\n ")),
        ("near-duplicates", NearDuplicates(), lambda: nearly(draw.choice(fine), draw, every=60)),
        (
            "benchmark items",
            Decontaminate(index=str(folder / "index")),
            lambda: within(draw, draw.choice(items).upper()),
        ),
    )
    for planted, filter_, make in kinds:
        yield judged(filter_, planted, fine, [make() for _ in range(COUNT)])
    wrong = [within(draw, " ".join(draw.choices(ACCENTED, k=8))) for _ in range(11 * COUNT)]
    yield repaired(RepairMojibake(), "mojibake", wrong[COUNT:], [(garbled(text), text) for text in wrong[:COUNT]])
    harmless = [within(draw, f"{text} and so on") for text in HARMLESS for _ in range(COUNT // 4)]
    private = [(within(draw, draw.choice(PERSONAL)), None) for _ in range(COUNT)]
    yield repaired(PersonalData(), "personal data", fine + harmless, private)


def judged(filter_: Filter, planted: str, fine: list[str], faulty: list[str]) -> Found:
    """Drop faulty texts; they come after those that are fine, as duplicates do."""
    judge = filter_.begin()
    dropped = [isinstance(judge(document(text)), str) for text in fine + faulty]
    right = sum(dropped[len(fine) :])
    return Found(
        filter=filter_.name,
        planted=planted,
        count=len(faulty),
        recall=right / len(faulty),
        precision=right / max(1, sum(dropped)),
    )


def repaired(filter_: Filter, planted: str, fine: list[str], faulty: list[tuple[str, str | None]]) -> Found:
    """Repair faulty texts: into the text beside them, or where there is none into one without personal data."""
    judge = filter_.begin()

    def changed(text: str) -> str:
        return getattr(judge(document(text)), "text", "")

    right = sum(changed(bad) == good if good else is_free(changed(bad)) for bad, good in faulty)
    wrong = sum(changed(text) != text for text in fine)
    return Found(
        filter=filter_.name,
        planted=planted,
        count=len(faulty),
        recall=right / len(faulty),
        precision=right / max(1, right + wrong),
    )


def is_free(text: str) -> bool:
    """Return whether no planted address or number is left."""
    hidden = [max(one.strip("<>.").split(" ", 1), key=len) for one in PERSONAL]
    return not any(one in text for one in hidden)


def document(text: str) -> Document:
    return Document(text, "a", "a")


def sentence(draw: random.Random) -> str:
    place = draw.choice(PLACES.replace("\n", " ").split("| "))
    subject, object_, third = (f"{draw.choice(ADJECTIVES)} {draw.choice(NOUNS)}" for _ in range(3))
    return f"The {subject} {draw.choice(VERBS)} the {object_} {place}, and that {draw.choice(VERBS)} the {third}. "


def prose(draw: random.Random, paragraphs: int = 4) -> str:
    return "\n\n".join("".join(sentence(draw) for _ in range(6)).strip() for _ in range(paragraphs))


def within(draw: random.Random, inserted: str) -> str:
    return f"{prose(draw)} So {inserted} was there.\n\n{prose(draw)}"


def foreign(draw: random.Random) -> str:
    said = draw.choice((GERMAN, FRENCH, SPANISH)).replace("\n", " ").split("| ")
    return " ".join(draw.choices(said, k=12))


def nearly(text: str, draw: random.Random, every: int) -> str:
    """A text with one word in so many replaced."""
    words = text.split(" ")
    for place in range(draw.randrange(every), len(words), every):
        words[place] = "something"
    return " ".join(words)


def garbled(text: str) -> str:
    """UTF-8 that was read as Windows-1252, as browsers read it."""
    return "".join(chr(one) if one in _UNDEFINED else bytes([one]).decode("cp1252") for one in text.encode())


_UNDEFINED = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
"""Bytes that Windows-1252 has no character for; browsers read them as control characters."""
