"""Export: a folder that transformers loads and that `load` reads back exactly, or an error that says why not."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from tiny_releases import HGRN, QWEN3, RELEASES, VOCAB, awake, offline, rows, tokenizer

from lilliput.base.errors import ExportError, RecipeError, RunError
from lilliput.base.files import verify_checksum
from lilliput.publish.export import DTYPES, Generation, export
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.publish.load import load
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml, render

__all__ = ["offline"]


def released(tmp_path, name="qwen3", dtype="F32", generation=None, **options):
    """A model and the folder it was released to."""
    spec, layout = RELEASES[name]
    model = awake(spec)
    options = {"tokenizer": tokenizer(), "chat_template": None} | options
    folder = tmp_path / "release"
    folder.mkdir()
    export(model, folder=folder, layout=layout, dtype=dtype, generation=generation or Generation(), **options)
    return model, folder


def released_chat(tmp_path, generation=None):
    spec = replace(QWEN3, vocab=VOCAB + 2)
    model, folder = awake(spec), tmp_path / "chat"
    folder.mkdir()
    export(
        model,
        add_chatml(tokenizer()),
        folder,
        layout=Qwen3Format(context=64),
        dtype="BF16",
        generation=generation or Generation(),
        chat_template=CHAT_TEMPLATE,
        readme="# A chat model\n",
    )
    return model, folder


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RELEASES)
def test_transformers_computes_the_native_logits(tmp_path, name, dtype, offline):
    from transformers import AutoModelForCausalLM

    model, folder = released(tmp_path, name, dtype)
    remote = name.startswith("hgrn2")
    theirs = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=remote, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(DTYPES[dtype]))
        expected, found = model(rows(2, 37)), theirs(rows(2, 37)).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    tied = theirs.lm_head.weight.data_ptr() == theirs.get_input_embeddings().weight.data_ptr()
    assert tied == model.spec.tie_embeddings


@pytest.mark.parametrize("name", RELEASES)
def test_the_weights_file_is_the_one_transformers_writes(tmp_path, name, offline):
    from transformers import AutoModelForCausalLM

    _, folder = released(tmp_path, name, "BF16")
    theirs = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=name.startswith("hgrn2"))
    assert theirs.dtype == torch.bfloat16
    theirs.save_pretrained(tmp_path / "again")
    files = [folder / "model.safetensors", tmp_path / "again" / "model.safetensors"]
    with safe_open(files[0], "pt") as ours, safe_open(files[1], "pt") as saved:
        assert ours.metadata() == saved.metadata() == {"format": "pt"}
        assert list(ours.keys()) == list(saved.keys())
        for key in ours.keys():  # noqa: SIM118 (safe_open is no mapping)
            assert ours.get_slice(key).get_dtype() == "BF16"
            assert torch.equal(ours.get_tensor(key), saved.get_tensor(key))
    ours, saved = (json.loads((file.parent / "config.json").read_text()) for file in files)
    assert {key: saved.get(key) for key in ours if key != "rope_theta" or remote_reads(ours)} == {
        key: value for key, value in ours.items() if key != "rope_theta" or remote_reads(ours)
    }


def remote_reads(config):
    """transformers 5 keeps `rope_theta` in `rope_parameters`; our own architecture has no such dict."""
    return "rope_parameters" not in config


@pytest.mark.parametrize("name", RELEASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_load_is_the_exact_inverse(tmp_path, name, dtype):
    generation = Generation(temperature=0.7, top_p=0.9, repetition_penalty=1.2, max_new_tokens=17)
    model, folder = released(tmp_path, name, dtype, generation)
    published = load(folder)
    assert published.model.spec == model.spec and not published.model.training
    assert (published.generation, published.layout) == (generation, RELEASES[name][1])
    assert published.chat_template is None and published.stop_ids == (0,)
    assert published.tokenizer.to_str() == tokenizer().to_str()
    loaded = published.model.state_dict()
    assert loaded.keys() == model.state_dict().keys()
    for key, weight in model.state_dict().items():
        assert loaded[key].dtype == torch.float32
        assert torch.equal(loaded[key], weight.to(DTYPES[dtype]).float())
    assert published.model(rows(1, 5)).isfinite().all()


def test_an_export_is_a_function_of_its_inputs(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    _, one = released(tmp_path / "a", "hgrn2", "BF16")
    _, two = released(tmp_path / "b", "hgrn2", "BF16")
    assert sorted(file.name for file in one.iterdir()) == sorted(file.name for file in two.iterdir())
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_a_base_release_begins_and_ends_with_endoftext(tmp_path, offline):
    from transformers import AutoTokenizer, GenerationConfig

    _, folder = released(tmp_path, "hgrn2", generation=Generation(top_k=5, temperature=0.8))
    theirs = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ("<|endoftext|>", "<|endoftext|>", "<|pad|>")
    assert theirs.chat_template is None and (theirs.model_max_length, theirs.padding_side) == (64, "left")
    assert theirs("the lazy cat")["input_ids"] == tokenizer().encode("the lazy cat").ids
    settings = GenerationConfig.from_pretrained(folder)
    assert (settings.eos_token_id, settings.bos_token_id, settings.pad_token_id) == (0, 0, 1)
    said = json.loads((folder / "generation_config.json").read_text())
    assert said.keys() == {"bos_token_id", "eos_token_id", "pad_token_id"}, "what else it says overrules tools"
    config = json.loads((folder / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 0, 1)
    assert config["dtype"] == "float32" and config["max_position_embeddings"] == 64
    assert not (folder / "chat_template.jinja").exists() and not (folder / "README.md").exists()


def test_a_chat_release_ends_with_the_message_and_renders_like_ours(tmp_path, offline):
    from transformers import AutoTokenizer, GenerationConfig

    _, folder = released_chat(tmp_path, Generation(do_sample=False, repetition_penalty=1.1))
    theirs = AutoTokenizer.from_pretrained(folder)
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ("<|endoftext|>", "<|im_end|>", "<|pad|>")
    messages = [{"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "the mat"}]
    assert theirs.apply_chat_template(messages, tokenize=False) == render(messages)
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
    settings = GenerationConfig.from_pretrained(folder)
    settings.validate(strict=True)
    assert settings.eos_token_id == [VOCAB + 1, 0] and settings.repetition_penalty in (None, 1.0)
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == VOCAB + 1
    assert (folder / "README.md").read_text() == "# A chat model\n"
    published = load(folder)
    assert published.chat_template == CHAT_TEMPLATE and published.stop_ids == (VOCAB + 1, 0)


@pytest.mark.parametrize("name", ["hgrn2", "qwen3"])
def test_whoever_asks_gets_what_was_asked_for(tmp_path, offline, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    generation = Generation(temperature=0.1, repetition_penalty=9.0, max_new_tokens=3)
    model, folder = released(tmp_path, name, generation=generation)
    theirs = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    inputs = AutoTokenizer.from_pretrained(folder)("the cat", return_tensors="pt")
    assert list(inputs) == ["input_ids", "attention_mask"]
    written = theirs.generate(**inputs, max_length=24, eos_token_id=VOCAB)  # as lm-evaluation-harness asks
    ids = inputs["input_ids"]
    with torch.no_grad():
        while ids.shape[1] < 24:
            ids = torch.cat((ids, model(ids)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(written, ids)


def test_generation_gives_our_sampling_and_refuses_the_impossible():
    sampling = Generation(do_sample=False, top_k=3).sampling
    assert sampling.greedy and sampling.top_k == 3
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_k": -1}, {"max_new_tokens": 0}):
        with pytest.raises(RecipeError):
            Generation(**wrong)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"tokenizer": add_chatml(tokenizer())}, "the tokenizer has 282 ids, the model 280"),
        ({"generation": Generation(stop="<|im_end|>")}, "no '<|im_end|>'"),
        ({"chat_template": CHAT_TEMPLATE}, "no '<|im_end|>'"),
    ],
)
def test_what_does_not_belong_together_is_not_exported(tmp_path, wrong, says):
    with pytest.raises(ExportError, match=says.replace("|", r"\|")) as caught:
        released(tmp_path, **wrong)
    assert caught.value.where and caught.value.hint


def test_a_weight_that_overflows_is_not_exported(tmp_path):
    model = awake(HGRN)
    with torch.no_grad():
        model.layers[0].ffn.up.weight[0, 0] = 1e5
    settings = {"layout": HGRN2Format(context=8), "generation": Generation(), "chat_template": None}
    export(model, tokenizer(), tmp_path, dtype="BF16", **settings)
    with pytest.raises(ExportError, match=r"1 of 1,536 numbers are not finite in F16") as caught:
        export(model, tokenizer(), tmp_path, dtype="F16", **settings)
    assert "layers.0.ffn.up.weight" in caught.value.where


@pytest.mark.parametrize("name", ["lilliput.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_missing_or_damaged_file_is_named(tmp_path, name):
    _, folder = released_chat(tmp_path)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=name) as caught:
        load(folder)
    assert caught.value.where and caught.value.hint
    (folder / name).unlink()
    if name == "lilliput.json":  # what is left is a Qwen3 folder as anybody's
        assert load(folder).model.spec.vocab == VOCAB + 2
        return
    with pytest.raises(RunError, match=name):
        load(folder)


def test_one_flipped_bit_of_the_weights_is_seen(tmp_path):
    _, folder = released(tmp_path)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(RunError, match="hash differs"):
        load(folder)


def test_a_folder_of_another_format_or_with_other_weights_is_refused(tmp_path):
    _, folder = released(tmp_path)
    release = verify_checksum(json.loads((folder / "lilliput.json").read_text()))
    (folder / "lilliput.json").write_text(json.dumps(release | {"version": 99}))
    with pytest.raises(RunError, match="99"):
        load(folder)
    fewer = release | {"model": release["model"] | {"layers": 1}}
    (folder / "lilliput.json").write_text(json.dumps(fewer))
    with pytest.raises(RunError, match="does not name"):
        load(folder)
    wider = release | {"model": release["model"] | {"width": 16}}
    (folder / "lilliput.json").write_text(json.dumps(wider))
    with pytest.raises(RunError, match="does not have the model's shape"):
        load(folder)
    (folder / "lilliput.json").write_text(json.dumps({k: v for k, v in release.items() if k != "layout"}))
    with pytest.raises(RunError, match="layout"):
        load(folder)
    shutil.rmtree(folder)
    with pytest.raises(RunError, match=r"no lilliput\.json"):
        load(folder)
