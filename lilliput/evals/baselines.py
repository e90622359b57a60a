"""Baselines of held-out bits per byte: a token unigram, and xz with and without the training text.

All three see the same texts as the model. Bits per byte always divides by the UTF-8 bytes of the texts alone.
"""

import lzma
from collections.abc import Iterable, Sequence

import numpy as np

from lilliput.base.background import BackgroundCall, run_in_background
from lilliput.base.errors import DataError

DICTIONARY = 64 * 2**20
"""Bytes that xz -9 can look back on."""


def unigram_bits_per_byte(train_counts: np.ndarray, heldout_tokens: np.ndarray, text_bytes: int) -> float:
    """Bits per byte of a model that knows only how often each token occurs in training.

    -sum over held-out tokens t of log2((count_t + 1) / (N + V)), divided by the bytes of the held-out texts.

    Args:
        train_counts: [V] integers, how often each id of the vocabulary occurs in training; N is their sum.
        heldout_tokens: [T] integers, the ids of the held-out texts alone, without document ends.
        text_bytes: UTF-8 bytes of the held-out texts.

    Raises:
        DataError: a held-out id lies outside the vocabulary, or there is no held-out text.
    """
    vocabulary = len(train_counts)
    if text_bytes < 1 or heldout_tokens.size == 0:
        raise _no_text()
    if int(heldout_tokens.min()) < 0 or int(heldout_tokens.max()) >= vocabulary:
        raise DataError(
            f"a held-out token id lies outside the vocabulary of {vocabulary} ids",
            where="the held-out tokens of the unigram baseline",
            hint="encode the held-out text with the tokenizer that encoded the training text",
        )
    heldout_counts = np.bincount(heldout_tokens.astype(np.int64), minlength=vocabulary)
    bits = np.log2(train_counts.sum(dtype=np.int64) + vocabulary) - np.log2(train_counts.astype(np.float64) + 1)
    return float(heldout_counts @ bits) / text_bytes


def xz_bits_per_byte(texts: Sequence[str]) -> float:
    """Bits per byte of `xz -9` on the texts joined by one zero byte.

    Raises:
        DataError: there is no text.
    """
    return 8 * run_in_background(_compressed_size, _joined(texts)) / _text_bytes(texts)


def xz_bits_per_byte_given(train_texts: Iterable[str], heldout_texts: Sequence[str]) -> float:
    """Bits per byte that the held-out texts add to `xz -9` of the training texts: xz sees what the model saw.

    (bytes of xz(training + held-out) - bytes of xz(training)), texts joined by zero bytes. `xz -9` looks back 64 MiB;
    of longer training text only the last 64 MiB, less the held-out text, are used, which is all that xz could copy
    from. The two compressions run in two threads, each with some 700 MB of memory;
    32 MB of text took 34 seconds on two busy cores.

    Raises:
        DataError: there is no held-out text.
    """
    text_bytes = _text_bytes(heldout_texts)
    heldout = _joined(heldout_texts)
    train = _joined(train_texts) + b"\0"
    train = train[max(0, len(train) + len(heldout) - DICTIONARY) :]
    both, alone = BackgroundCall(_compressed_size, train + heldout), BackgroundCall(_compressed_size, train)
    return 8 * (both.result() - alone.result()) / text_bytes


def _joined(texts: Iterable[str]) -> bytes:
    return b"\0".join(text.encode() for text in texts)


def _text_bytes(texts: Sequence[str]) -> int:
    size = sum(len(text.encode()) for text in texts)
    if size == 0:
        raise _no_text()
    return size


def _compressed_size(data: bytes) -> int:
    return len(lzma.compress(data, preset=9))


def _no_text() -> DataError:
    return DataError(
        "there is no held-out text to compress",
        where="the baselines of held-out bits per byte",
        hint="raise the share of text that is held out",
    )
