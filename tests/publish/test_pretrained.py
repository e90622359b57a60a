"""Starting from checkpoints of others: the same logits, every refusal by name, and a run from one to a release."""

import json
from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from rich.console import Console
from tiny_checkpoints import KINDS, PADDING, TEMPLATE, TOKENIZERS, change, save_checkpoint
from tiny_releases import offline

from lilliput.base.errors import DataError, RecipeError, RunError
from lilliput.base.spec import from_plain, to_plain
from lilliput.data.messages import Message
from lilliput.data.shards import Shards
from lilliput.generate.detokenizer import Detokenizer
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.growth import Lineage
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.publish.load import load
from lilliput.publish.pretrained import PretrainedModel, PretrainedTokenizer
from lilliput.recipe import Release
from lilliput.run.pipeline import run
from lilliput.tokenizer.chatml import CHATML, add_chatml, encode_messages, render
from lilliput.train.machine import Machine

__all__ = ["offline"]

STORED = {
    "whole": {},
    "bf16": {"dtype": torch.bfloat16},
    "fp16": {"dtype": torch.float16},
    "sharded": {"shards": "20KB"},
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "one key head each": {"num_key_value_heads": 4},
}


def same_logits(model, theirs) -> None:
    rows = torch.randint(0, model.spec.vocab, (2, 37))
    with torch.no_grad():
        expected = theirs(rows).logits
        torch.testing.assert_close(model(rows), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_computes_what_transformers_computes(tmp_path, kind, stored, offline):
    theirs = save_checkpoint(tmp_path, kind, **STORED[stored])
    assert (tmp_path / "model.safetensors").is_file() == (stored != "sharded")
    start = PretrainedModel(checkpoint=str(tmp_path))
    model = start.build(seed=0)
    same_logits(model, theirs)
    assert model.spec == start.shape == start.shape.shape
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    assert start.layout == (Qwen3Format if kind == "qwen3" else LlamaFormat)(context=256)
    start.layout.check_supported(start.shape)
    assert from_plain(json.loads(json.dumps(to_plain(start)))) == start


@pytest.mark.parametrize("kind", KINDS)
def test_configs_of_before_transformers_5_mean_the_same(tmp_path, kind, offline):
    theirs = save_checkpoint(tmp_path, kind)
    shape = PretrainedModel(checkpoint=str(tmp_path)).shape
    silent = {"rope_parameters": None, "attention_bias": None, "hidden_act": None, "initializer_range": None}
    change(tmp_path / "config.json", rope_theta=5_000.0, **silent)
    assert PretrainedModel(checkpoint=str(tmp_path)).shape == shape
    change(tmp_path / "config.json", rope_scaling={"type": "default"})
    assert PretrainedModel(checkpoint=str(tmp_path)).shape == shape
    if kind == "llama":
        change(tmp_path / "config.json", head_dim=None)
    same_logits(PretrainedModel(checkpoint=str(tmp_path)).build(seed=0), theirs)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (
            {"model_type": "gpt2"},
            r"(?s)model_type is 'gpt2'.*hint: .* can be read are llama, qwen3, hgrn2_lm",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_parameters is .*yarn"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*linear"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "rope_parameters is .*0.5"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is .*sliding"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*4"),
        ({"hidden_size": None}, "hidden_size is None"),
    ],
)
def test_what_no_model_of_ours_has_is_refused_by_its_name(tmp_path, entries, says, offline):
    save_checkpoint(tmp_path, "qwen3")
    change(tmp_path / "config.json", **entries)
    with pytest.raises(RunError, match=says) as caught:
        _ = PretrainedModel(checkpoint=str(tmp_path)).shape
    assert str(tmp_path) in caught.value.where and caught.value.hint


def test_missing_damaged_and_strange_weights_are_named(tmp_path, offline):
    from safetensors.torch import load_file, save_file

    save_checkpoint(tmp_path, "llama", shards="20KB")
    start = PretrainedModel(checkpoint=str(tmp_path))
    index, first = tmp_path / "model.safetensors.index.json", sorted(tmp_path.glob("model-*.safetensors"))[0]
    whole, weights = first.read_bytes(), load_file(first)
    identity = start.identity()
    for odd, says in (
        (weights | {"model.extra.bias": torch.ones(1)}, "does not name: .*model.extra.bias"),
        (dict(list(weights.items())[1:]), "does not name"),
        ({name: weight[:1].clone() for name, weight in weights.items()}, "does not have the model's shape"),
        ({name: weight.to(torch.int8) for name, weight in weights.items()}, "stored as I8"),
    ):
        save_file(odd, first)
        with pytest.raises(RunError, match=says):
            start.build(seed=0)
    assert start.identity() != identity, "other weights are another start"
    first.write_bytes(whole[:100])
    with pytest.raises(RunError, match=f"{first.name} cannot be read"):
        start.build(seed=0)
    first.unlink()
    with pytest.raises(RunError, match=f"{first.name} is missing"):
        start.build(seed=0)
    index.write_text("{")
    with pytest.raises(RunError, match=r"index\.json cannot be read"):
        start.build(seed=0)
    index.unlink()
    with pytest.raises(RunError, match=r"(?s)model\.safetensors is missing.*safetensors format"):
        start.build(seed=0)
    (tmp_path / "config.json").unlink()
    with pytest.raises(RunError, match=r"no config\.json"):
        _ = start.shape


def test_a_name_on_the_hub_says_what_is_in_the_way():
    for reach in (
        lambda: PretrainedModel(checkpoint="nobody/nothing").shape,
        lambda: PretrainedTokenizer(checkpoint="nobody/nothing").vocab,
    ):
        with pytest.raises(RunError, match=r"(?s)model 'nobody/nothing'.*local folder"):
            reach()
    with pytest.raises(RunError, match="neither a folder nor a name on the hub"):
        _ = PretrainedModel(checkpoint="/no/such/folder/here").shape


@pytest.mark.parametrize("tokens", TOKENIZERS)
def test_a_kept_tokenizer_knows_its_end(tmp_path, tokens, offline):
    build, named = TOKENIZERS[tokens]
    save_checkpoint(tmp_path, "llama", tokens=tokens)
    kept = PretrainedTokenizer(checkpoint=str(tmp_path))
    assert kept.vocab == build().get_vocab_size() and kept.specials.end == named["eos_token"]
    assert kept.specials.begin == named.get("bos_token", named["eos_token"])
    assert kept.specials.pad == named.get("pad_token", named["eos_token"])
    assert kept.train(iter(())).encode("plain text").ids == build().encode("plain text").ids
    other = replace(kept, end="<s>" if tokens == "metaspace" else "<|pad|>")
    assert other.specials.end == other.end and other.identity() != kept.identity()
    with pytest.raises(DataError, match=r"(?s)no token '<stop>'.*such as"):
        _ = replace(kept, end="<stop>").specials
    change(tmp_path / "tokenizer_config.json", eos_token=None)
    (tmp_path / "special_tokens_map.json").unlink(missing_ok=True)
    assert kept.specials.end == named["eos_token"], "config.json says it too"
    change(tmp_path / "config.json", eos_token_id=None)
    with pytest.raises(DataError, match="eos_token"):
        _ = kept.specials


def test_recipes_that_cannot_be_are_refused(tmp_path, offline):
    save_checkpoint(tmp_path / "one", "qwen3")
    recipe = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC)
    kept = PretrainedTokenizer(checkpoint=str(tmp_path / "one"))
    with pytest.raises(RecipeError, match="PretrainedTokenizer and tokenizer_corpora"):
        replace(recipe, tokenizer=kept)
    with pytest.raises(RecipeError, match=r"tokenizer has 302 tokens, the model 300"):
        replace(recipe, tokenizer=kept, tokenizer_corpora=())
    larger = replace(recipe, tokenizer=kept, tokenizer_corpora=(), model=replace(tiny.GQA_SPEC, vocab=320))
    assert larger.model.vocab == 320, "a new model may have a tokenizer that is there"


@pytest.fixture(scope="module", params=KINDS)
def done(request, tmp_path_factory):
    """From a checkpoint of others over pretraining and new tokens to a base and an instruct release."""
    folder = tmp_path_factory.mktemp(request.param)
    save_checkpoint(folder / "start", request.param)
    recipe, start = tiny.recipe(folder / "data"), PretrainedModel(checkpoint=str(folder / "start"))
    entries = [
        replace(entry, layout=start.layout) if isinstance(entry, Release) else entry for entry in recipe.timeline
    ]
    kept = PretrainedTokenizer(checkpoint=start.checkpoint)
    recipe = replace(recipe, model=start, tokenizer=kept, tokenizer_corpora=(), timeline=tuple(entries))
    machine = Machine(device="cpu", precision="fp32", threads=1)
    releases = run(recipe, folder / "run", machine, Console(file=StringIO()))
    return request.param, recipe, folder / "run", releases


@pytest.mark.slow
def test_a_run_from_a_checkpoint_ends_in_folders_that_transformers_loads(done, offline):
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    kind, recipe, _, releases = done
    build, named = TOKENIZERS[KINDS[kind]]
    rows = build().get_vocab_size() + PADDING
    for release, tokenizer, size in zip(releases, (build(), add_chatml(build())), (rows, rows + 2), strict=True):
        published = load(release)
        theirs = AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32)
        same_logits(published.model, theirs)
        assert published.model.spec.vocab == size and published.layout == recipe.model.layout
        loaded = AutoTokenizer.from_pretrained(release)
        for text in ("Small models, 12 of them.", "été 🙂", "  blanks \n\nand lines"):
            assert loaded(text)["input_ids"] == tokenizer.encode(text).ids == published.tokenizer.encode(text).ids
        end = tokenizer.token_to_id(named["eos_token"])
        assert published.end_id == end and end in published.stop_ids
        stops = GenerationConfig.from_pretrained(release).eos_token_id
        assert published.stop_ids == (tuple(stops) if isinstance(stops, list) else (stops,))
        assert loaded.bos_token == named.get("bos_token", named["eos_token"])
        card = (release / "README.md").read_text()
        assert 'from the weights of `"…/start"` on' in card and "nothing else: expect" not in card
    assert releases[0].name == "tiny-base" and load(releases[0]).stop_ids == (end,)


@pytest.mark.slow
def test_documents_begin_with_the_end_token_of_the_tokenizer(done):
    kind, _, folder, _ = done
    build, named = TOKENIZERS[KINDS[kind]]
    end = build().token_to_id(named["eos_token"])
    shards = Shards(folder / "shards" / "texts")
    stream = shards.stream("train")
    tokens = stream.read(0, len(stream))
    documents = shards.index["sides"]["train"]["documents"]
    assert shards.index["end"] == stream.end == end != 0 and tokens[0] == end
    assert int((tokens == end).sum()) == documents
    if kind == "llama":
        assert int((tokens == 1).sum()) == documents and tokens[1] == 1, "what the tokenizer puts first stays"


@pytest.mark.slow
def test_new_tokens_stand_between_those_that_are_known_and_the_padding(done):
    kind, recipe, folder, _ = done
    from safetensors.torch import load_file

    known = TOKENIZERS[KINDS[kind]][0]().get_vocab_size()
    before = load_file(folder / "phases" / "00-pretrain" / "final" / "average.safetensors")["embedding.weight"]
    model = recipe.model.build(seed=0)
    model.load_state_dict(load_file(folder / "phases" / "00-pretrain" / "final" / "average.safetensors"))
    line = Lineage(model=model, tokenizer=recipe.tokenizer.train(()), average={})
    grown = AddTokens(tokens=CHATML).grow(line, seed=1).model.embedding.weight
    assert torch.equal(grown[:known], before[:known]) and torch.equal(grown[known + 2 :], before[known:])
    assert not torch.equal(grown[known], grown[known + 1]) and grown[known].std() < 2 * before.std()
    chat = replace(line, tokenizer=add_chatml(line.tokenizer))
    with pytest.raises(RecipeError, match="already"):
        AddTokens(tokens=CHATML).grow(chat, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_any_folder_of_transformers_opens_and_writes_what_transformers_writes(tmp_path, kind, offline):
    from transformers import AutoTokenizer

    theirs = save_checkpoint(tmp_path, kind)
    published = load(tmp_path)
    assert published.chat_template is None and not published.model.training
    same_logits(published.model, theirs)
    named = TOKENIZERS[KINDS[kind]][1]
    end = published.tokenizer.token_to_id(named["eos_token"])
    assert published.stop_ids == (end,) and published.end_id == end and not published.generation.do_sample
    assert published.special_tokens["eos_token"] == named["eos_token"]

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for prompt in ("plain text", "Ünï 🙂"):
        ids = tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            whole = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=40, pad_token_id=end)[0]
        sampling = published.generation.sampling
        ours = Engine(published.model).stream(
            Request(prompt=ids, sampling=sampling, stop_token_ids=published.stop_ids, max_new_tokens=40)
        )
        assert ids + list(ours) == whole.tolist()


@pytest.mark.parametrize("tokens", TOKENIZERS)
def test_streamed_pieces_are_the_text_with_its_blanks(tokens):
    tokenizer = TOKENIZERS[tokens][0]()
    for text in (" small models", "été 🙂\n\n  of plain text", "日本語 and more"):
        whole = tokenizer.encode(f"words{text}", add_special_tokens=False).ids
        after = whole[len(tokenizer.encode("words", add_special_tokens=False).ids) :]
        stream = Detokenizer(tokenizer)
        found = [piece for token in after if (piece := stream.add(token))]
        assert "".join(found) == text and len(found) > 1 and not any("\ufffd" in piece for piece in found)


@pytest.mark.parametrize("tokens", TOKENIZERS)
def test_conversations_in_foreign_tokens_are_their_rendered_text(tokens):
    chat = add_chatml(TOKENIZERS[tokens][0]())
    talks = (("what?", " a blank first"), ("¿qué? 🙂", "\nnothing <|im_end|> is </s> forged"), ("", "x"))
    for question, answer in talks:
        messages = (Message("user", question), Message("assistant", answer))
        encoded = encode_messages(chat, messages)
        ids = [token for part, _ in encoded for token in part]
        assert chat.decode(ids, skip_special_tokens=False) == render(messages)
        if "<|im_end|>" not in answer:
            assert ids == chat.encode(render(messages), add_special_tokens=False).ids
        charged = [token for part, mask in encoded for token, weight in zip(part, mask, strict=True) if weight]
        stream = Detokenizer(chat)
        assert "".join(map(stream.add, charged)) == f"{answer}<|im_end|>"
        assert ids.count(chat.token_to_id("<|im_end|>")) == 2


def test_settings_and_template_of_a_folder_are_its_own(tmp_path, offline):
    save_checkpoint(tmp_path, "llama")
    settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.2, "eos_token_id": [0, 2]}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    published = load(tmp_path)
    sampling = published.generation.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.repetition_penalty) == (0.6, 0.9, 50, 1.2)
    assert published.stop_ids == (0, 2) and published.generation.stop == "<unk>"
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    change(tmp_path / "tokenizer_config.json", chat_template=named)
    assert load(tmp_path).chat_template == TEMPLATE
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}")
    assert load(tmp_path).chat_template == "{{ bos_token }}"
    change(tmp_path / "config.json", model_type="gpt2")
    with pytest.raises(RunError, match="model_type is 'gpt2'"):
        load(tmp_path)
