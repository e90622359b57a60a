"""Baselines of held-out bits per byte equal their definitions."""

import lzma
import math
import random
import shutil
import subprocess

import numpy as np
import pytest

from lilliput.base.errors import DataError
from lilliput.evals import baselines
from lilliput.evals.baselines import unigram_bits_per_byte, xz_bits_per_byte, xz_bits_per_byte_given


def words(count: int, seed: int) -> str:
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("etaoinshr", k=chance.randint(2, 7))) for _ in range(count))


def test_unigram_is_add_one_smoothing_over_the_vocabulary() -> None:
    counts = np.array([3, 0, 5, 0], dtype=np.int64)
    heldout = np.array([0, 2, 2, 1, 3], dtype=np.uint16)
    probabilities = [4 / 12, 6 / 12, 6 / 12, 1 / 12, 1 / 12]
    expected = -sum(map(math.log2, probabilities)) / 9
    assert unigram_bits_per_byte(counts, heldout, 9) == pytest.approx(expected, rel=1e-12)


def test_unigram_refuses_ids_of_another_vocabulary_and_empty_text() -> None:
    with pytest.raises(DataError, match="outside the vocabulary of 4 ids"):
        unigram_bits_per_byte(np.ones(4, dtype=np.int64), np.array([1, 4]), 5)
    with pytest.raises(DataError, match="no held-out text"):
        unigram_bits_per_byte(np.ones(4, dtype=np.int64), np.array([], dtype=np.int64), 0)


def test_xz_is_the_xz_file_over_the_bytes_of_the_texts_alone() -> None:
    texts = [words(400, 1), "fünf Gänse", words(300, 2)]
    file = lzma.compress(
        b"\0".join(text.encode() for text in texts),
        format=lzma.FORMAT_XZ,
        check=lzma.CHECK_CRC64,
        filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}],
    )
    size = sum(len(text.encode()) for text in texts)
    assert xz_bits_per_byte(texts) == 8 * len(file) / size
    with pytest.raises(DataError, match="no held-out text"):
        xz_bits_per_byte([])


@pytest.mark.skipif(shutil.which("xz") is None, reason="needs the xz program")
def test_xz_is_what_the_xz_program_writes() -> None:
    texts = [words(4000, 3), words(3000, 4)]
    data = "\0".join(texts).encode()
    written = subprocess.run(["xz", "-9", "-T1", "--stdout"], input=data, capture_output=True, check=True).stdout
    assert xz_bits_per_byte(texts) == 8 * len(written) / (len(data) - 1)


def test_xz_given_training_text_is_what_the_held_out_text_adds() -> None:
    train, heldout = [words(2000, 5), words(2000, 6)], [words(500, 7), words(400, 8)]
    alone = "\0".join(train).encode() + b"\0"
    both = alone + "\0".join(heldout).encode()
    added = len(lzma.compress(both, preset=9)) - len(lzma.compress(alone, preset=9))
    size = sum(map(len, heldout))
    assert xz_bits_per_byte_given(iter(train), heldout) == 8 * added / size
    # Text seen in training costs next to nothing.
    assert xz_bits_per_byte_given(train, train[:1]) < 0.1 < xz_bits_per_byte(train[:1])


def test_xz_forgets_training_text_beyond_its_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    old, recent, heldout = [words(900, 9)], [words(900, 10)], [words(200, 11)]
    sizes = [len(text[0].encode()) + 1 for text in (old, recent, heldout)]
    monkeypatch.setattr(baselines, "DICTIONARY", sizes[1] + sizes[2] - 1)
    assert xz_bits_per_byte_given(old + recent, heldout) == xz_bits_per_byte_given(recent, heldout)


def test_the_dictionary_of_preset_9_is_64_mebibytes() -> None:
    # The block header names the filter and then its dictionary size: d stands for (2 | (d & 1)) << (d // 2 + 11).
    header = lzma.compress(b"text", preset=9)[12:]
    assert header[2:4] == bytes([0x21, 1])  # LZMA2, one byte of properties
    code = header[4]
    assert (2 | (code & 1)) << (code // 2 + 11) == baselines.DICTIONARY
