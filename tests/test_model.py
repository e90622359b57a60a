"""Both families: the cards' sizes, decoding, documents, causality, first weights."""

from dataclasses import replace

import pytest
import torch
from tiny import GQA_SPEC, HGRN2_SPEC, SPECS

from lilliput.base.errors import RecipeError
from lilliput.base.spec import from_plain, to_plain
from lilliput.model import ModelSpec
from lilliput.nn.block import ScalarGate
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.init import Normal, UnscaledNormal
from lilliput.nn.norm import RMSNorm, ZeroCenteredRMSNorm
from lilliput.nn.rope import RoPE
from lilliput.ops.rope import rotate

ODIN = ModelSpec(
    vocab=32_768,
    width=768,
    layers=16,
    mixer=HGRN2(heads=6, rope=RoPE(layers="even", theta=100_000.0), output_norm=ZeroCenteredRMSNorm()),
    ffn=SwiGLU2(inner=2_048),
    norm=ZeroCenteredRMSNorm(),
    gate=ScalarGate(),
)
SLM = ModelSpec(
    vocab=8_192,
    width=256,
    layers=12,
    mixer=GQA(heads=8, kv_heads=2, head_width=32, qk_norm=True, rope=RoPE(theta=100_000.0)),
    ffn=SwiGLU(inner=640),
)


def mtlm(layers, inner):
    mixer = GQA(heads=12, kv_heads=12, head_width=64)
    return ModelSpec(vocab=32_000, width=768, layers=layers, mixer=mixer, ffn=SwiGLU(inner=inner))


@pytest.mark.parametrize(
    ("spec", "total", "non_embedding"),
    [
        (ODIN, 138_449_696, 113_283_872),
        (replace(ODIN, vocab=32_770), 138_451_232, 113_283_872),
        (replace(ODIN, mixer=replace(ODIN.mixer, lower_bounds=True)), 138_461_984, 113_296_160),
        (SLM, 9_968_640, 7_871_488),
        (mtlm(12, 1_280), 88_296_192, 88_296_192 - 32_000 * 768),
        (mtlm(24, 1_280), 152_015_616, 152_015_616 - 32_000 * 768),
        (mtlm(12, 2_048), 109_529_856, 109_529_856 - 32_000 * 768),
        (mtlm(24, 2_048), 194_482_944, 194_482_944 - 32_000 * 768),
    ],
)
def test_the_cards_parameter_counts(spec, total, non_embedding):
    counts = spec.skeleton().parameter_counts()
    assert (counts["total"], counts["non_embedding"]) == (total, non_embedding)


def test_the_odin_state_is_three_mebibytes_in_fp16():
    assert 2 * ODIN.layers * ODIN.mixer.state_entries(768, 2_048, 0) == 3_145_728


@pytest.fixture(params=SPECS)
def model(request):
    return SPECS[request.param].build(seed=1).double()


def tokens(rows=2, length=75):
    return torch.randint(0, 300, (rows, length), generator=torch.Generator().manual_seed(3))


def test_prefill_and_steps_equal_one_pass(model):
    text = tokens()
    states, logits = model.empty_states(2, 75), []
    for position, size in ((0, 60), *((position, 1) for position in range(60, 75))):
        x = model.embed(text[:, position : position + size, None])
        x = model.decode(x, states, torch.full((2,), position), torch.full((2,), size))
        logits.append(model.logits(x))
    assert torch.allclose(torch.cat(logits, dim=1), model(text), atol=1e-10)


def test_empty_state_is_the_beginning(model):
    x = model.embed(tokens()[..., None])
    made = model.decode(x, model.empty_states(2, 75), torch.zeros(2, dtype=torch.int64), torch.full((2,), 75))
    assert torch.allclose(made, model.forward_layers(x), atol=1e-12)


def test_gains_and_gates_have_one_gradient_whatever_they_multiply(model, monkeypatch):
    """What goes into products or comes of them, or their weights, as in whole rows on a GPU."""

    def gradients():
        model.zero_grad()
        model(tokens()).logsumexp(-1).square().mean().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    multiplied = gradients()
    assert any("gate.logit" in name for name in multiplied) == isinstance(model.spec.gate, ScalarGate)
    for module in ("ops.linear", "ops.rms_norm"):
        monkeypatch.setattr(f"lilliput.{module}.should_fuse", lambda _: True)
    for name, gradient in gradients().items():
        assert torch.allclose(gradient, multiplied[name], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("name", ["gqa", "hgrn2", "horizons", "options"])
def test_documents_of_a_row_do_not_see_each_other(name):
    first, second = apart(SPECS[name])
    assert first < 1e-10 and second < 1e-10


def test_scores_of_a_recurrence_depend_on_distance_alone_where_gates_are_tied():
    loose = replace(SPECS["options"], mixer=replace(SPECS["options"].mixer, rope_tie_gate=False))
    first, second = apart(loose)
    assert first < 1e-10 and second > 1e-6


def apart(spec):
    """How far two documents in one row are from the same in rows of their own."""
    model = spec.build(seed=1).double()
    text = tokens()
    document_ids = torch.tensor([[0] * 31 + [1] * 44] * 2)
    packed = model.logits(model.forward_layers(model.embed(text[..., None]), document_ids=document_ids))
    return [(packed[:, part] - model(text[:, part])).abs().max().item() for part in (slice(0, 31), slice(31, None))]


def test_causal_to_the_bit(model):
    text = tokens()
    changed = text.clone()
    changed[:, 50] = (changed[:, 50] + 1) % 300
    assert torch.equal(model(text)[:, :50], model(changed)[:, :50])
    assert not torch.equal(model(text)[:, 50:], model(changed)[:, 50:])


def test_a_slice_of_layers_is_part_of_the_whole(model):
    x = model.embed(tokens()[..., None])
    first = model.forward_layers(x, layers=slice(0, 1))
    assert torch.equal(model.forward_layers(first, layers=slice(1, 2)), model.forward_layers(x))


def test_a_bag_is_the_mean_of_its_tokens(model):
    bag = tokens(length=8).view(2, 4, 2)
    assert torch.allclose(model.embed(bag), (model.embed(bag[..., :1]) + model.embed(bag[..., 1:])) / 2)


def test_first_weights_depend_on_seed_and_name_alone(model):
    spec = model.spec
    again, other = spec.build(seed=1), spec.build(seed=2)
    for (name, one), two in zip(again.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(one.double(), two), name
    assert not torch.equal(again.embedding.weight, other.embedding.weight)
    deeper = replace(spec, layers=4).build(seed=1)
    assert torch.equal(deeper.layers[0].ffn.up.weight, again.layers[0].ffn.up.weight)
    assert deeper.layers[0].ffn.down.weight.std() < again.layers[0].ffn.down.weight.std()


def test_matrices_that_write_to_the_stream_begin_smaller_unless_told_otherwise():
    """So the stream is no more than twice as large after any depth; without the scale it grows with it."""
    deep = replace(GQA_SPEC, width=64, layers=16, ffn=SwiGLU(inner=128))
    growths = []
    for init in (Normal(std=0.04), UnscaledNormal(std=0.04)):
        model = replace(deep, init=init).build(seed=1)
        stds = [model.layers[3].get_submodule(name).weight.std() for name in ("mixer.output", "ffn.down", "ffn.up")]
        scale = (2 * 16) ** 0.5 if isinstance(init, Normal) else 1.0
        expected = torch.tensor([0.04 / scale, 0.04 / scale, 0.04])
        assert torch.allclose(torch.stack(stds), expected, rtol=0.05)
        x = model.embed(torch.randint(0, 300, (2, 32, 1), generator=torch.Generator().manual_seed(3)))
        growths.append((model.forward_layers(x).var() / x.var()).item())
    assert growths[0] < 2 < growths[1]


def test_norms_of_queries_begin_with_a_gain_where_there_are_some():
    spec = replace(SLM, vocab=300, layers=2, init=Normal(query_gain=4.0))
    plain, scaled = replace(spec, init=Normal()).build(seed=1), spec.build(seed=1)
    for (name, one), (_, other) in zip(plain.named_parameters(), scaled.named_parameters(), strict=True):
        assert torch.equal(other, 4 * one if name.endswith("query_norm.weight") else one), name
    assert sum(name.endswith("query_norm.weight") for name, _ in scaled.named_parameters()) == 2
    with pytest.raises(RecipeError, match="query_gain=4 has no effect"):
        replace(ODIN, vocab=300, layers=2, init=Normal(query_gain=4.0)).build(seed=1)


def test_norms_begin_as_plain_rms_norms():
    x = torch.randn(3, 16)
    for spec in (RMSNorm(), ZeroCenteredRMSNorm()):
        layer = spec.build(16)
        layer.reset_parameters()
        assert torch.allclose(layer(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())


def test_rotation_keeps_lengths_and_depends_on_distance():
    q, k = torch.randn(1, 1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 1, 8, dtype=torch.float64)
    assert torch.allclose(rotate(q, 1e4, 7).norm(), q.norm())
    score = (rotate(q, 1e4, 9) * rotate(k, 1e4, 4)).sum()
    assert torch.allclose(score, (rotate(q, 1e4, 105) * rotate(k, 1e4, 100)).sum())


def test_specs_are_data_and_come_back():
    for spec in (*SPECS.values(), ODIN, SLM):
        assert from_plain(to_plain(spec)) == spec


def test_horizons_spread_the_first_memory_over_a_heads_channels():
    mixer = replace(HGRN2_SPEC, mixer=HGRN2(heads=2, forget_timescales=(2.0, 50.0))).build(seed=0).layers[0].mixer
    kept = torch.sigmoid(mixer.forget_bias.weight).view(2, 16)
    assert torch.allclose(kept[0, [0, -1]], torch.tensor([1 - 1 / 2, 1 - 1 / 50]), atol=1e-4)
    assert torch.equal(kept[0], kept[1]) and (kept.diff(dim=-1) > 0).all()
    with pytest.raises(RecipeError, match="must rise"):
        HGRN2(heads=2, forget_timescales=(1.0, 50.0))


def test_impossible_shapes_say_what_to_do():
    with pytest.raises(RecipeError, match="3 query heads cannot share 2") as error:
        GQA(heads=3, kv_heads=2, head_width=8)
    assert "hint:" in str(error.value)
    with pytest.raises(RecipeError, match="width of 32 cannot be split into 3"):
        replace(HGRN2_SPEC, mixer=HGRN2(heads=3)).build(seed=0)
