"""Prefix tokens: the table of a vocabulary against a naive search over bytes, and rows that bring them."""

from dataclasses import replace

import pytest
import tiny
import torch
from tokenizers import Tokenizer, decoders, models

from lilliput.base.errors import DataError
from lilliput.data.batch import Cursor
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.prefix_tokens import NO_PREFIX, PREFIX_TOKENS, prefix_table
from lilliput.data.segmentations import IDS, Segmentations
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import add_chatml
from lilliput.tokenizer.merging import byte_of

DATA = Mixture(weights={"texts": 1.0}, prefix_tokens=True)


@pytest.fixture(scope="module")
def tokenizer():
    return BPE(vocab=400, at_most=True).train([*(tiny.sentences(n) for n in range(50)), "l'été 中🙂 " * 20])


@pytest.fixture(scope="module")
def shards(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("shards")
    texts, _ = tiny.write_corpora(folder)
    write_shards(TextFiles(paths=(str(texts),)), tokenizer, Split(share=0.1), folder / "texts")
    opened = Shards(folder / "texts")
    opened.tokenizer = tokenizer
    return {"texts": opened}


def spellings(tokenizer):
    """The bytes of every token that is one of text."""
    added = {added.content for added in tokenizer.get_added_tokens_decoder().values()}
    vocab = tokenizer.get_vocab().items()
    return {identity: bytes(map(byte_of, token)) for token, identity in vocab if token not in added}


@pytest.mark.parametrize("grow", [lambda one: one, add_chatml], ids=["as learned", "with tokens added"])
def test_the_table_is_what_a_search_over_all_pairs_finds(tokenizer, grow):
    tokenizer = grow(tokenizer)
    spelled = spellings(tokenizer)
    expected = [NO_PREFIX] * tokenizer.get_vocab_size()
    for identity, text in spelled.items():
        shorter = [(len(one), other) for other, one in spelled.items() if one != text and text.startswith(one) and one]
        expected[identity] = max(shorter, default=(0, NO_PREFIX))[1]
    assert prefix_table(tokenizer).tolist() == expected
    assert sum(one != NO_PREFIX for one in expected) == sum(len(text) > 1 for text in spelled.values()) > 20
    longer = [one for one in expected if one != NO_PREFIX and len(spelled[one]) > 1]
    assert longer, "not of first bytes alone"


def test_special_tokens_have_none_and_are_none(tokenizer):
    tokenizer = add_chatml(tokenizer)
    table, special = prefix_table(tokenizer), list(tokenizer.get_added_tokens_decoder())
    assert len(special) >= 4 and (table[special] == NO_PREFIX).all()
    assert not {*table.tolist()} & {*special}


@pytest.mark.parametrize(
    "other",
    [
        Tokenizer(models.WordLevel(vocab={"a": 0, "ab": 1}, unk_token="a")),
        Tokenizer(models.BPE(vocab={"▁": 0, "▁a": 1, "a": 2}, merges=[("▁", "a")])),
    ],
    ids=["words", "characters"],
)
def test_tokens_that_are_not_spelled_in_bytes_are_refused(other):
    other.decoder = decoders.Metaspace()
    with pytest.raises(DataError, match="not spelled in bytes"):
        prefix_table(other)


@pytest.mark.parametrize("packing", ["stream", "best-fit"])
def test_rows_bring_the_prefix_token_of_each_token(shards, tokenizer, packing):
    data = replace(DATA, packing=packing)
    reader = data.open(shards)
    batch, after = reader.read(Cursor(), 6, 41)
    plain, same = replace(data, prefix_tokens=False).open(shards).read(Cursor(), 6, 41)
    assert torch.equal(batch.tokens, plain.tokens) and after == same and not plain.extras
    found = batch.extras[PREFIX_TOKENS]
    assert found.tolist() == [[int(prefix_table(tokenizer)[one]) for one in row] for row in batch.tokens]
    first, middle = reader.read(Cursor(), 2, 41)
    second, _ = reader.read(middle, 4, 41)
    assert torch.equal(torch.cat([first.extras[PREFIX_TOKENS], second.extras[PREFIX_TOKENS]]), found)


def test_they_go_with_several_tokenizations(shards):
    both = replace(DATA, segmentations=Segmentations(count=2))
    batch, _ = both.open(shards).read(Cursor(), 2, 41)
    assert {IDS, PREFIX_TOKENS} <= batch.extras.keys() == both.synthetic(batch).extras.keys()


def test_token_files_without_their_tokenizer_are_refused(shards):
    with pytest.raises(DataError, match="without their tokenizer") as refused:
        DATA.open({"texts": Shards(shards["texts"].folder)})
    assert "prefix_tokens" in str(refused.value.where)
