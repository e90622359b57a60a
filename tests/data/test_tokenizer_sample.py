"""What a tokenizer learns from: all of little, and of much a part from everywhere, whatever the order of the files."""

from dataclasses import dataclass

import pytest

from lilliput.data.corpora.files import TextFiles
from lilliput.data.documents import Document
from lilliput.data.small_corpora import Ends, WithHeldOutEnds
from lilliput.data.split import Split
from lilliput.data.tokenizer_sample import sampled

NONE = Split(share=0)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Documents that are counted as they are read."""

    read: list

    def documents(self):
        for number in range(1_000):
            self.read.append(number)
            yield Document("x" * 100, f"{number}", f"{number}")


@pytest.fixture
def folder(tmp_path):
    for index, letter in enumerate("abcd"):
        for number in range(50):
            (tmp_path / f"{index}-{number:02}.txt").write_text(letter * 1_000)
    return tmp_path


def test_little_is_taken_whole_and_in_order(folder):
    corpus = TextFiles(paths=(str(folder),))
    texts = list(sampled(corpus, NONE, 200_000))
    assert texts == [document.text for document in corpus.documents()]
    split = Split(share=0.3)
    kept = [document.text for document in corpus.documents() if not split.is_heldout(document.group)]
    assert list(sampled(corpus, split, 10**9)) == kept and len(kept) < 200


def test_of_much_every_folder_has_its_part(folder):
    texts = list(sampled(TextFiles(paths=(str(folder),)), NONE, 50_000))
    assert 35_000 < sum(map(len, texts)) <= 51_000
    for letter in "abcd":
        assert 4 <= sum(text[0] == letter for text in texts) <= 22, "12.5 expected"
    assert texts == list(sampled(TextFiles(paths=(str(folder),)), NONE, 50_000)), "the same every time"


def test_one_long_text_is_sampled_in_parts_from_all_over(tmp_path):
    (tmp_path / "book.txt").write_text("".join(f"{number:09}\n" for number in range(2_000_000)))
    texts = list(sampled(TextFiles(paths=(str(tmp_path / "book.txt"),)), NONE, 4_000_000))
    assert 2_000_000 < sum(map(len, texts)) < 6_000_000
    assert min(map(len, texts)) > 10_000 and int(texts[-1].split()[-2]) > 1_500_000


def test_a_text_whose_end_is_held_out_is_sampled_like_any(tmp_path):
    (tmp_path / "book.txt").write_text("".join(f"{number:09}\n" for number in range(200_000)))
    parted = WithHeldOutEnds(source=TextFiles(paths=(str(tmp_path / "book.txt"),)), share=0.05)
    texts = list(sampled(parted, Ends(share=0.05), 400_000))
    assert 200_000 < sum(map(len, texts)) < 600_000 and 150_000 < int(texts[-1].split()[-2]) < 190_000


def test_of_a_long_text_in_a_stream_the_beginning_is_taken():
    assert list(sampled(Stream(read=[]), NONE, 50)) == ["x" * 50]


def test_a_stream_is_read_no_further_than_needed():
    read: list[int] = []
    assert len(list(sampled(Stream(read=read), NONE, 1_000))) == 10 and len(read) == 10
