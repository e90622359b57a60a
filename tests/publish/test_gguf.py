"""GGUF files: what they say, read back by the `gguf` package and run by our forward pass, is the released model."""

import json
import sys
from dataclasses import replace

import gguf
import pytest
import torch
from tiny_releases import LLAMA, RELEASES, VOCAB, awake, rows, tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lilliput.base.errors import ExportError, RunError
from lilliput.base.files import sha256
from lilliput.publish.export import Generation, export
from lilliput.publish.gguf import file_types, write
from lilliput.publish.gguf.check import check_gguf
from lilliput.publish.gguf.file_types import as_stored
from lilliput.publish.gguf.read import read_gguf, read_metadata
from lilliput.publish.gguf.release import add_gguf
from lilliput.publish.gguf.tokenizer import pre_tokenizer_name, tokenizer_metadata
from lilliput.publish.gguf.write import About, write_gguf
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.load import load, verified
from lilliput.tokenizer.bpe import BPE, OURS
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml
from lilliput.tokenizer.cuts import LLAMA3, QWEN2

TRANSFORMERS = [name for name in RELEASES if not name.startswith("hgrn2")]
ABOUT = About(name="tiny", description="For tests.", license="mit", languages=("en", "de"), base_model="owner/base")


def released(folder, spec, layout, dtype="BF16", chat=False):
    model, tokens = awake(replace(spec, vocab=VOCAB + 2 * chat)), tokenizer()
    folder.mkdir(exist_ok=True)
    export(
        model,
        add_chatml(tokens) if chat else tokens,
        folder,
        layout=layout,
        dtype=dtype,
        generation=Generation(),
        chat_template=CHAT_TEMPLATE if chat else None,
    )
    return model


def difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("file_type", file_types.FILE_TYPES)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_file_read_back_computes_the_released_logits(tmp_path, name, file_type):
    spec, layout = RELEASES[name]
    released(tmp_path, spec, layout)
    write_gguf(tmp_path, tmp_path / "tiny.gguf", file_type, ABOUT)
    native, read = load(tmp_path).model, read_gguf(tmp_path / "tiny.gguf")
    tokens = rows(2, 37)
    expected, found = native(tokens), read(tokens)
    native.load_state_dict(as_stored(native.state_dict(), file_type))
    assert difference(found, native(tokens)) < 1e-6, "but for rounding, it is the same model"
    # bf16 has fewer digits than fp16, which rounds only the smallest numbers of it
    assert difference(found, expected) < {"F16": 1e-5, "Q8_0": 0.1}[file_type]
    assert read.spec.tie_embeddings == spec.tie_embeddings


def test_a_file_says_what_llama_cpp_needs(tmp_path):
    spec, layout = RELEASES["llama"]
    released(tmp_path, spec, layout, chat=True)
    write_gguf(tmp_path, tmp_path / "tiny.gguf", "Q8_0", ABOUT)
    said = read_metadata(tmp_path / "tiny.gguf")
    assert (said["general.architecture"], said["llama.vocab_size"]) == ("llama", VOCAB + 2)
    assert (said["llama.context_length"], said["llama.embedding_length"], said["llama.block_count"]) == (64, 32, 2)
    assert (said["llama.attention.head_count"], said["llama.attention.head_count_kv"]) == (4, 4)
    assert (said["llama.attention.key_length"], said["llama.rope.dimension_count"]) == (8, 8)
    assert (said["llama.rope.freq_base"], said["llama.feed_forward_length"]) == (5_000.0, 48)
    assert said["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert said["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert (said["general.name"], said["general.license"], said["general.languages"]) == ("tiny", "mit", ["en", "de"])
    assert said["general.base_model.0.repo_url"] == "https://huggingface.co/owner/base"
    assert said["lilliput.source.sha256"] == sha256(tmp_path / "model.safetensors")
    assert said["tokenizer.chat_template"] == CHAT_TEMPLATE
    ids = {key: said[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "eot", "padding")}
    assert ids == {"bos": 0, "eos": VOCAB + 1, "eot": 0, "padding": 1}
    assert not said["tokenizer.ggml.add_bos_token"] and not said["tokenizer.ggml.add_eos_token"]


def test_tensors_have_the_types_of_llama_cpps_own_files(tmp_path):
    spec, layout = RELEASES["qwen3"]
    released(tmp_path, spec, layout)
    for file_type in file_types.FILE_TYPES:
        write_gguf(tmp_path, tmp_path / "tiny.gguf", file_type, ABOUT)
        kinds = {one.name: one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "tiny.gguf").tensors}
        assert "output.weight" not in kinds, "a tied head is not stored"
        norms = {name: kind for name, kind in kinds.items() if "norm" in name}
        assert set(norms.values()) == {"F32"} and len(norms) == 1 + 4 * spec.layers
        assert kinds["token_embd.weight"] == kinds["blk.1.attn_q.weight"] == file_type
        assert kinds["blk.0.ffn_down.weight"] == "F16", "48 numbers are no whole blocks of 32"


def test_matrices_of_a_file_are_the_packages_own_q8_0():
    weight = torch.randn(3, 64)
    stored = as_stored({"w": weight}, "Q8_0")["w"]
    step = weight.view(3, 2, 32).abs().amax(-1, keepdim=True) / 127
    assert ((stored - weight).view(3, 2, 32).abs() <= step * 0.51 + 1e-6).all()


def test_files_are_a_function_of_their_inputs_and_leave_no_halves(tmp_path, monkeypatch):
    spec, layout = RELEASES["llama"]
    released(tmp_path, spec, layout)
    write_gguf(tmp_path, tmp_path / "a.gguf", "F16", ABOUT)
    write_gguf(tmp_path, tmp_path / "b.gguf", "F16", ABOUT)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()

    def full(weight, name, kind):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "packed", full)
    before = {file.name for file in tmp_path.iterdir()}
    with pytest.raises(OSError, match=r"c\.gguf"):
        write_gguf(tmp_path, tmp_path / "c.gguf", "F16", ABOUT)
    assert {file.name for file in tmp_path.iterdir()} == before


def test_rows_in_another_order_are_not_published(tmp_path, monkeypatch):
    spec, layout = RELEASES["llama"]
    released(tmp_path, spec, layout)
    monkeypatch.setattr(write, "row_permutations", lambda architecture, spec: {})
    write_gguf(tmp_path, tmp_path / "tiny.gguf", "F16", ABOUT)
    with pytest.raises(ExportError, match="differ from those of the release by"):
        check_gguf(tmp_path / "tiny.gguf", tmp_path, "F16", tokens=rows(2, 37))


def test_what_a_file_cannot_have_is_refused(tmp_path, monkeypatch):
    spec, layout = RELEASES["hgrn2"]
    released(tmp_path / "hgrn2", spec, layout)
    with pytest.raises(ExportError, match="llama.cpp runs no model of HGRN2Format"):
        write_gguf(tmp_path / "hgrn2", tmp_path / "x.gguf", "F16", ABOUT)
    model = awake(LLAMA)
    with torch.no_grad():
        model.layers[0].ffn.up.weight[0, 0] = 7e4
    folder = tmp_path / "large"
    folder.mkdir()
    settings = {"layout": LlamaFormat(context=64), "generation": Generation(), "chat_template": None}
    export(model, tokenizer(), folder, dtype="BF16", **settings)
    with pytest.raises(ExportError, match="1 of 1,536 numbers are too large for F16"):
        write_gguf(folder, tmp_path / "x.gguf", "F16", ABOUT)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ExportError, match="the package gguf is not installed") as raised:
        file_types.library()
    assert raised.value.hint == "pip install 'lilliput[gguf]'"


def test_a_release_gets_its_files_with_hashes_and_keeps_what_it_had(tmp_path):
    spec, layout = RELEASES["llama-interleaved"]
    model = released(tmp_path, spec, layout, chat=True)
    before = verified(tmp_path)
    records = add_gguf(tmp_path, ABOUT, Generation(), tokens=rows(2, 37))
    files = verified(tmp_path)["files"]
    assert [record["file"] for record in records] == ["tiny-F16.gguf", "tiny-Q8_0.gguf"]
    for record in records:
        path = tmp_path / record["file"]
        assert (record["sha256"], record["bytes"]) == (files[path.name], path.stat().st_size)
        assert record["parity"] < 1e-6 and (record["rounding"] > 1e-3) == (record["type"] == "Q8_0")
    assert before["files"].items() <= files.items() and files.keys() - before["files"].keys() == {
        "tiny-F16.gguf",
        "tiny-Q8_0.gguf",
        "Modelfile",
    }
    assert difference(load(tmp_path).model(rows(1, 9)), model(rows(1, 9))) < 0.02
    with open(tmp_path / "tiny-F16.gguf", "r+b") as file:
        file.seek(5_000)
        file.write(b"\xff")
    with pytest.raises(RunError, match=r"tiny-F16\.gguf is not the file that was released"):
        load(tmp_path)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ExportError, match="cannot be read") as raised:
        read_gguf(tmp_path / "x.gguf")
    assert "x.gguf" in raised.value.where


# Tokenizers


def byte_level(*steps, ignore_merges=False):
    """A tokenizer that has every byte, and splits texts by these steps."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(alphabet)} | {"th": 256}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[("t", "h")], ignore_merges=ignore_merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([OURS.end, OURS.pad])
    return made


def split(regex):
    return pre_tokenizers.Split(Regex(regex), "isolated")


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize("digits", [True, False])
def test_our_own_tokenizers_are_named_as_their_spec_says(digits):
    spec = BPE(vocab=VOCAB, digits=digits)
    trained = spec.train(["the quick brown fox jumps over the lazy dog and thinks of the cat on the mat"] * 3)
    assert pre_tokenizer_name(json.loads(trained.to_str())) == spec.pre_tokenizer


def test_rules_that_others_use_have_the_names_of_llama_cpp():
    llama = byte_level(split(LLAMA3), BYTES, ignore_merges=True)
    assert pre_tokenizer_name(json.loads(llama.to_str())) == "llama-bpe"
    assert pre_tokenizer_name(json.loads(byte_level(split(QWEN2), BYTES).to_str())) == "qwen2"


def with_normalizer():
    made = byte_level(WORDS)
    made.normalizer = normalizers.NFC()
    return made


def with_greedy_token():
    made = byte_level(WORDS)
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return made


def without_a_byte():
    made = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    made.pre_tokenizer = WORDS
    return made


def with_other_ends():
    made = byte_level(WORDS)
    made.post_processor = processors.TemplateProcessing(single="<|pad|> $A", special_tokens=[("<|pad|>", 258)])
    return made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (with_normalizer, r"normalizer NFC"),
        (lambda: byte_level(pre_tokenizers.Metaspace()), "no pre-tokenizer like"),
        (lambda: byte_level(split(r"\p{L}+"), BYTES), "no pre-tokenizer like"),
        (lambda: byte_level(pre_tokenizers.Digits(individual_digits=False), WORDS), "no pre-tokenizer like"),
        (lambda: byte_level(split(LLAMA3), BYTES), "which merges words that are tokens themselves"),
        (lambda: byte_level(WORDS, ignore_merges=True), "which takes them whole"),
        (with_greedy_token, r"takes the blanks or words around it in \(lstrip\)"),
        (without_a_byte, "no token for 210 of the bytes that texts have"),
        (lambda: Tokenizer(models.WordLevel(vocab={"a": 0}, unk_token="a")), "no pre-tokenizer like"),
        (with_other_ends, "adds tokens around a text that are not its begin and its end"),
    ],
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(made, why):
    with pytest.raises(ExportError, match=why) as raised:
        tokenizer_metadata(made(), OURS, [0], 400)
    assert raised.value.hint.startswith("publish it as hf alone")


def test_bytes_that_texts_lack_may_be_missing():
    """SmolLM2's tokenizer has no token for 21 of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    lacking = [byte_letter(byte) for byte in (0x04, 0x1D, 0xC0, 0xF1, 0xFF)]
    for further, fits in ((), True), ((byte_letter(0x09),), False), ((byte_letter(0xC3),), False), ((" a",), True):
        kept = [one for one in alphabet if one not in {*lacking, *further}]
        made = Tokenizer(models.BPE(vocab={one: place for place, one in enumerate(kept)}, merges=[]))
        made.pre_tokenizer = WORDS
        made.add_special_tokens([OURS.end, OURS.pad])
        if fits:
            assert tokenizer_metadata(made, OURS, [0], 400)["tokenizer.ggml.pre"]
        else:
            with pytest.raises(ExportError, match="no token for 1 of the bytes that texts have"):
                tokenizer_metadata(made, OURS, [0], 400)


def test_bytes_that_are_an_unknown_token_may_not():
    kept = set(pre_tokenizers.ByteLevel.alphabet()) - {byte_letter(0x04)}
    made = Tokenizer(models.BPE(vocab={one: place for place, one in enumerate(["?", *kept])}, merges=[], unk_token="?"))
    made.pre_tokenizer = WORDS
    with pytest.raises(ExportError, match=r"no token for are '\?', and llama.cpp leaves them out"):
        tokenizer_metadata(made, OURS, [0], 400)


def byte_letter(byte):
    """How byte-level tokenizers spell a byte, by transformers' own table."""
    return bytes_to_unicode()[byte]


def test_tokens_have_types_and_rows_without_one_a_placeholder():
    made = add_chatml(tokenizer())
    made.add_tokens(["plainly added"])
    said = tokenizer_metadata(made, OURS, [0], VOCAB + 8)
    tokens, kinds = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
    assert tokens[:2] == [OURS.end, OURS.pad] and kinds[:2] == [3, 3] and set(kinds[2:VOCAB]) == {1}
    added, placeholders = ["<|im_start|>", "<|im_end|>", "plainly added"], [f"[PAD{VOCAB + n}]" for n in range(3, 8)]
    assert tokens[VOCAB:] == added + placeholders
    assert kinds[VOCAB:] == [3, 3, 4, *[5] * 5]
    assert all(len(merge.split(" ")) == 2 for merge in said["tokenizer.ggml.merges"])


def test_ends_that_a_tokenizer_adds_are_added_by_llama_cpp():
    made = byte_level(WORDS)
    end = made.token_to_id(OURS.end)
    made.post_processor = processors.TemplateProcessing(single=f"{OURS.end} $A", special_tokens=[(OURS.end, end)])
    said = tokenizer_metadata(made, OURS, [end], 259)
    assert said["tokenizer.ggml.add_bos_token"] and not said["tokenizer.ggml.add_eos_token"]
