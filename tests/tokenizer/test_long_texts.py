"""Long texts: their pieces have the ids of the whole, and memory and time grow no faster than the text."""

import json
import random
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from tiny_checkpoints import byte_level, metaspace
from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE as Model
from tokenizers.processors import TemplateProcessing

from lilliput.base.errors import DataError
from lilliput.data.messages import Message
from lilliput.tokenizer.bpe import BPE, END, LONGEST_WORD, PAD, tokenizer_hash
from lilliput.tokenizer.chatml import add_chatml, encode_messages
from lilliput.tokenizer.cuts import cuts_of, is_inert
from lilliput.tokenizer.encoder import Encoder
from lilliput.tokenizer.specials import literal

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
UNITS = (
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u2028",
        "\x85",
        "a",
        "the",
        "'s",
        "'LL",
        "'",
        "'ſ",
        "!",
        "...",
        "\x00",
    ),
    *(
        "1",
        "12",
        "½",
        "Ⅳ",
        "١",
        "\U00011de0",
        "é",
        "e\u0301",
        "\u0301",
        "\u0327\u0301",
        "中",
        "🙂",
        "か",
        "\u3099",
        "ŉ",
    ),
    *("\u1100", "\u1161", "가", "\u212a", "\u200b", "▁", END, "<|stop|>", "<s>", "\U00099999", "\ue000"),
)
"""Blanks, letters, numbers and what else there is; contractions; what NFC joins; special tokens; unassigned."""


def mess(rng: random.Random, size: int) -> str:
    chosen = rng.sample(UNITS, rng.randint(1, 8))
    parts, left = [], size
    while left > 0:
        point = rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))
        part = (rng.choice(chosen) if rng.random() < 0.95 else chr(point)) * rng.choice((1, 1, 1, 2, 3, 30))
        parts.append(part)
        left -= len(part)
    return "".join(parts)


def corpus() -> list[str]:
    rng = random.Random(0)
    runs = [unit * count for unit in UNITS for count in range(1, 40)]
    return [*(mess(rng, 60) for _ in range(200)), *runs, *["it's they'll 123 4567\n\n  x" * 3] * 50]


def kinds() -> dict[str, Tokenizer]:
    ours, merged = (BPE(vocab=900, digits=digits).train(corpus()) for digits in (True, False))

    def another(normalizer: str | None, *before: dict, ignore_merges: bool = False) -> Tokenizer:
        plain = json.loads(byte_level().to_str())
        plain["normalizer"] = normalizer and {"type": normalizer}
        plain["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(before)}
        plain["model"] = json.loads(merged.to_str())["model"] | {"ignore_merges": ignore_merges}
        return Tokenizer.from_str(json.dumps(plain))

    def split(regex: str) -> dict:
        return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}

    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "ours": ours,
        "ours, literal": literal(ours),
        "digits merge": merged,
        "gpt-2, composed": another("NFC", bytes_of | {"use_regex": True}),
        "gpt-2, split": another(None, split(GPT2), bytes_of),
        "llama-3": another(None, split(LLAMA3), bytes_of, ignore_merges=True),
        "qwen-2": another("NFC", split(QWEN2), bytes_of),
        "metaspace": metaspace(),
    }


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return kinds()


@pytest.mark.parametrize("seed", range(8))
def test_pieces_have_the_ids_of_the_whole(tokenizers, seed: int) -> None:
    rng = random.Random(seed)
    for tokenizer in tokenizers.values():
        assert cuts_of(tokenizer) is not None
        for piece in (4, 8, 20, 50):
            encoder = Encoder(tokenizer, piece=piece)
            for size in (3, 20, 100, 400):
                text = mess(rng, size)
                for special in (False, True):
                    whole = tokenizer.encode(text, add_special_tokens=special)
                    assert encoder.encode(text, add_special_tokens=special).tolist() == whole.ids, (piece, text)
                head, whole = text[: rng.randrange(size)], tokenizer.encode(text, add_special_tokens=False)
                ((ids, begun),) = encoder.with_heads([text], [head])
                assert ids.tolist() == whole.ids
                assert begun == sum(start < len(head) for start, _ in whole.offsets), (piece, text, head)


def test_a_rest_that_may_be_encoded_by_itself_has_the_ids_that_it_has_behind_its_head(tokenizers) -> None:
    rng = random.Random(0)
    for name, tokenizer in tokenizers.items():
        encoder, joint = Encoder(tokenizer), 0
        for text in (mess(rng, 60) for _ in range(60)):
            for at in range(len(text) + 1):
                if encoder.is_joint(text[:at], text[at:]):
                    joint += 1
                    ids = encoder.encode(text[:at], add_special_tokens=True) + encoder.encode(text[at:])
                    assert ids.tolist() == tokenizer.encode(text).ids, (name, text, at)
        assert joint > 100, name


def test_nothing_is_encoded_by_itself_behind_what_ends_a_text(tokenizers) -> None:
    tokenizer = Tokenizer.from_str(tokenizers["ours"].to_str())
    assert Encoder(tokenizer).is_joint("the", " fox") and not Encoder(tokenizer).is_joint("", "the fox")
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    assert not Encoder(tokenizer).is_joint("the", " fox")


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "a", "1"])
def test_no_character_at_all_is_cut_off_wrongly(tokenizers, before: str) -> None:
    text = before.join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    for name in ("ours", "llama-3", "qwen-2"):
        whole = tokenizers[name].encode_batch_fast([text], add_special_tokens=False)[0].ids
        assert Encoder(tokenizers[name], piece=16).encode(text).tolist() == whole


def test_several_texts_come_back_one_by_one(tokenizers) -> None:
    texts = ["", "a", "the " * 9_000, "", " " * 40_000, "b" * 20_000 + "'s", "c"]
    encodings = tokenizers["ours"].encode_batch(texts)
    assert [ids.tolist() for ids in Encoder(tokenizers["ours"]).stream(texts)] == [each.ids for each in encodings]


def test_what_stays_itself_composes_with_nothing() -> None:
    seconds = {chr(int(parts[-1], 16)) for parts in map(_decomposed, range(0x110000)) if len(parts) == 2}
    seconds |= set(map(chr, (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))))  # of Korean syllables
    assert len(seconds) > 100 and not any(map(is_inert, seconds))
    composed = normalizers.NFC()
    inert = "".join(chr(point) for point in range(0x30000) if not 0xD800 <= point < 0xE000 and is_inert(chr(point)))
    assert len(inert) > 40_000 and composed.normalize_str(inert) == inert


def _decomposed(point: int) -> list[str]:
    parts = unicodedata.decomposition(chr(point)).split()
    return [] if parts and parts[0].startswith("<") else parts


@pytest.mark.parametrize(
    "unit", [" ", "a", "1", "\n", "🙂", "\u0301", "!", "中", "\u00a0", "'", "a!", " a", "\U00099999"]
)
def test_half_a_million_of_anything_is_encoded_and_learned_from_at_once(tokenizers, unit: str) -> None:
    text = unit * (500_000 // len(unit))
    began = time.perf_counter()
    ids = Encoder(tokenizers["ours"]).encode(text)
    encoded = time.perf_counter()
    BPE(vocab=300).train([*corpus()[:200], text])
    assert max(encoded - began, time.perf_counter() - encoded) < 15, "a minute and a half before"
    some = text[:50_000]
    assert Encoder(tokenizers["ours"]).encode(some).tolist() == tokenizers["ours"].encode_batch_fast([some])[0].ids
    assert tokenizers["ours"].decode(ids.tolist()) == text


@pytest.mark.parametrize("digits", [True, False])
def test_merges_are_those_of_whole_texts_where_no_word_is_too_long(digits: bool) -> None:
    texts = ["\n".join(corpus()[index::20]) for index in range(20)]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alone = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    whole = Tokenizer(Model())
    whole.pre_tokenizer = alone if digits else byte_level
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=[END, PAD], initial_alphabet=alphabet, show_progress=False
    )
    whole.train_from_iterator(texts, trainer)
    assert max(map(len, texts)) > 4 * LONGEST_WORD
    ours = BPE(vocab=800, digits=digits).train(texts)
    assert json.loads(ours.to_str())["model"] == json.loads(whole.to_str())["model"]
    assert tokenizer_hash(ours) == tokenizer_hash(BPE(vocab=800, digits=digits).train(texts))


def test_a_text_that_may_not_be_cut_is_encoded_at_once_or_refused(tokenizers, monkeypatch) -> None:
    plain = json.loads(tokenizers["ours"].to_str()) | {"normalizer": {"type": "Lowercase"}}
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    text = "THE end " * 3_000
    assert cuts_of(tokenizer) is None
    assert Encoder(tokenizer).encode(text).tolist() == tokenizer.encode(text).ids
    monkeypatch.setenv("LILLIPUT_MAX_UNCUT_BYTES", "10000")
    with pytest.raises(DataError, match="encoded at once") as caught:
        Encoder(tokenizer, where="a text of mine").encode(text)
    assert caught.value.where == "a text of mine" and "LILLIPUT_MAX_UNCUT_BYTES=20000" in caught.value.hint
    assert len(Encoder(tokenizers["ours"]).encode(text)) > 3_000  # which may be cut


@pytest.mark.parametrize("kind", ["digits merge", "gpt-2, split"])  # the latter says that blanks begin at their end
def test_a_token_shared_with_the_header_of_a_long_message_is_not_charged(tokenizers, kind: str) -> None:
    tokenizer = add_chatml(tokenizers[kind])
    for content in ("\n" * 9 + "yes", "\n" * 30_000 + "yes"):
        ((ids, mask),) = encode_messages(tokenizer, [Message("assistant", content)])
        text = f"<|im_start|>assistant\n{content}<|im_end|>\n"
        assert ids.tolist() == tokenizer.encode(text, add_special_tokens=False).ids
        shared = next(index for index, answers in enumerate(mask) if answers)
        silent = tokenizer.decode(ids[:shared].tolist(), skip_special_tokens=False)
        assert silent.startswith("<|im_start|>assistant\n") and len(tokenizer.decode([ids[shared - 1]])) > 1


MEMORY = """
import re, resource, sys
from dataclasses import dataclass
from pathlib import Path
from lilliput.data.documents import Document
from lilliput.data.shards import write_shards
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import BPE

@dataclass(frozen=True, kw_only=True)
class Listed:
    text: str
    def documents(self):
        for place in range(12):
            yield Document("a short text " * 9_000, str(place), str(place))
        for place in range(2):
            yield Document(self.text, "long", "long" + str(place))

def peak():
    status = Path("/proc/self/status")  # where a process's own figure begins with the process, which the other may not
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

unit, size, folder = sys.argv[1].encode("ascii").decode("unicode_escape"), int(sys.argv[2]), Path(sys.argv[3])
text = unit * (size // len(unit.encode()))
some = [f"some words {number} of a text" for number in range(900)]
tokenizer = BPE(vocab=265).train(some)
write_shards(Listed(text="warm " * 20), tokenizer, Split(share=0.5), folder / "warm")
before = peak()
write_shards(Listed(text=text), tokenizer, Split(share=0.5), folder / "long")
BPE(vocab=265).train([*some, text])
print((peak() - before - 32_000_000) / len(text.encode()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        "some words of a text 12\\n",
        *(pytest.param(unit, marks=pytest.mark.slow) for unit in (" ", "\\u4e2d", "\\U0001f642", "\\x01")),
    ],
)
def test_the_memory_of_a_long_text_is_what_a_batch_takes_and_a_few_bytes_for_each_of_its_own(
    unit: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", MEMORY, unit, "3000000", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 8
