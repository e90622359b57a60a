"""Folders of models from strangers: they open, or are refused in three parts, early and for little."""

import json
import random
import time
from pathlib import Path

import hostile
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import change

import lilliput
from lilliput.base.errors import LilliputError, RunError
from lilliput.base.files import sha256, with_checksum
from lilliput.base.safetensors_headers import check_weights_cover, read_headers
from lilliput.publish.load import load
from lilliput.publish.pretrained import PretrainedModel

CASES = 250


@pytest.fixture
def foreign(tmp_path):
    return hostile.foreign(tmp_path / "foreign")


@pytest.fixture
def release(tmp_path):
    return hostile.release(tmp_path / "release")


def refused(folder: Path, says: str | None) -> LilliputError:
    with pytest.raises(LilliputError, match=says) as caught:
        load(folder)
    assert caught.value.what and caught.value.where and caught.value.hint
    return caught.value


def reseal(folder: Path, **entries) -> None:
    """Change entries of lilliput.json as somebody would who can compute a hash."""
    file = folder / "lilliput.json"
    plain = json.loads(file.read_text()) | entries
    plain.pop("sha256")
    file.write_text(json.dumps(with_checksum(plain)))


@pytest.mark.parametrize(
    ("make", "names"), [(hostile.release, hostile.FILES[:1]), (hostile.foreign, hostile.FILES[1:])]
)
def test_whatever_is_in_the_files_is_an_error_of_three_parts(tmp_path, make, names):
    folder = make(tmp_path / "folder")
    files = [folder / name for name in names]
    good, loaded = {file: file.read_bytes() for file in files}, 0
    for seed in range(CASES):
        rng = random.Random(seed)
        file = rng.choice(files)
        file.write_bytes(hostile.spoilt(file, rng))
        try:
            lilliput.load(folder, device="cpu")
            loaded += 1
        except LilliputError as error:
            assert error.what and error.where and error.hint, seed
        file.write_bytes(good[file])
    assert CASES // 20 < loaded < CASES // 2, "most changes are seen, and some do no harm"
    load(folder)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"num_hidden_layers": 10_000_000}, "(?s)num_hidden_layers is 10000000.*MAX_MODEL_LAYERS"),
        ({"num_hidden_layers": 1_000}, "1,000 layers, its files 2. tensors"),
        ({"num_hidden_layers": 2**70}, "num_hidden_layers is 1180591620717411303424"),
        ({"num_hidden_layers": 3}, r"does not name: .*model\.layers\.2"),
        ({"hidden_size": 2**31 - 1}, "does not have the model's shape"),
        ({"vocab_size": 2**31 - 1}, "does not have the model's shape"),
        ({"intermediate_size": 2**31 - 1}, "does not have the model's shape"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": -4}, "num_attention_heads is -4"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"num_attention_heads": 4.0}, r"num_attention_heads is 4\.0"),
        ({"num_key_value_heads": 3}, "3 key heads"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"vocab_size": "280"}, "vocab_size is '280'"),
        ({"vocab_size": [280]}, r"vocab_size is \[280\]"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'"),
        ({"initializer_range": float("nan")}, "initializer_range is nan"),
        ({"rope_parameters": {"rope_theta": float("inf")}}, "rope_theta is inf"),
        ({"rope_parameters": {"rope_theta": 10**400}}, "rope_theta is 1000"),
        ({"rope_parameters": [1]}, r"rope_parameters is \[1\]"),
        ({"rope_parameters": "plain"}, "rope_parameters is 'plain'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ({"attention_bias": "no"}, "attention_bias is 'no'"),
        ({"hidden_act": ["silu"]}, r"hidden_act is \['silu'\]"),
        ({"layer_types": 3}, "layer_types is 3"),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\]"),
        ({"max_position_embeddings": 0.5}, r"max_position_embeddings is 0\.5"),
        ({"bos_token_id": "0"}, "bos_token_id is '0'"),
    ],
)
def test_a_config_is_refused_by_its_entry_before_a_model_is_made(foreign, entries, says):
    change(foreign / "config.json", **entries)
    began = time.process_time()
    refused(foreign, says)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("file", "entries", "says"),
    [
        ("generation_config.json", {"eos_token_id": "<|im_end|>"}, "eos_token_id is '<|im_end|>'"),
        ("generation_config.json", {"eos_token_id": [0, 2**40]}, "eos_token_id is 1099511627776"),
        ("generation_config.json", {"eos_token_id": True}, "eos_token_id is True"),
        ("generation_config.json", {"do_sample": "no"}, "do_sample is 'no'"),
        ("generation_config.json", {"do_sample": True, "temperature": "hot"}, "temperature is 'hot'"),
        ("generation_config.json", {"do_sample": True, "temperature": float("nan")}, "temperature cannot be nan"),
        ("generation_config.json", {"do_sample": True, "top_k": 5.5}, r"top_k is 5\.5"),
        ("generation_config.json", {"max_new_tokens": [9]}, r"max_new_tokens is \[9\]"),
        ("tokenizer_config.json", {"eos_token": 3}, "eos_token is 3"),
        ("tokenizer_config.json", {"bos_token": {"content": ["a"]}}, "bos_token is {'content'"),
    ],
)
def test_settings_of_other_kinds_are_refused_by_their_entry(foreign, file, entries, says):
    change(foreign / file, **entries)
    assert str(foreign) in refused(foreign, says).where


@pytest.mark.parametrize(
    ("template", "says"),
    [({"default": "x"}, "chat_template is {'default'"), (3, "chat_template is 3"), ("x" * 1_000_001, "1,000,000")],
)
def test_a_chat_template_that_is_none_is_refused_where_the_model_is_opened(foreign, template, says):
    (foreign / "chat_template.jinja").unlink()
    change(foreign / "tokenizer_config.json", chat_template=template)
    refused(foreign, says)
    change(foreign / "tokenizer_config.json", chat_template=[3, {"name": "default", "template": "{{ 1 }}"}])
    assert load(foreign).chat_template == "{{ 1 }}"


@pytest.mark.parametrize("raw", hostile.RAW)
def test_files_that_are_no_json_object_are_refused(foreign, raw):
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors.index.json"):
        whole = (foreign / name).read_bytes()
        (foreign / name).write_bytes(raw)
        assert name in refused(foreign, None).where
        (foreign / name).write_bytes(whole)


def test_deep_objects_are_read_or_refused(foreign):
    (foreign / "generation_config.json").write_text('{"a":' * 900 + "1" + "}" * 900)
    assert load(foreign).generation.do_sample is False
    (foreign / "generation_config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    refused(foreign, "recursion")


def test_a_file_of_settings_is_not_read_beyond_its_limit(foreign, monkeypatch):
    monkeypatch.setenv("LILLIPUT_MAX_CONFIG_BYTES", "1000")
    (foreign / "config.json").write_text(" " * 1_001 + "{}")
    assert "LILLIPUT_MAX_CONFIG_BYTES=2000" in refused(foreign, "1,003 bytes, 1,000 at most").hint


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(foreign, number):
    file = sorted(foreign.glob("model-*"))[0]
    weights = load_file(file)
    name = sorted(weights)[2]
    weights[name].view(-1)[-1] = number
    save_file(weights, file)
    assert refused(foreign, f"{name} holds numbers that are not finite").where == str(file)


def test_files_outside_of_the_folder_are_not_read(foreign, tmp_path):
    (foreign / "model-0.safetensors").rename(tmp_path / "x")
    index = foreign / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-0.safetensors", "../x"))
    for reach in (lambda: load(foreign), lambda: PretrainedModel(checkpoint=str(foreign)).identity()):
        with pytest.raises(LilliputError, match=r"'\.\./x' is not a plain file name"):
            reach()


def test_a_tensor_that_two_files_hold_is_refused(foreign):
    weights = load_file(foreign / "model-0.safetensors")
    save_file(weights | load_file(foreign / "model-1.safetensors"), foreign / "model-1.safetensors")
    refused(foreign, r"is in model-0\.safetensors too")


def test_a_header_larger_than_any_models_is_not_read(foreign, monkeypatch):
    monkeypatch.setenv("LILLIPUT_MAX_HEADER_BYTES", "100")
    assert "LILLIPUT_MAX_HEADER_BYTES" in refused(foreign, "the header has").hint


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(foreign):
    file = foreign / "tokenizer.json"
    plain = json.loads(file.read_text())
    plain["model"]["vocab"]["beyond"] = 4_000_000_000
    file.write_text(json.dumps(plain))
    refused(foreign, "ids up to 4,000,000,000, the model 282")


def test_a_release_names_files_of_its_own(release, tmp_path):
    (tmp_path / "x").write_text("elsewhere")
    reseal(release, files={"../x": sha256(tmp_path / "x")})
    refused(release, r"'\.\./x' is not a plain file name")
    reseal(release, files=["model.safetensors"])
    refused(release, r"its files are \['model")


@pytest.mark.parametrize(
    ("part", "entries", "says"),
    [
        ("model", {"layers": 10_000_000}, "10,000,000 layers, its files"),
        ("model", {"layers": 2.0}, r"2\.0 is not of type int"),
        ("model", {"vocab": True}, "True is not of type int"),
        ("model", {"tie_embeddings": "yes"}, "'yes' is not of type bool"),
        ("model", {"mixer": 3}, "3 is not a MixerSpec"),
        ("model", {"norm": {"type": "lilliput.nn.norm:RMSNorm", "eps": float("nan")}}, "nan is not of type float"),
        ("model", {"type": "lilliput.publish.export:Generation"}, "there is no field"),
        ("model", {"type": "lilliput.__main__:main"}, "__main__:main' is not one of Lilliput's"),
        ("model", {"type": "antigravity:fly"}, "antigravity:fly' is not one of Lilliput's"),
        ("model", {"type": None}, "the type None is not one of Lilliput's"),
        ("layout", {"context": "64"}, "'64' is not of type int"),
        ("generation", {"temperature": "hot"}, "do not fit"),
        ("generation", {"stop": 3}, "3 is not of type str"),
    ],
)
def test_specs_of_other_kinds_are_refused_by_their_field(release, part, entries, says):
    plain = json.loads((release / "lilliput.json").read_text())
    reseal(release, **{part: plain[part] | entries})
    refused(release, says)


def test_parts_of_a_release_cannot_change_places(release):
    plain = json.loads((release / "lilliput.json").read_text())
    reseal(release, model=plain["layout"], layout=plain["model"])
    refused(release, "is not of type HFFormat")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"n_layer": 10_000_000}, "n_layer is 10000000, .* 2. tensors in all"),
        ({"hidden_size": 10_000_000}, "hidden_size is 10000000, .* longest axis"),
        ({"vocab_size": 300}, "vocab_size is 300"),
        ({"text_config": {"num_layers": 10_000_000}}, "num_layers is 10000000"),
        ({"embedding_size": 100_000}, "vocab_size times the width is 28200000"),
    ],
)
def test_a_config_of_any_architecture_is_compared_with_the_headers(foreign, entries, says):
    change(foreign / "config.json", model_type="of somebody", architectures=["Unknown"])
    check_weights_cover(foreign)
    change(foreign / "config.json", **entries)
    with pytest.raises(RunError, match=says):
        check_weights_cover(foreign)


def test_headers_say_what_the_tensors_are(foreign):
    weights = {name: weight for file in foreign.glob("*.safetensors") for name, weight in load_file(file).items()}
    headers = read_headers(foreign)
    assert {name: stored.shape for name, stored in headers.items()} == {
        name: tuple(weight.shape) for name, weight in weights.items()
    }
    assert {stored.dtype for stored in headers.values()} == {"F32"}
    assert sum(stored.elements for stored in headers.values()) == sum(map(torch.numel, weights.values()))
