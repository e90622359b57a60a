"""Tokenizers of strangers: what would run for hours or gigabytes is refused unrun, and what people publish is not."""

import base64
import json
import struct
import time
from copy import deepcopy

import pytest
import tiny_releases
from tiny_checkpoints import TOKENIZERS
from tokenizers import Tokenizer, models

from lilliput.base.errors import DataError
from lilliput.data.messages import Message
from lilliput.tokenizer.bounds import check_bounds
from lilliput.tokenizer.bpe import load_tokenizer, tokenizer_hash
from lilliput.tokenizer.chatml import add_chatml, encode_messages


def replace(pattern: str, content: str, kind: str = "String") -> dict:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def sequence(name: str, *steps: dict) -> dict:
    return {"type": "Sequence", name: list(steps)}


def charsmap(*replacements: str) -> dict:
    """As SentencePiece writes it; the trie is left out."""
    table = struct.pack("<I", 8) + bytes(8) + b"".join(text.encode() + b"\0" for text in replacements)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


def template(*pieces: str, ids: int = 1) -> dict:
    single = [{"Sequence" if piece == "A" else "SpecialToken": {"id": piece, "type_id": 0}} for piece in pieces]
    named = {piece: {"id": piece, "ids": [0] * ids, "tokens": ["a"] * ids} for piece in pieces if piece != "A"}
    pair = [*single, *[{"Sequence": {"id": "B", "type_id": 0}}]]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named}


def byte_level(prefix: bool) -> dict:
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}


def metaspace(scheme: str = "always") -> dict:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}


def split(regex: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


WORDS = split(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLANKS = replace(" {2,}", " ", "Regex")
BACK = sequence(
    "decoders", replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "start": 1}
)
NFKC = charsmap("a", "x" * 18, "▁")
ROBERTA = {
    "type": "RobertaProcessing",
    "sep": ["a", 0],
    "cls": ["a", 0],
    "trim_offsets": True,
    "add_prefix_space": True,
}
PUBLISHED = {
    "gpt-2": (None, byte_level(False), byte_level(True), byte_level(True)),
    "roberta": (None, byte_level(True), ROBERTA, byte_level(True)),
    "llama-2": (sequence("normalizers", {"prepend": "▁"}, replace(" ", "▁")), None, template("s", "A"), BACK),
    "llama-3": (
        None,
        sequence("pretokenizers", WORDS, byte_level(False)),
        sequence("processors", byte_level(True), template("s", "A")),
        byte_level(True),
    ),
    "qwen": (
        {"type": "NFC"},
        sequence("pretokenizers", WORDS, byte_level(False)),
        byte_level(False),
        byte_level(False),
    ),
    "gemma": (replace(" ", "▁"), split(" "), template("s", "A"), BACK),
    "smollm": (None, sequence("pretokenizers", {"type": "Digits"}, byte_level(True)), None, byte_level(True)),
    "t5": (
        sequence("normalizers", NFKC, {"type": "Strip"}, replace(" {2,}", "▁", "Regex")),
        sequence("pretokenizers", {"type": "WhitespaceSplit"}, metaspace()),
        template("A", "/s"),
        metaspace(),
    ),
    "albert": (
        sequence(
            "normalizers", replace("``", '"'), replace("''", '"'), {"type": "NFKD"}, {"type": "Lowercase"}, NFKC, BLANKS
        ),
        {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "str_rep": "▁"},
        template("c", "A", "s"),
        metaspace(),
    ),
    "bert": ({"type": "BertNormalizer"}, {"type": "BertPreTokenizer"}, template("c", "A", "s"), {"prefix": "##"}),
    "clip": (
        sequence("normalizers", {"type": "NFC"}, replace(r"\s+", " ", "Regex"), {"type": "Lowercase"}),
        sequence("pretokenizers", WORDS, byte_level(False)),
        ROBERTA,
        byte_level(True),
    ),
}
STAGES = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
DOUBLE = [replace("a", "aa")] * 40
ABSURD = {
    "a long content": ("normalizer", replace("a", "x" * 1_000_000)),
    "content for nothing": ("normalizer", replace("", "x" * 100)),
    "content for an empty match": ("normalizer", replace("(?=.)", "x" * 100, "Regex")),
    "doubling": ("normalizer", sequence("normalizers", *DOUBLE)),
    "doubling, deeper": ("normalizer", sequence("normalizers", *[sequence("normalizers", *DOUBLE)] * 6)),
    "doubling without types": ("normalizer", {"normalizers": [{"pattern": {"String": "a"}, "content": "aa"}] * 40}),
    "a long prefix": ("normalizer", {"type": "Prepend", "prepend": "x" * 1_000_000}),
    "a table of letters": ("normalizer", charsmap("x" * 1_000_000)),
    "bytes of bytes": ("pre_tokenizer", sequence("pretokenizers", *[byte_level(False)] * 30)),
    "blanks before letters": ("pre_tokenizer", sequence("pretokenizers", *[split("."), metaspace()] * 30)),
    "special tokens": ("post_processor", template("s", "A", ids=1_000_000)),
    "copies": ("post_processor", sequence("processors", *[template("A", "A")] * 40)),
    "doubling back": ("decoder", sequence("decoders", *DOUBLE)),
}


@pytest.fixture
def plain():
    return json.loads(tiny_releases.tokenizer().to_str())


@pytest.fixture
def load(tmp_path):
    def loaded(plain) -> Tokenizer:
        (tmp_path / "tokenizer.json").write_text(plain if isinstance(plain, str) else json.dumps(plain))
        return load_tokenizer(tmp_path)

    return loaded


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_people_publish_is_within_the_limits(plain, name):
    check_bounds(plain | dict(zip(STAGES, PUBLISHED[name], strict=True)), "here")


@pytest.mark.parametrize("case", ABSURD)
def test_what_makes_much_of_little_is_refused_before_it_runs(plain, load, case):
    stage, step = ABSURD[case]
    # An added token that is normalized makes the rules run while the file is read.
    added = [{"id": 280, "content": "a", "normalized": True, "special": False}]
    began = time.process_time()
    with pytest.raises(DataError, match="64 at most") as caught:
        load(plain | {stage: step, "added_tokens": plain["added_tokens"] + added})
    assert time.process_time() - began < 1
    assert "LILLIPUT_MAX_TOKENIZER_GROWTH=128" in caught.value.hint and "tokenizer.json" in caught.value.where


def test_a_limit_that_is_raised_lets_more_through(plain, load, monkeypatch):
    rule = {"normalizer": replace("a", "b" * 100)}
    with pytest.raises(DataError, match="200 tokens can come of one character"):
        load(plain | rule)
    monkeypatch.setenv("LILLIPUT_MAX_TOKENIZER_GROWTH", "200")
    assert load(plain | rule).encode("a").ids == load(plain).encode("b" * 100).ids


def test_other_limits_are_kept(plain, load, monkeypatch):
    many = plain | {"normalizer": sequence("normalizers", *[{"type": "NFC"}] * 257)}
    long = deepcopy(plain)
    long["model"]["vocab"]["x" * 4_097] = 280
    words = plain | {"model": json.loads(Tokenizer(models.WordPiece({"a": 0}, unk_token="a")).to_str())["model"]}
    words["model"]["max_input_chars_per_word"] = 10**9
    for odd, most in ((many, "tokenizer_steps"), (long, "token_characters"), (words, "token_characters")):
        with pytest.raises(DataError, match="at most") as caught:
            load(odd)
        assert f"LILLIPUT_MAX_{most.upper()}" in caught.value.hint
    monkeypatch.setenv("LILLIPUT_MAX_TOKENIZER_BYTES", "1000")
    with pytest.raises(DataError, match="1,000 at most"):
        load(plain)


@pytest.mark.parametrize("tokens", TOKENIZERS)
def test_a_tokenizer_neither_cuts_nor_fills_up(load, tokens):
    theirs = TOKENIZERS[tokens][0]()
    plain = json.loads(theirs.to_str())
    plain["padding"] = {
        "strategy": {"Fixed": 2**40},
        "direction": "Right",
        "pad_to_multiple_of": None,
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
    }
    plain["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5}
    loaded = load(plain)
    assert loaded.encode("plain text of words").ids == theirs.encode("plain text of words").ids
    assert tokenizer_hash(loaded) == tokenizer_hash(theirs)


PANICS = {
    "a regex that takes too long": {"pre_tokenizer": split("(a+)+$")},
    "a step of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a token that no template has": {"post_processor": template("s", "A") | {"special_tokens": {}}},
    "more stripped than there is": {"decoder": {"type": "Strip", "content": "a", "start": 0, "stop": 9}},
    "a table that is none": {"normalizer": charsmap("x")},
}


@pytest.mark.parametrize("case", PANICS)
def test_native_code_that_panics_is_an_error_and_says_nothing_of_its_own(plain, load, case, capfd):
    with pytest.raises(DataError, match="the rules of the tokenizer fail") as caught:
        load(plain | PANICS[case])
    assert "tokenizer.json" in caught.value.where and caught.value.hint
    assert capfd.readouterr().err == ""


def test_a_text_on_which_native_code_panics_is_an_error(plain, load):
    tokenizer = add_chatml(load(plain | {"pre_tokenizer": split("(b+)+$")}))
    with pytest.raises(DataError, match="the rules of the tokenizer fail"):
        encode_messages(tokenizer, [Message("user", "b" * 40 + "!")])
    assert encode_messages(tokenizer, [Message("user", "b")])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda plain: plain["added_tokens"].append({"id": 2**40, "content": "<s>"}), "expected u32"),
        (lambda plain: plain.update(model=plain["model"] | {"vocab": {}, "merges": []}, added_tokens=[]), "no tokens"),
        (lambda plain: plain.update(model=3), "no model"),
        (
            lambda plain: plain.update(post_processor={"type": "BertProcessing", "sep": ["a", 999], "cls": ["a", 0]}),
            "999",
        ),
        (lambda plain: plain.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "x"}), "UNK"),
        (lambda plain: plain.update(pre_tokenizer=split("(")), "unmatched"),
    ],
)
def test_tokenizers_that_cannot_read_every_text_are_refused(plain, load, change, says):
    change(plain)
    with pytest.raises(DataError, match=says):
        load(plain)


def test_files_that_are_no_tokenizer_are_refused(plain, load):
    text = json.dumps(plain)
    # Two readers of the same file could see two normalizers.
    twice = text.replace('"normalizer": null', f'"normalizer": {json.dumps(DOUBLE[0])}, "normalizer": null')
    assert twice != text
    deep = text.replace('"normalizer": null', '"normalizer": ' + '{"normalizers": [' * 900 + "]}" * 900)
    for odd, says in ((twice, "'normalizer' is there twice"), (deep, "recursion"), ("[]", "no model"), ("{", "read")):
        with pytest.raises(DataError, match=says):
            load(odd)
