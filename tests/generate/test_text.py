"""Text of tokens as they come: whole characters, stop strings wherever tokens end, at a cost per token that stays."""

import pytest
import tiny

from lilliput.generate.detokenizer import WINDOW, Detokenizer
from lilliput.generate.stop_strings import StopStrings
from lilliput.tokenizer.bpe import BPE

TEXTS = ["plain text", " a blank first", "été 🙂👩‍👩‍👧 日本語\n\n  more", "🙂" * 40, "x" * 200 + "é"]


@pytest.fixture(scope="module")
def tokenizer():
    return BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(50)])


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_together_the_text(tokenizer, text):
    stream = Detokenizer(tokenizer)
    pieces = [stream.add(token) for token in tokenizer.encode(text).ids]
    assert "".join(pieces) == text and not stream.rest()
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_shown_as_such(tokenizer):
    ids = tokenizer.encode("ab🙂").ids
    stream = Detokenizer(tokenizer)
    assert "".join(map(stream.add, ids[:-1])) == "ab" and set(stream.rest()) == {"\ufffd"}
    stream = Detokenizer(tokenizer)
    assert "".join(map(stream.add, [*ids[:-1], *tokenizer.encode("cd").ids])).endswith("cd"), "broken bytes are passed"


def test_what_is_written_is_not_decoded_again(tokenizer):
    class Counting:
        def __init__(self):
            self.longest = 0

        def encode(self, *given, **settings):
            return tokenizer.encode(*given, **settings)

        def decode(self, ids, **settings):
            self.longest = max(self.longest, len(ids))
            return tokenizer.decode(ids, **settings)

    counting = Counting()
    stream = Detokenizer(counting)  # type: ignore[arg-type]
    for token in tokenizer.encode("small models learn " * 100).ids:
        stream.add(token)
    assert counting.longest <= 2 * WINDOW


@pytest.mark.parametrize("size", [1, 2, 3, 50])
@pytest.mark.parametrize(
    ("stops", "text", "kept"),
    [
        (("END",), "one ENE two ENDmore", "one ENE two "),
        (("abab", "bac"), "xababab", "x"),
        (("aab",), "aaaab", "aa"),
        (("\n\n", "User:"), "hi\nUser; \nUser:", "hi\nUser; \n"),
        (("late", "a"), "pxlate", "pxl"),
        (("never",), "this nev", "this nev"),
        ((), "all of it", "all of it"),
    ],
)
def test_a_stop_string_ends_a_text_wherever_pieces_end(stops, text, kept, size):
    stream, shown, ended = StopStrings(stops), "", False
    for start in range(0, len(text), size):
        piece, ended = stream.add(text[start : start + size])
        shown += piece
        assert kept.startswith(shown)
        if ended:
            break
    assert (shown if ended else shown + stream.rest()) == kept and ended == (kept != text)
