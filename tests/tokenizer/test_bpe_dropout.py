"""Other tokenizations of the same words: the same text, the same each time, and now and then another one."""

import pytest
import tiny
from tokenizers import Tokenizer, models

from lilliput.base.errors import DataError
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.bpe_dropout import DRAWS, BPEDropout
from lilliput.tokenizer.merging import byte_of
from lilliput.tokenizer.words import Words

TEXT = "Small models learn: 12 pieces, l'été 中🙂 — and \t\n\n  don't stop.  "


@pytest.fixture(scope="module")
def tokenizer():
    return BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(50)])


def text_of(words):
    return bytes(byte_of(letter) for word in words for letter in word.letters).decode()


@pytest.mark.parametrize("digits", [True, False])
def test_words_are_those_that_the_tokenizer_sees(digits):
    tokenizer = BPE(vocab=tiny.VOCAB, digits=digits).train([tiny.sentences(n) for n in range(50)])
    ids = tokenizer.encode(TEXT).ids
    words = list(Words(tokenizer).of(ids))
    assert text_of(words) == TEXT and sum(word.tokens for word in words) == len(ids)
    assert [word.letters for word in words] == [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(TEXT)]


def test_rows_may_begin_and_end_within_a_letter(tokenizer):
    ids = tokenizer.encode(TEXT).ids
    for start in range(len(ids)):
        for end in range(start + 1, len(ids) + 1):
            words = list(Words(tokenizer).of(ids[start:end]))
            assert sum(word.tokens for word in words) == end - start
            letters = "".join(tokenizer.id_to_token(identity) for identity in ids[start:end])
            assert "".join(word.letters for word in words) == letters


def test_special_tokens_are_words_without_letters(tokenizer):
    words = list(Words(tokenizer).of([0, *tokenizer.encode("models").ids, 0]))
    assert [word.letters for word in words] == ["", "models", ""]


def test_without_dropout_words_have_their_own_tokens(tokenizer):
    bpe, ids = BPEDropout(tokenizer, 0.0, seed=0), tokenizer.encode(TEXT).ids
    drawn = [identity for word in Words(tokenizer).of(ids) for identity in bpe.draw(word.letters, 5)[0]]
    assert drawn == ids


def test_draws_are_of_the_same_text_and_a_function_of_seed_word_and_number(tokenizer):
    word, bpe = "Ġmodels", BPEDropout(tokenizer, 0.3, seed=1)
    found = [bpe.draw(word, number) for number in range(DRAWS)]
    for ids, sizes in found:
        assert "".join(map(tokenizer.id_to_token, ids)) == word
        assert sizes == tuple(len(tokenizer.id_to_token(identity)) for identity in ids)
    again, other = BPEDropout(tokenizer, 0.3, seed=1), BPEDropout(tokenizer, 0.3, seed=2)
    assert (
        found
        == [again.draw(word, number) for number in range(DRAWS)]
        != [other.draw(word, number) for number in range(DRAWS)]
    )
    assert 1 < len(set(found)) < DRAWS and found[0] == bpe.draw(word, DRAWS)
    assert BPEDropout(tokenizer, 0.999, seed=0).draw(word, 0)[1] == (1,) * len(word), "almost no merge is left"


def test_a_tokenizer_of_unknown_rules_is_refused():
    with pytest.raises(DataError, match="no BPE over bytes"):
        BPEDropout(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), 0.1, seed=0)
