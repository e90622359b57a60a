"""The fast encoder gives the ids of `tokenizers`, or is not used."""

import random
from array import array

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from lilliput.base.errors import DataError
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.encoder import Encoder
from lilliput.tokenizer.fast_bpe import COMPARED, KNOWN, FastBPE
from lilliput.tokenizer.specials import literal

WORDS = (
    "the| the|'s| 12|\n\n|  |   |\n | \n|'ll|don't| 3.14|é|naïve|—|“|”|’s| …|日本|한국|😀| привет|<|endoftext|>".split(
        "|"
    )
)
ASCII = " \n" * 6 + "abcdefghijklmnopqrstuvwxyz" * 2 + "ABCXYZ0123456789'.,;:!?-()\"#/*_=+<>{}[]$%&@^~|`\\"
UNKNOWN = "\t \x0b \u3000 \u2160 \u24b6 \u00a0 \x00 \U000e0041".split(" ")


def texts(count, seed, further=""):
    """Texts of words, plain characters and any characters that are known."""
    draw = random.Random(seed)
    characters = [chr(code) for first, last in KNOWN for code in range(first, last + 1)] + list(further) * 500

    def part():
        kind = draw.random()
        return draw.choice(WORDS if kind < 0.4 else ASCII if kind < 0.8 else characters)

    return ["".join(part() for _ in range(draw.choice([0, 1, 3, 10, 60, 300]))) for _ in range(count)]


@pytest.fixture(scope="module", params=[True, False], ids=["digits", "no digits"])
def tokenizer(request):
    return literal(BPE(vocab=600, digits=request.param, at_most=True).train(texts(300, seed=9)))


@pytest.fixture
def fast(tokenizer):
    pytest.importorskip("tokie")
    found = FastBPE.of(tokenizer)
    assert found is not None
    return found


def slow(tokenizer, some):
    return [array("I", one.ids) for one in tokenizer.encode_batch_fast(some, add_special_tokens=False)]


def test_ids_of_known_texts_are_those_of_tokenizers(tokenizer, fast):
    some = [*texts(8_000, seed=1), "<|endoftext|> a<|pad|>", "a" * 5_000, " " * 5_000, "1" * 3_000, "\n" * 3_000]
    assert fast.encode_batch(some) == slow(tokenizer, some)


def test_other_texts_are_left_to_tokenizers(tokenizer, fast):
    some = texts(500, seed=2, further="".join(UNKNOWN)) + [f"a{one} {one}{one} b" for one in UNKNOWN]
    assert fast.encode_batch(some) == slow(tokenizer, some)


@pytest.mark.parametrize("code", "HI")
def test_an_encoder_gives_the_same_ids_with_it_and_without(tokenizer, fast, code, monkeypatch):
    some = [*texts(200, seed=3), " ".join(texts(200, seed=4))]
    found = list(Encoder(tokenizer, code=code).stream(some))
    monkeypatch.setattr("lilliput.tokenizer.fast_bpe.tokie", None)
    assert FastBPE.of(tokenizer) is None
    assert found == list(Encoder(tokenizer, code=code).stream(some))


def test_ids_that_differ_end_it(tokenizer, fast):
    """Another tokenizer stands for a fast one that is wrong: the first batch is compared, and one in so many."""
    other = BPE(vocab=258 + 20, digits=tokenizer.pre_tokenizer is None, at_most=True).train(["abc abd " * 50])
    wrong = FastBPE.of(literal(other))
    assert wrong is not None
    wrong._tokenizer = tokenizer
    for _ in range(2):
        with pytest.raises(DataError, match=r"tokie gives .* and tokenizers .* from token"):
            wrong.encode_batch(["the weather is fine"])
        wrong._batches = 1
        for _ in range(COMPARED - 1):
            wrong.encode_batch(["the weather is fine"])


def normalized(tokenizer):
    tokenizer.normalizer = normalizers.NFC()


def of_words(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


def with_prefix(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def with_added(tokenizer):
    tokenizer.add_tokens(["weather"])


def not_literal(tokenizer):
    tokenizer.encode_special_tokens = False


@pytest.mark.parametrize("change", [normalized, of_words, with_prefix, with_added, not_literal])
def test_tokenizers_with_other_rules_have_no_fast_form(tokenizer, change):
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    change(copy)
    assert FastBPE.of(copy) is None
