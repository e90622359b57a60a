"""The remote code of HGRN2 computes what the native model does: padded, cached, in half precision, in training."""

import itertools
from dataclasses import replace

import pytest
import torch
from tiny_releases import HGRN, OTHERWISE, RELEASES, VOCAB, awake, offline, rows, tokenizer

from lilliput.nn.block import ScalarGate, Ungated
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.norm import RMSNorm, ZeroCenteredRMSNorm
from lilliput.nn.rope import NoPE, RoPE
from lilliput.ops.gla import gla
from lilliput.publish.export import Generation, export
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format

__all__ = ["offline"]

LAYOUT = HGRN2Format(context=64)
STEEP = replace(HGRN, mixer=HGRN2(heads=2, rope=RoPE()), tie_embeddings=False)


def remote_of(model, dtype=torch.float32):
    """The remote model with the weights of a native one."""
    from lilliput.publish.remote.configuration_hgrn2_lm import HGRN2LMConfig
    from lilliput.publish.remote.modeling_hgrn2_lm import HGRN2LMForCausalLM

    LAYOUT.check_supported(model.spec)
    remote = HGRN2LMForCausalLM(HGRN2LMConfig(**LAYOUT.config(model.spec))).eval()
    names = LAYOUT.names(model.spec)
    state = {names[name]: weight for name, weight in model.state_dict().items()}
    if model.spec.tie_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    remote.load_state_dict(state)
    return remote.to(dtype)


def steep(spec=STEEP):
    """Forget gates far from 1 on both sides: log decays down to some -30."""
    model = awake(spec)
    with torch.no_grad():
        for layer in model.layers:
            layer.mixer.forget.weight.mul_(20)
    return model


def close(found, expected, rtol=2e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=rtol * expected.abs().max().item())


OPTIONS = list(
    itertools.product(
        (NoPE(), RoPE(layers="even", theta=500.0), RoPE(theta=100_000.0)),
        (RMSNorm(eps=1e-5), ZeroCenteredRMSNorm()),
        (RMSNorm(), ZeroCenteredRMSNorm(eps=1e-3)),
        (Ungated(), ScalarGate()),
        (SwiGLU(inner=24), SwiGLU2(inner=24)),
        (True, False),
    )
)


@pytest.mark.parametrize("rope, norm, output_norm, gate, ffn, tie", OPTIONS)
@torch.no_grad()
def test_every_option_gives_the_native_logits(rope, norm, output_norm, gate, ffn, tie):
    mixer = HGRN2(heads=2, rope=rope, output_norm=output_norm)
    spec = replace(HGRN, layers=2, mixer=mixer, norm=norm, gate=gate, ffn=ffn, tie_embeddings=tie)
    model = awake(spec)
    remote = remote_of(model)
    for length in (1, 5, 21):
        close(remote(rows(2, length)).logits, model(rows(2, length)), rtol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
@pytest.mark.parametrize("length", [1, 15, 16, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_copy_of_the_scan_is_faithful(scale, length, dtype):
    from lilliput.publish.remote.scan_hgrn2_lm import gated_scan as remote_scan

    generator = torch.Generator().manual_seed(length)
    q, k, v, z = (torch.randn(2, length, 3, 8, generator=generator) for _ in range(4))
    log_decay = torch.nn.functional.logsigmoid(z * scale)
    state = torch.randn(2, 3, 8, 8, generator=generator)
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    found = remote_scan(q, k, v, log_decay, state)
    for ours, theirs in zip(gla(q, k, v, log_decay, state), found, strict=True):
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_steep_decays_stay_exact():
    model = steep()
    close(remote_of(model)(rows(2, 70)).logits, model(rows(2, 70)), rtol=1e-6)


def padded(lengths, side):
    """Rows of these lengths in one batch: tokens, mask, and the columns of each row's real tokens."""
    width = max(lengths) + 2
    tokens, mask, spans = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width), []
    for row, length in enumerate(lengths):
        span = slice(width - length, width) if side == "left" else slice(0, length)
        tokens[row, span] = rows(1, length, seed=row)[0]
        mask[row, span] = 1
        spans.append(span)
    return tokens, mask.long(), spans


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lengths", [(3,), (40,), (1, 17, 40)])
@pytest.mark.parametrize("spec", [HGRN, STEEP])
@torch.no_grad()
def test_a_padded_batch_equals_single_rows(spec, lengths, side):
    remote = remote_of(awake(spec))
    tokens, mask, spans = padded(lengths, side)
    batch = remote(tokens, attention_mask=mask, use_cache=True)
    for row, span in enumerate(spans):
        single = remote(tokens[row : row + 1, span], use_cache=True)
        close(batch.logits[row : row + 1, span], single.logits)
        for ours, alone in zip(batch.past_key_values.memories, single.past_key_values.memories, strict=True):
            close(ours[row : row + 1], alone)
    assert batch.past_key_values.positions.tolist() == list(lengths)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("spec", [STEEP, OTHERWISE])
@torch.no_grad()
def test_decoding_goes_on_after_a_padded_prefill(spec, side):
    remote = remote_of(awake(spec))
    lengths = (2, 17, 30)
    tokens, mask, spans = padded(lengths, side)
    state = remote(tokens, attention_mask=mask, use_cache=True).past_key_values
    following = rows(3, 4, seed=9)
    for step in range(4):
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        found = remote(following[:, step : step + 1], attention_mask=mask, past_key_values=state).logits[:, -1]
        for row, span in enumerate(spans):
            text = torch.cat((tokens[row, span], following[row, : step + 1]))[None]
            close(found[row : row + 1], remote(text).logits[:, -1])


@pytest.mark.parametrize("prefill", [1, 9, 33])
@torch.no_grad()
def test_cached_decoding_equals_one_pass(prefill):
    for model in (awake(HGRN), awake(OTHERWISE), steep()):
        remote, tokens = remote_of(model), rows(2, 40)
        step = remote(tokens[:, :prefill], use_cache=True)
        parts = [step.logits]
        for column in range(prefill, 40):
            step = remote(tokens[:, column : column + 1], past_key_values=step.past_key_values, use_cache=True)
            parts.append(step.logits)
        close(torch.cat(parts, dim=1), model(tokens))
        chunks = remote(tokens[:, :prefill], use_cache=True)
        rest = remote(tokens[:, prefill:], past_key_values=chunks.past_key_values).logits
        close(rest, model(tokens)[:, prefill:])


@torch.no_grad()
def test_the_state_is_fp32_and_as_large_after_any_text():
    remote = remote_of(awake(HGRN), torch.bfloat16)
    sizes = set()
    for length in (1, 64):
        memories = remote(rows(1, length), use_cache=True).past_key_values.memories
        assert all(memory.dtype == torch.float32 for memory in memories)
        sizes.add(sum(memory.numel() for memory in memories))
    assert sizes == {3 * 2 * 16 * 16}


def test_gradients_and_loss_are_the_native_ones():
    model = awake(replace(HGRN, tie_embeddings=False)).train()
    remote = remote_of(model).train()
    tokens = rows(2, 37)
    labels = tokens.clone()
    labels[:, :5] = -100
    logits = model(tokens)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    expected.backward()
    for checkpointing in (False, True):
        remote.zero_grad()
        if checkpointing:
            remote.activation_checkpointing_enable()
        loss = remote(tokens, labels=labels).loss
        torch.testing.assert_close(loss, expected)
        loss.backward()
        theirs = dict(remote.named_parameters())
        for name, exported in LAYOUT.names(model.spec).items():
            close(theirs[exported].grad, model.get_parameter(name).grad, rtol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_weights_run(dtype, tolerance, tmp_path, offline):
    from transformers import AutoModelForCausalLM

    model = awake(HGRN)
    folder = save(model, tmp_path)
    remote = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=dtype)
    assert {parameter.dtype for parameter in remote.parameters()} == {dtype}
    with torch.no_grad():
        found, expected = remote(rows(2, 37)).logits, model(rows(2, 37))
        close(remote.float()(rows(2, 37)).logits, expected, rtol=tolerance)
    assert found.dtype == dtype
    close(found.float(), expected, rtol=tolerance)


def test_norms_and_gates_do_not_round_in_half_precision():
    from lilliput.publish.remote.modeling_hgrn2_lm import HGRN2LMGate, HGRN2LMRMSNorm

    norm, gate = HGRN2LMRMSNorm(4, 0.0, offset=1).bfloat16(), HGRN2LMGate().bfloat16()
    torch.nn.init.constant_(norm.weight, 2**-10)  # 1 + 2^-10 is 1 in bf16
    torch.nn.init.constant_(gate.logit, 2**-7)
    ones = torch.ones(1, 4)
    assert torch.equal(norm(ones), ones * (1 + 2**-10))
    torch.testing.assert_close(gate(ones), ones * torch.sigmoid(torch.tensor(2**-7)))


def save(model, tmp_path):
    folder = tmp_path / "release"
    folder.mkdir()
    settings = {"layout": LAYOUT, "dtype": "F32", "generation": Generation(do_sample=False), "chat_template": None}
    export(model, tokenizer(), folder, **settings)
    return folder


@pytest.mark.parametrize("name", ["hgrn2", "hgrn2-untied", "hgrn2-options"])
def test_saved_again_it_is_the_same_with_its_code(name, tmp_path, offline):
    from transformers import AutoModelForCausalLM

    model = awake(RELEASES[name][0])
    first = AutoModelForCausalLM.from_pretrained(save(model, tmp_path), trust_remote_code=True)
    first.save_pretrained(tmp_path / "again")
    for file in LAYOUT.remote_files:
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    second = AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
    tied = second.lm_head.weight.data_ptr() == second.model.embed_tokens.weight.data_ptr()
    assert tied == model.spec.tie_embeddings
    with torch.no_grad():
        assert torch.equal(second(rows(2, 20)).logits, first(rows(2, 20)).logits)
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


def test_fresh_weights_are_initialised():
    from lilliput.publish.remote.configuration_hgrn2_lm import HGRN2LMConfig
    from lilliput.publish.remote.modeling_hgrn2_lm import HGRN2LMForCausalLM

    remote = HGRN2LMForCausalLM(HGRN2LMConfig(**LAYOUT.config(HGRN) | {"initializer_range": 0.5}))
    assert 0.4 < remote.model.layers[0].ffn.up_proj.weight.std() < 0.6
    assert torch.equal(remote.model.norm.weight, torch.zeros(32))


def greedy(model, prompt, steps, penalty):
    """Greedy text with a repetition penalty from full native passes."""
    text = prompt
    with torch.no_grad():
        for _ in range(steps):
            scores = model(text)[:, -1]
            seen = scores.gather(1, text)
            scores = scores.scatter(1, text, torch.where(seen > 0, seen / penalty, seen * penalty))
            text = torch.cat((text, scores.argmax(1, keepdim=True)), dim=1)
    return text


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_generate_writes_what_the_native_model_writes(penalty):
    model = awake(HGRN)
    remote = remote_of(model)
    found = remote.generate(
        rows(2, 11), max_new_tokens=12, do_sample=False, repetition_penalty=penalty, pad_token_id=0, eos_token_id=VOCAB
    )
    assert torch.equal(found, greedy(model, rows(2, 11), 12, penalty))


def test_generate_pads_beams_and_samples():
    remote = remote_of(awake(STEEP))
    options = {"max_new_tokens": 10, "pad_token_id": 0, "eos_token_id": VOCAB}
    tokens, mask, spans = padded((3, 20), "left")
    batch = remote.generate(tokens, attention_mask=mask, do_sample=False, **options)
    for row, span in enumerate(spans):
        alone = remote.generate(tokens[row : row + 1, span], do_sample=False, **options)
        assert torch.equal(batch[row, -10:], alone[0, -10:])
    beams = [
        remote.generate(tokens, attention_mask=mask, do_sample=False, num_beams=3, use_cache=use_cache, **options)
        for use_cache in (True, False)
    ]
    assert torch.equal(*beams) and not torch.equal(beams[0], batch)
    torch.manual_seed(0)
    sampled = remote.generate(tokens, attention_mask=mask, do_sample=True, top_k=0, num_return_sequences=4, **options)
    assert sampled.shape == (8, batch.shape[1]) and len({tuple(row) for row in sampled.tolist()}) > 2


@torch.no_grad()
def test_the_usual_switches_work():
    remote, tokens = remote_of(awake(HGRN)), rows(2, 9)
    full = remote(tokens, output_hidden_states=True)
    assert torch.equal(remote(tokens, logits_to_keep=2).logits, full.logits[:, -2:])
    assert torch.equal(remote(tokens, logits_to_keep=torch.tensor([0, 4])).logits, full.logits[:, [0, 4]])
    assert torch.equal(remote(inputs_embeds=remote.get_input_embeddings()(tokens)).logits, full.logits)
    assert len(full.hidden_states) == 4
    close(remote.lm_head(full.hidden_states[-1]), full.logits)
    assert torch.equal(remote(tokens, return_dict=False)[0], full.logits)
    assert remote(tokens, use_cache=False).past_key_values is None
    for wrong in (
        {"attention_mask": torch.ones(2, 4)},
        {"attention_mask": torch.ones(2, 1, 9, 9)},
        {"inputs_embeds": torch.zeros(2, 9, 32)},
        {"past_key_values": object()},
    ):
        with pytest.raises(ValueError):
            remote(tokens, **wrong)


def packed(*lengths):
    """Texts in one row, as the collators of padding-free training lay them, by argument."""
    from transformers import DataCollatorWithFlattening

    texts = [{"input_ids": text[0].tolist()} for text in (rows(1, length, seed=length) for length in lengths)]
    return DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)(texts)


PACKINGS = [("position_ids",), ("seq_idx",), ("cu_seq_lens_q",), ("cu_seq_lens_k", "max_length_k")]


@pytest.mark.parametrize("names", [*PACKINGS, ()], ids=lambda names: "+".join(names) or "all")
@pytest.mark.parametrize("spec", [HGRN, STEEP], ids=["even", "steep"])
@torch.no_grad()
def test_packed_texts_are_what_each_is_by_itself(names, spec):
    remote, batch = remote_of(steep(spec) if spec is STEEP else awake(spec)), packed(7, 21, 1, 16)
    given = {name: batch[name] for name in names} if names else {**batch}
    given.pop("input_ids", None)
    labels = given.pop("labels", None)
    whole = remote(batch["input_ids"], use_cache=True, **given)
    begin = 0
    for length in (7, 21, 1, 16):
        part = slice(begin, begin + length)
        alone = remote(batch["input_ids"][:, part], use_cache=True)
        close(whole.logits[:, part], alone.logits)
        begin += length
    following = rows(1, 3, seed=9)
    further = [remote(following, past_key_values=one.past_key_values).logits for one in (whole, alone)]
    close(*further)
    if labels is not None:
        assert torch.isfinite(remote(**batch).loss)


@torch.no_grad()
def test_packings_that_contradict_each_other_are_refused():
    remote, one, other = remote_of(awake(HGRN)), packed(7, 5), packed(5, 7)
    with pytest.raises(ValueError, match="position_ids and seq_idx do not let the same texts begin"):
        remote(one["input_ids"], position_ids=one["position_ids"], seq_idx=other["seq_idx"])
    with pytest.raises(ValueError, match="cu_seq_lens_q ends at 12"):
        remote(rows(2, 6), cu_seq_lens_q=one["cu_seq_lens_q"])
    with pytest.raises(ValueError, match="count each text one by one from 0"):
        remote(one["input_ids"], position_ids=2 * one["position_ids"])


@torch.no_grad()
def test_a_mask_that_numbers_texts_or_has_other_columns_is_refused():
    remote, tokens = remote_of(awake(HGRN)), rows(2, 9)
    numbered = torch.tensor([[1] * 5 + [2] * 4] * 2)
    with pytest.raises(ValueError, match="cannot number packed texts"):
        remote(tokens, attention_mask=numbered)
    for wrong in (torch.ones(1, 9), torch.ones(2, 10)):
        with pytest.raises(ValueError, match=r"attention_mask is \[2, 9\], not"):
            remote(tokens, attention_mask=wrong)
    state = remote(tokens, use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"\[2, 1\], or \[2, 10\] with the 9 .* not \[2, 9\]"):
        remote(rows(2, 1), attention_mask=torch.ones(2, 9), past_key_values=state)


@torch.no_grad()
def test_a_state_of_other_rows_another_model_or_another_text_is_refused():
    remote = remote_of(awake(HGRN))
    state = remote(rows(2, 9), use_cache=True).past_key_values
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"of 2 rows, the input has {count}"):
            remote(rows(count, 1), past_key_values=state)
    shallow = remote_of(awake(replace(HGRN, layers=2)))
    with pytest.raises(ValueError, match="of a model of 3 layers, not 2"):
        shallow(rows(2, 1), past_key_values=state)
    for length in (3, 8, 9):  # of a text that it has read to its end, or further
        text, mask = rows(2, length), torch.ones(2, length, dtype=torch.long)
        mask[0, 0] = 0
        for given in ({}, {"attention_mask": mask}):
            with pytest.raises(ValueError, match="seen 9 tokens: give a longer text"):
                remote.generate(text, past_key_values=state, max_new_tokens=2, pad_token_id=0, **given)
    longer = rows(2, 12)
    whole = remote.generate(longer, max_new_tokens=4, do_sample=False, pad_token_id=0)
    state = remote(longer[:, :9], use_cache=True).past_key_values
    rest = remote.generate(longer, past_key_values=state, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(rest, whole)


def test_losses_of_other_libraries_find_the_bound_of_the_logits():
    from lilliput.publish.remote.configuration_hgrn2_lm import HGRN2LMConfig

    config = HGRN2LMConfig(logit_cap=20.0)
    assert config.final_logit_softcapping == 20.0, "TRL computes logits by itself, bounded by what has this name"
    assert "final_logit_softcapping" not in config.to_dict() and config.to_dict()["logit_cap"] == 20.0


def test_the_config_refuses_what_the_code_does_not_know():
    from lilliput.publish.remote.configuration_hgrn2_lm import HGRN2LMConfig

    wrongs = [{"ffn": "relu"}, {"gate": "vector"}, {"rope_layers": "odd"}, {"rope_pairs": "thirds"}]
    for wrong in (*wrongs, {"norm_offset": 2}, {"num_heads": 7}):
        with pytest.raises(ValueError):
            HGRN2LMConfig(**wrong)
