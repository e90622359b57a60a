"""Filters: what each drops or changes, and counts."""

import json
import random
import unicodedata
from pathlib import Path
from time import monotonic

from tiny_corpora import corpus_hash

from lilliput.base.spec import from_plain, to_plain
from lilliput.data.corpora import filters
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Clean, Exact, FilterChain, Filtered, Length, MostlyText, SeenParagraphs
from lilliput.data.documents import Document


def filtered(texts: list[str], *filters) -> tuple[list[str], dict[str, int]]:
    chain = FilterChain(filters)
    documents = [Document(text, str(index), str(index)) for index, text in enumerate(texts)]
    first = [document.text for document in chain.run(documents)]
    counts = dict(chain.counts)
    assert [document.text for document in chain.run(documents)] == first, "a run remembers nothing of the last one"
    assert dict(chain.counts) == counts
    return first, counts


PARTS = [
    *"ab\u00e9 \t\n\r\x0b\x1c\x85\xa0\u2028\u2029\u200b\u3000\u0301\u0323\u2001\u212a\ud800\U0001f642",
    " \n",
    "\n\n\n\n",
    "e\u0301",
]


def test_cleaning_looks_at_all_that_there_is() -> None:
    """What is passed over because it is not there, changes nothing: random texts, cleaned step by step."""
    draw = random.Random(5)
    for _ in range(3_000):
        some = draw.sample(PARTS, draw.choice((2, 4, 8))) + ["word"] * 4
        text = "".join(draw.choices(some, k=draw.choice((1, 5, 40, 200))))
        text += "\u0301" * draw.choice((0, 0, 0, 70))
        plain = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
        plain = unicodedata.normalize("NFC", filters._MARKS.sub(filters._ordered, filters._CONTROL.sub("", plain)))
        plain = filters._BLANK_LINES.sub("\n\n\n", filters._TRAILING.sub("", plain)).strip("\n")
        assert filtered([text], Clean())[0] == ([plain] if plain.strip() else [])
        words = sum(map(str.isalpha, text)) + sum(map(str.isspace, text))
        assert bool(filtered([text], MostlyText(letters=0.7))[0]) == (words >= 0.7 * len(text))


def test_clean() -> None:
    texts = ["e\u0301 \r\nb\x00\x1b\t x  \n\n\n\n\n\ny\ud800\ufeff\n", " \n\x01 ", "\n  indented\n"]
    kept, counts = filtered(texts, Clean())
    assert kept == ["é\nb\t x\n\n\ny", "  indented"]
    assert counts == {"kept": 2, "clean: empty": 1}


def test_clean_takes_no_longer_for_what_never_changes() -> None:
    """Of either, a million signs once took an hour: each was compared with all before it."""
    began = monotonic()
    marks = "a" + "\u0301\u0323" * 100_000
    kept, _ = filtered([" " * 200_000 + "x", marks, "\n \n" * 60_000 + "x"], Clean())
    assert monotonic() - began < 5
    composed = "\u1ea1" + "\u0323" * 99_999 + "\u0301" * 100_000
    assert [len(text) for text in kept[:2]] == [200_001, 200_000] and (kept[1] == composed) is True
    draw = random.Random(0)
    for length in (64, 65, 66, 200):
        text = "é" + "".join(draw.choices("\u0301\u0323\u0316\u0345\u3099\u05b0—🙂", k=length)) + "é"
        assert filtered([text], Clean())[0] == [unicodedata.normalize("NFC", text)]


def test_length_and_mostly_text() -> None:
    kept, counts = filtered(
        ["abc", "abcdef", "abcdefghi", "1234ab"], Length(at_least=4, at_most=8), MostlyText(letters=0.5)
    )
    assert kept == ["abcdef"]
    assert counts == {"kept": 1, "length: too short": 1, "length: too long": 1, "mostly text: too few letters": 1}


def test_exact_ignores_case_and_white_space() -> None:
    kept, counts = filtered(["One two", "one\n  TWO", "one three", "One two"], Exact())
    assert kept == ["One two", "one three"] and counts == {"kept": 2, "exact: duplicate": 2}


def test_seen_paragraphs_are_removed_and_mostly_seen_documents_dropped() -> None:
    long = ["The quick brown fox jumps over the lazy dog near the river " + name * 9 for name in "abcd"]
    texts = [
        f"{long[0]}\n\nshort\n\n{long[1]}",
        f"{long[2]} and much that nobody ever wrote before\n\nshort\n\n{long[0].upper()}",
        f"{long[0]}\n\n{long[1]}\n\n{long[3]}",
        long[3],
    ]
    kept, counts = filtered(texts, SeenParagraphs(share=0.5, at_least=60))
    assert kept[0] == texts[0]
    assert kept[1] == f"{long[2]} and much that nobody ever wrote before\n\nshort"
    assert kept[2:] == [long[3]], "the dropped third document did not count as having been there"
    assert counts == {"kept": 3, "seen paragraphs: mostly seen": 1}


def test_filtered_files_are_a_spec(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"Text number {number}, été."}) for number in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows * 2))
    source = TextFiles(paths=(str(tmp_path),))
    corpus = Filtered(source=source, filters=(Clean(), MostlyText(), Exact(), SeenParagraphs()))
    assert len(list(corpus.documents())) == 5
    again = from_plain(json.loads(json.dumps(to_plain(corpus))))
    assert again == corpus and corpus_hash(again.documents()) == corpus_hash(corpus.documents())
