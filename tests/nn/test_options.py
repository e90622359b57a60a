"""What model cards leave open, one option at a time: squares of SwiGLU, lower bounds, pairs that turn, first gates."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import HGRN2_SPEC, ODIN_SPEC, OPTIONS_SPEC

from lilliput.base.errors import RecipeError
from lilliput.nn.block import ScalarGate
from lilliput.nn.ffn import SwiGLU2
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.lower_bounds import LowerBounds
from lilliput.nn.rope import RoPE
from lilliput.ops.hgrn2 import activations
from lilliput.ops.linear import fused_linear
from lilliput.ops.rope import average_pairs, interleaved_to_half, rotate
from lilliput.ops.swiglu import gated_activation
from lilliput.optim.adamw import AdamW
from lilliput.optim.normuon import NorMuon

FORMS = {
    "silu": lambda gate, up: F.silu(gate) ** 2 * up,
    "product": lambda gate, up: (F.silu(gate) * up) ** 2,
    "relu": lambda gate, up: F.relu(gate) ** 2 * up,
}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("square", FORMS)
def test_squares_are_what_they_are_called(square):
    layer = SwiGLU2(inner=12, square=square).build(8).double()
    x, onto, times = normal(2, 5, 8), normal(2, 5, 8), normal(1)[0]
    expected = onto + times * layer.down(FORMS[square](layer.gate(x), layer.up(x)))
    assert torch.allclose(layer.add_to(onto, fused_linear(x, *layer.in_weights), times), expected, atol=1e-14)
    assert torch.allclose(onto + times * layer(x), expected, atol=1e-14)


@pytest.mark.parametrize("square", FORMS)
def test_squares_do_not_overflow_half_precision(square):
    gate, up = torch.tensor([300.0], dtype=torch.float16), torch.tensor([2.0], dtype=torch.float16)
    found = gated_activation(gate, up, square)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), FORMS[square](gate.double(), up.double()))


def test_lower_bounds_rise_in_even_steps_at_first():
    bounds = LowerBounds(width=6, layers=8)
    bounds.reset_parameters()
    assert torch.allclose(bounds(), (torch.arange(8) / 8)[:, None].expand(8, 6), atol=1e-6)


@pytest.mark.parametrize("spread", [1.0, 10.0, 300.0])
def test_lower_bounds_begin_at_nothing_rise_and_stay_below_one(spread):
    bounds = LowerBounds(width=50, layers=8)
    torch.nn.init.normal_(bounds.bound_logits, std=spread, generator=torch.Generator().manual_seed(1))
    least = bounds()
    assert torch.equal(least[0], torch.zeros(50)) and (least.diff(dim=0) >= 0).all() and (least < 1).all()


def scanned(z, bound, **settings):
    """k and the forget gates of a projection whose queries and values are one."""
    ones = torch.ones_like(z)
    _, k, _, log_decay = activations(torch.cat((ones, z, ones), dim=-1), 1, bound=bound, **settings)
    return k.flatten(-2), log_decay.exp().flatten(-2)


def test_a_forget_gate_is_above_its_bound_and_the_key_what_it_forgets():
    z, bound = normal(2, 5, 8) * 5, torch.linspace(0, 0.99, 8, dtype=torch.float64)
    k, forget = scanned(z, bound)
    assert torch.allclose(forget, bound + (1 - bound) * z.sigmoid(), atol=1e-14)
    assert torch.allclose(k, 1 - forget, atol=1e-14) and (forget >= bound - 1e-15).all()
    for one, other in zip(scanned(z, torch.zeros_like(bound)), scanned(z, None), strict=True):
        assert torch.allclose(one, other, rtol=1e-14, atol=0)


@pytest.mark.parametrize("spread", [1.0, 30.0, 300.0])
def test_gradients_stay_finite_at_any_gate_and_bound(spread):
    bounds = LowerBounds(width=64, layers=6)
    torch.nn.init.normal_(bounds.bound_logits, std=spread, generator=torch.Generator().manual_seed(1))
    z = (normal(1, 40, 64, seed=2) * spread / 4).float().requires_grad_()
    for bound in bounds():
        k, _ = scanned(z, bound)
        _, _, _, log_decay = activations(torch.cat((z, z, z), dim=-1), 1, bound=bound)
        assert (log_decay <= 0).all()
        (k.square().sum() + log_decay.sum()).backward(retain_graph=True)
    assert z.grad.isfinite().all() and bounds.bound_logits.grad.isfinite().all()
    assert bounds.bound_logits.grad.abs().max() > 0


def test_lower_bounds_have_the_gradient_of_their_formula():
    bounds = LowerBounds(width=4, layers=3).double()
    torch.nn.init.normal_(bounds.bound_logits, generator=torch.Generator().manual_seed(1))
    z = normal(1, 5, 4, seed=2)

    def losses(logits):
        found = torch.func.functional_call(bounds, {"bound_logits": logits})
        return torch.stack([scanned(z, bound)[1].log().sin().sum() for bound in found[1:]]).sum()

    assert torch.autograd.gradcheck(losses, bounds.bound_logits)


def test_what_layers_share_is_moved_as_a_vector_and_not_decayed():
    spec = replace(HGRN2_SPEC, mixer=HGRN2(heads=2, lower_bounds=True))
    model = spec.build(seed=0)
    for optimizer in (AdamW(lr=1e-3), NorMuon(lr=1e-3, adam_lr=1e-3)):
        (group,) = [
            group
            for group in optimizer.build(model).param_groups
            if any(parameter is model.shared.bound_logits for parameter in group["params"])
        ]
        assert (group["role"], group["weight_decay"]) == ("vector", 0.0)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which the compiler looks at
def test_compiled_layers_share_compilations_whatever_their_bound():
    from torch._dynamo import reset
    from torch._dynamo.testing import CompileCounter

    model, counter = replace(OPTIONS_SPEC, layers=6).build(seed=0), CompileCounter()
    tokens = torch.randint(0, 300, (2, 10))  # so few positions that the scan does not look at its data
    expected = model(tokens)
    reset()
    for block in model.layers:
        block.compile(backend=counter, dynamic=False)
    assert torch.equal(model(tokens), expected)
    assert counter.frame_count == 2, "one for layers that turn, one for the others"
    reset()


def test_neighbours_turn_as_complex_numbers_do():
    x = normal(2, 9, 3, 8)
    angle = torch.outer(torch.arange(4, 13, dtype=torch.float64), 100.0 ** (-torch.arange(0, 8, 2) / 8))
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.polar(torch.ones_like(angle), angle)[:, None]
    found = rotate(x, 100.0, first=4, layout="interleaved")
    assert torch.allclose(found, torch.view_as_real(turned).flatten(-2), atol=1e-14)
    order = interleaved_to_half(8, "interleaved")
    assert torch.equal(rotate(x[..., order], 100.0, first=4), found[..., order])
    assert torch.equal(interleaved_to_half(8, "half"), torch.arange(8))


def test_tied_channels_are_those_that_turn_together():
    x = torch.tensor([0.0, 1.0, 4.0, 9.0])
    assert average_pairs(x, "half").tolist() == [2.0, 5.0, 2.0, 5.0]
    assert average_pairs(x, "interleaved").tolist() == [0.5, 0.5, 6.5, 6.5]
    z, bound = normal(1, 3, 8), torch.linspace(0, 0.7, 8, dtype=torch.float64)
    _, forget = scanned(z, bound, theta=100.0, layout="interleaved", tie=True)
    assert torch.equal(forget[..., 0::2], forget[..., 1::2])


def test_gates_begin_where_they_are_told_to():
    for gate, first in ((ScalarGate(), 0.0), (ScalarGate(init=-2.0), -2.0)):
        layers = replace(ODIN_SPEC, gate=gate).build(seed=0).layers
        assert {module.logit.item() for layer in layers for module in (layer.mixer_gate, layer.ffn_gate)} == {first}


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (SwiGLU2, {"inner": 8, "square": "gate"}, "square cannot be 'gate'"),
        (RoPE, {"layout": "thirds"}, "layout cannot be 'thirds'"),
        (RoPE, {"layers": "odd"}, "layers cannot be 'odd'"),
        (ScalarGate, {"init": float("nan")}, "init cannot be nan"),
        (HGRN2, {"heads": 2, "rope_tie_gate": True}, "needs a rotary embedding"),
        (replace(OPTIONS_SPEC, layers=1).build, {"seed": 0}, "lower bounds need a second layer"),
    ],
)
def test_options_that_cannot_be_are_refused(make, settings, says):
    with pytest.raises(RecipeError, match=says) as error:
        make(**settings)
    assert error.value.where and error.value.hint
