"""The file of 8-bit weights: exactly what rounding at load gives, without the weights that were rounded."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_releases import RELEASES, awake, rows, tokenizer
from typer.testing import CliRunner

import lilliput
from lilliput.base.errors import ExportError, RunError
from lilliput.base.files import read_json, sha256, with_checksum
from lilliput.cli import app
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.publish import load as loading
from lilliput.publish.export import RELEASE_FILE, WEIGHTS_FILE, Generation, export, record_files
from lilliput.publish.int8.read import INT8_FILE
from lilliput.publish.int8.release import add_int8
from lilliput.publish.load import load, verified
from lilliput.serve.served_model import ServedModel

BOTH = ("qwen3", "hgrn2-options")


def released(folder, name, dtype="F16"):
    spec, layout = RELEASES[name]
    export(awake(spec), tokenizer(), folder, layout=layout, dtype=dtype, generation=Generation(), chat_template=None)
    return add_int8(folder, tokens=rows(2, 37))


def written(model, count=8):
    """The logits after a prompt, and the tokens after it with their likelihoods, as the engine has them."""
    engine, prompt = Engine(model, int8=True), rows(1, 21)[0].tolist()
    request = Request(prompt=prompt, max_new_tokens=count, sampling=Sampling(greedy=True), log_probabilities=True)
    tokens = [(token.token, token.log_probability) for _, token in engine.tokens([request])]
    return engine.read(prompt).logits, tokens


@pytest.mark.parametrize("name", RELEASES)
def test_the_engine_writes_exactly_what_it_does_with_weights_rounded_at_load(tmp_path, name):
    released(tmp_path, name)
    expected, expected_tokens = written(load(tmp_path).model)
    found, tokens = written(load(tmp_path, int8=True).model)
    assert torch.equal(found, expected) and tokens == expected_tokens


@pytest.mark.parametrize("name", BOTH)
def test_a_folder_without_the_other_weights_is_a_whole_model(tmp_path, name, monkeypatch):
    released(tmp_path, name)
    exact = lilliput.load(tmp_path, device="cpu")
    (tmp_path / WEIGHTS_FILE).unlink()
    monkeypatch.setattr(loading, "read_weights", None)
    model = lilliput.load(tmp_path, device="cpu", dtype="int8")
    assert model.parameters == exact.parameters and model.context == exact.context
    wide = sum(tensor.numel() for tensor in model.module.state_dict().values() if tensor.dtype == torch.float32)
    assert wide < 0.1 * model.parameters["total"], "matrices have 8 bits"
    assert model.generate("the", greedy=True, max_new_tokens=4)
    assert (model.losses("the old house") - exact.losses("the old house")).abs().max() < 0.5
    assert model.score("the", ["a", "b"])[0].tokens == exact.score("the", ["a", "b"])[0].tokens
    assert model.embed_tokens("the").shape == exact.embed_tokens("the").shape
    assert ServedModel(load(tmp_path, int8=True), "tiny").parameters == exact.parameters["total"]
    with pytest.raises(RunError, match=f"{WEIGHTS_FILE} is missing") as raised:
        lilliput.load(tmp_path, device="cpu")
    assert "(--dtype int8)" in str(raised.value.hint)
    words = [
        "generate",
        str(tmp_path),
        "--prompt",
        "the",
        "--dtype",
        "int8",
        "--device",
        "cpu",
        "--max-new-tokens",
        "3",
    ]
    assert CliRunner().invoke(app, words).exit_code == 0


def test_a_release_gets_the_file_with_its_hash_and_keeps_what_it_had(tmp_path):
    facts = released(tmp_path, "llama")
    path = tmp_path / INT8_FILE
    assert facts["file"] == INT8_FILE and facts["bytes"] == path.stat().st_size
    assert facts["sha256"] == sha256(path) == verified(tmp_path)["files"][INT8_FILE]
    assert 0 < facts["rounding"] < 0.1
    before = path.read_bytes()
    assert add_int8(tmp_path, tokens=rows(2, 37)) == facts and path.read_bytes() == before


def test_every_file_that_is_read_is_whole_and_no_other_is_asked_for(tmp_path):
    released(tmp_path, "hgrn2")
    (tmp_path / "tiny-F16.gguf").write_bytes(b"GGUF")
    record_files(tmp_path, ["tiny-F16.gguf"])
    (tmp_path / "tiny-F16.gguf").unlink()
    weights, int8 = tmp_path / WEIGHTS_FILE, tmp_path / INT8_FILE
    weights.write_bytes(weights.read_bytes()[:-1])
    assert load(tmp_path, int8=True).model.spec == RELEASES["hgrn2"][0]
    whole = int8.read_bytes()
    int8.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match=f"{INT8_FILE} is not the file that was released: its hash differs"):
        load(tmp_path, int8=True)
    int8.unlink()
    with pytest.raises(RunError, match=f"{INT8_FILE} is missing"):
        load(tmp_path, int8=True)


def test_a_release_without_the_file_is_rounded_when_it_is_loaded(tmp_path):
    spec, layout = RELEASES["qwen3"]
    about = {"layout": layout, "dtype": "F16", "generation": Generation(), "chat_template": None}
    export(awake(spec), tokenizer(), tmp_path, **about)
    model = lilliput.load(tmp_path, device="cpu", dtype="int8")
    assert {tensor.dtype for tensor in model.module.state_dict().values()} == {torch.float32}
    assert model.generate("the", greedy=True, max_new_tokens=4)


def test_a_file_that_computes_something_else_is_not_published(tmp_path, monkeypatch):
    read = loading.read_int8

    def other(folder, spec):
        model = read(folder, spec)
        model.norm.weight.data[0] += 1e-3
        return model

    monkeypatch.setattr(loading, "read_int8", other)
    with pytest.raises(ExportError, match="logits of the 8-bit weights are not those"):
        released(tmp_path, "qwen3")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda weights: weights.pop("norm.weight"), "it holds other weights than the model has: 'norm.weight'"),
        (lambda weights: weights.update(more=torch.ones(1)), "it holds other weights than the model has: 'more'"),
        (lambda weights: weights.update({"norm.weight": torch.ones(31)}), r"norm.weight \[31\], not \[32\]"),
        (lambda weights: weights.update({"norm.weight": torch.ones(32).half()}), "norm.weight is torch.float16"),
        (lambda weights: weights["embedding.scale"].fill_(torch.nan), "embedding.scale holds numbers that are not"),
    ],
)
def test_other_weights_than_the_shape_has_are_refused(tmp_path, change, says):
    released(tmp_path, "qwen3")
    weights = load_file(tmp_path / INT8_FILE)
    change(weights)
    save_file(weights, tmp_path / INT8_FILE)
    record_files(tmp_path, [INT8_FILE])
    with pytest.raises(RunError, match=says) as raised:
        load(tmp_path, int8=True)
    assert raised.value.where == str(tmp_path / INT8_FILE) and raised.value.hint


def test_a_shape_that_the_file_cannot_hold_is_refused_before_it_is_made(tmp_path):
    released(tmp_path, "qwen3")
    plain = read_json(tmp_path / RELEASE_FILE)
    plain["model"]["layers"] = 10**9
    plain.pop("sha256")
    (tmp_path / RELEASE_FILE).write_text(json.dumps(with_checksum(plain)))
    with pytest.raises(RunError, match="the model has 1,000,000,000 layers, its files"):
        load(tmp_path, int8=True)
