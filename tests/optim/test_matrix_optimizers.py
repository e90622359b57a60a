"""NorMuon, its variants and Muon against their formulas, PyTorch's Muon, and the singular value decomposition."""

import math
from dataclasses import replace

import pytest
import tiny
import torch

from lilliput.base.errors import RecipeError
from lilliput.model import copy_weights
from lilliput.ops.newton_schulz import POLAR_EXPRESS, POLYNOMIALS, QUINTIC, Backend, orthogonalize, svd_orthogonalize
from lilliput.optim.adamw import AdamW
from lilliput.optim.matrix_optimizer import GroupedOptimizer
from lilliput.optim.matrix_update import MatrixUpdate
from lilliput.optim.muon import Muon
from lilliput.optim.normuon import VARIANTS, NorMuon
from lilliput.optim.optimizer import load_state_tensors, set_multiplier, state_tensors

MUON = MatrixUpdate(
    polynomials=QUINTIC, normalization="none", normalization_decay=0.0, step_scale="longer side", cautious=False
)
RULES = VARIANTS | {"muon": MUON, "original muon": replace(MUON, step_scale="ratio")}
RATE, DECAY = 0.1, 0.2


@pytest.mark.parametrize("shape", [(3, 24, 32), (2, 16, 40), (2, 40, 16)])
def test_singular_values_end_near_one(shape):
    matrices = torch.randn(shape)
    errors = {}
    for name, polynomials in POLYNOMIALS.items():
        found = orthogonalize(matrices, polynomials)
        values = torch.linalg.svdvals(found)
        low, high = (0.8, 1.2) if polynomials is POLAR_EXPRESS else (0.6, 1.25)
        assert values.min() > low and values.max() < high
        errors[name] = (found - svd_orthogonalize(matrices)).square().mean() / found.square().mean()
    assert errors["polar-express"] < 0.05 and errors["polar-express"] < errors["quintic"]


def test_orthogonalisation_knows_no_scale_and_no_side():
    matrices = torch.randn(2, 16, 40)
    assert torch.allclose(orthogonalize(matrices), orthogonalize(1e3 * matrices), atol=1e-4)
    assert torch.allclose(orthogonalize(matrices.mT), orthogonalize(matrices).mT, atol=1e-6)
    low_rank = torch.randn(1, 16, 2) @ torch.randn(1, 2, 40)
    assert orthogonalize(low_rank).isfinite().all()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", [Backend.REFERENCE, Backend.TORCH])
@pytest.mark.parametrize("shape", [(2, 24, 64), (2, 64, 24)])
def test_narrow_and_fused_products_orthogonalise_too(precision, backend, shape):
    matrices = torch.randn(shape) * torch.logspace(-3, 0, shape[-1])
    exact = orthogonalize(matrices.double())
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        found = orthogonalize(matrices, backend=backend)
        large = orthogonalize(3e5 * matrices, backend=backend)  # beyond what fp16 holds
    assert found.dtype == torch.float32 and found.is_contiguous()
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.02}[precision]
    assert (found - exact).norm() < tolerance * exact.norm()
    assert (large - found).norm() < tolerance * exact.norm()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_what_has_no_direction_is_not_moved(precision):
    matrices = torch.randn(4, 4, 6)
    matrices[0] = 0
    matrices[1, 2, 3] = torch.nan
    matrices[2, 0, 0] = torch.inf
    with torch.autocast("cpu", precision):
        found = orthogonalize(matrices)
    assert torch.equal(found[:3], torch.zeros(3, 4, 6)) and found[3].norm() > 1


def optimizer_of(weights, rule=VARIANTS["paper"], weight_decay=0.0):
    group = {"params": weights, "rule": rule, "momentum": 0.95, "peak": 1.0, "lr": RATE, "weight_decay": weight_decay}
    return GroupedOptimizer([group])


def moved(rule, gradients, weight_decay=0.0, first=None):
    """Weights, zeros first, after a step for each of the gradients of one matrix."""
    weight = torch.nn.Parameter(torch.zeros_like(gradients[0]) if first is None else first.clone())
    optimizer = optimizer_of([weight], rule, weight_decay)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def by_hand(name, gradients, weights):
    """Three steps of [[w, 0, 0], [0, x, 0]]: its singular values are its entries, so that numbers do for matrices."""
    rule = RULES[name]
    momentum, squares = [0.0, 0.0], [0.0, 0.0]
    for gradient in gradients:
        momentum = [0.95 * m + 0.05 * g for m, g in zip(momentum, gradient, strict=True)]
        ahead = [0.95 * m + 0.05 * g for m, g in zip(momentum, gradient, strict=True)]
        entries = [u / (rule.polynomials.safety * math.hypot(*ahead) + rule.polynomials.eps) for u in ahead]
        for a, b, c in rule.polynomials.coefficients:
            entries = [a * x + b * x**3 + c * x**5 for x in entries]
        before = math.hypot(*entries)
        if name in ("paper", "repo"):  # the mean of a row of three
            squares = [0.95 * v + 0.05 * x * x / 3 for v, x in zip(squares, entries, strict=True)]
            entries = [x / (math.sqrt(v) + 1e-8) for v, x in zip(squares, entries, strict=True)]
        if name == "modded":  # more columns than rows: the mean of a column of two
            squares = [0.9 * v + 0.1 * x * x / 2 for v, x in zip(squares, entries, strict=True)]
            entries = [x / (math.sqrt(v) + 1e-8) for v, x in zip(squares, entries, strict=True)]
        if name == "author_early":
            entries = [x / (abs(x) + 1e-8) for x in entries]
        size = {
            "paper": 0.2 * RATE * math.sqrt(6) / (math.hypot(*entries) + 1e-8),
            "repo": RATE * before / (math.hypot(*entries) + 1e-8),  # two rows, three columns: no factor above 1
            "modded": RATE * before / (math.hypot(*entries) + 1e-8),
            "author_early": 0.2 * RATE * math.sqrt(3),
            "muon": 0.2 * RATE * math.sqrt(3),
            "original muon": RATE,
        }[name]
        decays = [not rule.cautious or w * x > 0 for w, x in zip(weights, entries, strict=True)]
        weights = [w - RATE * DECAY * w * d - size * x for w, x, d in zip(weights, entries, decays, strict=True)]
    return weights


@pytest.mark.parametrize("name", RULES)
def test_three_steps_by_hand(name):
    gradients = [(3.0, 4.0), (-1.0, 0.5), (0.25, -7.0)]
    first = torch.zeros(2, 3, dtype=torch.float64)
    first[0, 0], first[1, 1] = 0.5, -0.25
    steps = [torch.zeros_like(first) for _ in gradients]
    for step, (one, other) in zip(steps, gradients, strict=True):
        step[0, 0], step[1, 1] = one, other
    found = moved(RULES[name], steps, DECAY, first)
    expected = torch.zeros_like(first)
    expected[0, 0], expected[1, 1] = by_hand(name, gradients, [0.5, -0.25])
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_first_step_of_the_paper_is_known_without_any_polynomial():
    """Both rows have one entry, which one step divides to sqrt(60): 0.2 lr sqrt(6) / sqrt(2) each."""
    gradient = torch.tensor([[3.0, 0, 0], [0, 4.0, 0]], dtype=torch.float64)
    expected = -0.2 * RATE * math.sqrt(3)
    found = moved(VARIANTS["paper"], [gradient])
    assert torch.allclose(found, torch.tensor([[expected, 0, 0], [0, expected, 0]], dtype=torch.float64), rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 10), (12, 4)])
def test_the_root_mean_square_of_a_step_is_a_fifth_of_the_rate(shape):
    rms = moved(VARIANTS["paper"], [torch.randn(shape)]).square().mean().sqrt()
    assert torch.allclose(rms, torch.tensor(0.2 * RATE), rtol=1e-5)


@pytest.mark.parametrize("name", ["repo", "modded"])
@pytest.mark.parametrize("shape", [(6, 10), (12, 4)])
def test_dividing_rows_keeps_the_norm_of_the_direction(name, shape):
    gradient = torch.randn(shape)
    direction = orthogonalize(gradient[None] * 0.0975, RULES[name].polynomials)  # Nesterov's first momentum
    expected = RATE * max(1.0, shape[0] / shape[1]) ** 0.5 * direction.norm()
    assert torch.allclose(moved(RULES[name], [gradient]).norm(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["paper", "repo", "modded", "author_early"])
def test_rows_move_equally_far_where_those_of_muon_do_not(name):
    gradient = torch.randn(24, 6) * torch.logspace(-1, 0, 24)[:, None]  # of 24 rows 6 can be orthogonal

    def spread(rule):
        rows = moved(rule, [gradient] * 3).norm(dim=1)
        return float(rows.max() / rows.min())

    assert spread(VARIANTS[name]) < 1.01 and spread(MUON) > 2


@pytest.mark.parametrize("shape", [(6, 10), (12, 4)])
@pytest.mark.parametrize(("size", "theirs"), [("adam", "match_rms_adamw"), ("original", "original")])
def test_without_a_second_moment_it_is_the_muon_of_torch(shape, size, theirs):
    model = tiny.GQA_SPEC.build(seed=0)
    group = Muon(lr=0.1, adam_lr=0.01, step_scale=size).build(model).param_groups[0]
    assert group["role"] == "matrix" and group["momentum"] == 0.95
    weight, other = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    ours = optimizer_of([weight], group["rule"], DECAY)
    oracle = torch.optim.Muon([other], lr=RATE, weight_decay=DECAY, momentum=0.95, adjust_lr_fn=theirs)
    for _ in range(3):
        weight.grad = torch.randn(shape)
        other.grad = weight.grad.clone()
        with torch.autocast("cpu", torch.bfloat16):  # in which theirs orthogonalizes
            ours.step()
        oracle.step()
    # As close as two ways to round in bf16 are; without Nesterov's momentum it would be near 0.3.
    assert (weight - other).norm() < 0.06 * (other - 1).norm()


@pytest.mark.parametrize("optimizer", ["matrices", "adamw"])
def test_cautious_decay_spares_what_moves_away_from_zero(optimizer):
    model = tiny.GQA_SPEC.build(seed=0)
    gradients = {name: torch.randn(value.shape) for name, value in model.named_parameters()}
    ends = {}
    for decay, cautious in ((0.0, False), (0.1, False), (0.1, True)):
        twin = tiny.GQA_SPEC.build(seed=0)
        spec = (
            NorMuon(lr=0.1, adam_lr=0.1, weight_decay=decay, cautious=cautious)
            if optimizer == "matrices"
            else AdamW(lr=0.1, weight_decay=decay, cautious=cautious)
        )
        built = spec.build(twin)
        set_multiplier(built, 1.0)
        for name, value in twin.named_parameters():
            value.grad = gradients[name].clone()
        built.step()
        ends[decay, cautious] = {name: value.detach() for name, value in twin.named_parameters()}
    for name, first in model.named_parameters():
        plain, everywhere, careful = (ends[key][name] for key in ends)
        towards_zero = (first - plain) * first > 0
        assert torch.allclose(careful, torch.where(towards_zero, everywhere, plain), atol=1e-7), name
        if name.endswith("norm.weight"):
            assert torch.equal(plain, everywhere), "vectors are never decayed"
        else:
            assert towards_zero.any() and not towards_zero.all() and not torch.equal(careful, plain), name


def test_ours_is_the_adamw_of_torch():
    theirs, ours = (tiny.ODIN_SPEC.build(seed=0) for _ in range(2))
    built = [AdamW(lr=0.01).build(theirs), NorMuon(lr=0.0, adam_lr=0.01).build(ours)]
    for optimizer in built:
        set_multiplier(optimizer, 1.0)
    for _ in range(3):
        for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        for optimizer in built:
            optimizer.step()
    for (name, one), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if one.ndim < 2 or name == "embedding.weight":
            assert torch.allclose(one, other, atol=1e-6), name


def together(gradients, which, optimizer, weights):
    """One step, in which only the weights at the places `which` have gradients."""
    for place, weight in enumerate(weights):
        weight.grad = gradients[place].clone() if place in which else None
    optimizer.step()


@pytest.mark.parametrize("name", RULES)
def test_matrices_of_one_shape_move_as_they_would_alone(name):
    weights, alone = ([torch.nn.Parameter(torch.ones(6, 10)) for _ in range(4)] for _ in range(2))
    optimizer, single = optimizer_of(weights, RULES[name]), [optimizer_of([one], RULES[name]) for one in alone]
    # All of them, one block and the other in turn, and blocks that overlap.
    for which in ((0, 1, 2, 3), (0, 1), (2, 3), (0, 1), (1, 2), (0, 1, 2, 3)):
        gradients = [torch.randn(6, 10) for _ in weights]
        together(gradients, which, optimizer, weights)
        for place in which:
            alone[place].grad = gradients[place].clone()
            single[place].step()
    for one, other in zip(weights, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_the_state_of_blocks_that_take_turns_stays_where_it_is():
    weights = [torch.nn.Parameter(torch.ones(6, 10)) for _ in range(4)]
    optimizer = optimizer_of(weights)
    places = []
    for which in ((0, 1), (2, 3)) * 2:
        together([torch.randn(6, 10)] * 4, which, optimizer, weights)
        places.append([optimizer.state[weights[place]]["momentum"].data_ptr() for place in which])
    assert places[:2] == places[2:]


@pytest.mark.parametrize(
    "spec",
    [
        *(NorMuon(lr=0.1, adam_lr=0.01, variant=variant) for variant in VARIANTS),
        Muon(lr=0.1, adam_lr=0.01),
        AdamW(lr=0.01),
        AdamW(lr=0.01, cautious=True),
    ],
    ids=[*VARIANTS, "muon", "adamw", "cautious adamw"],
)
def test_state_comes_back(spec):
    """Half of the steps, and the other half in an optimizer that is new, and in one that went on meanwhile."""
    straight, stopped = (tiny.GQA_SPEC.build(seed=0) for _ in range(2))
    gradients = [[torch.randn(p.shape) for p in straight.parameters()] for _ in range(10)]

    def steps(optimizer, model, which):
        set_multiplier(optimizer, 1.0)
        for number in which:
            for parameter, gradient in zip(model.parameters(), gradients[number], strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    steps(spec.build(straight), straight, range(10))
    first = spec.build(stopped)
    steps(first, stopped, range(5))
    saved = {name: value.clone() for name, value in state_tensors(first, stopped).items()}
    weights = {name: value.detach().clone() for name, value in stopped.named_parameters()}
    steps(first, stopped, range(2))
    for second in (first, spec.build(stopped)):
        copy_weights(stopped, weights)
        load_state_tensors(second, stopped, {name: value.clone() for name, value in saved.items()})
        steps(second, stopped, range(5, 10))
        assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), stopped.parameters(), strict=True))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: NorMuon(lr=0.1, adam_lr=0.1, variant="papers"), "variant cannot be 'papers'"),
        (lambda: NorMuon(lr=0.1, adam_lr=0.1, polynomials="cubic"), "polynomials cannot be 'cubic'"),
        (lambda: NorMuon(lr=0.1, adam_lr=0.1, variant="author_early", row_decay=0.9), "has no effect"),
        (lambda: Muon(lr=0.1, adam_lr=0.1, step_scale="large"), "step_scale cannot be 'large'"),
    ],
)
def test_what_cannot_be_is_refused(wrong, says):
    with pytest.raises(RecipeError, match=says):
        wrong()


def test_a_variant_can_be_changed_in_parts():
    rule = NorMuon(lr=0.1, adam_lr=0.1, variant="modded", row_decay=0.8, polynomials="quintic", cautious=False).rule
    assert rule == replace(VARIANTS["modded"], normalization_decay=0.8, polynomials=QUINTIC, cautious=False)
    assert NorMuon(lr=0.1, adam_lr=0.1).rule == VARIANTS["paper"]
