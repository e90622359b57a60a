"""Filters: what each drops or changes, and counts."""

import json
import random
import unicodedata
from pathlib import Path
from time import monotonic

from tiny_corpora import corpus_hash

from lilliput.base.spec import from_plain, to_plain
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
