"""Denoising blocks against plain sums over single rows; what a block sees and moves; text that it writes."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from math import exp, log, sqrt
from statistics import NormalDist

import pytest
import tiny
import torch

from lilliput.base.errors import RecipeError
from lilliput.data.batch import Batch
from lilliput.data.prefix_tokens import NO_PREFIX, PREFIX_TOKENS
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.per_layer import PerLayer
from lilliput.nn.rope import RoPE
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.routes.denoising_sampler import predict, sample
from lilliput.objectives.routes.diffusion_blocks import (
    PORT,
    DiffusionBlocks,
    DiffusionBlocksModule,
    blocks_of,
)
from lilliput.objectives.routes.noise_levels import NoiseLevels, NoiseRange
from lilliput.objectives.routes.preconditioning import euler_step, loss_weight, preconditioning
from lilliput.objectives.routes.route import RouteInput
from lilliput.objectives.targets import MultiToken, PrefixToken, Targets
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.optim.adamw import AdamW
from lilliput.train.trainable import Trainable

LENGTH = 6
ATTENTION = GQA(heads=4, kv_heads=2, head_width=8, qk_norm=True)
RECURRENT = HGRN2(heads=2, rope=RoPE(layers="even"), lower_bounds=True)
MODELS = {
    "hgrn2": replace(tiny.ODIN_SPEC, layers=3),
    "gqa": replace(tiny.GQA_SPEC, layers=3, tie_embeddings=False),
    "hybrid": replace(tiny.HGRN2_SPEC, layers=4, mixer=PerLayer(pattern=(RECURRENT, ATTENTION))),
    "soft-capped": tiny.OPTIONS_SPEC,
}
ROUTES = {
    "default": DiffusionBlocks(blocks=2),
    "port": replace(PORT, blocks=2),
    "unbounded, unconditioned": DiffusionBlocks(blocks=2, lowest=0.1, max_loss_weight=None, conditioning="none"),
    "mixed": DiffusionBlocks(blocks=2, clean_share=0.25),
    "adaptive norms": DiffusionBlocks(blocks=2, conditioning="adaln"),
}
OBJECTIVES = {
    "tokens": NextToken(),
    "bags": NextToken(bag=4),
    "power law": NextToken(bag=3, targets=Targets(power=1.0)),
    "inputs": NextToken(bag=2, targets=Targets(count=1)),
    "outputs": NextToken(targets=Targets(count=3)),
    "multi-token": NextToken(bag=2, further=MultiToken(count=2, weight=0.4)),
    "prefix token": NextToken(bag=2, prefix=PrefixToken(weight=0.4)),
}
LEVELS = DiffusionBlocks().levels


def made(spec, objective, dtype=torch.float64):
    """A model and its objective with every parameter away from where it begins, the conditioning's too."""
    trainable = Trainable.of_phase(spec.build(seed=0), [objective], seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return trainable.to(dtype)


def batch_of(objective, rows=2, length=LENGTH, documents=True):
    generator = torch.Generator().manual_seed(5)
    length = objective.row_length(length)
    tokens = torch.randint(0, 300, (rows, length), generator=generator)
    begins = torch.randint(0, 8, (rows, length), generator=generator) == 0
    document_ids = begins.long().cumsum(dim=1) if documents else torch.zeros(rows, length, dtype=torch.int64)
    weight = torch.rand(rows, length, generator=generator).round(decimals=1)
    extras = {PREFIX_TOKENS: (tokens - 90).clamp(min=NO_PREFIX).int()} if objective.prefix else {}
    return Batch(tokens=tokens, weight=weight, document_ids=document_ids.int(), extras=extras)


def noise(step=3):
    return Noise("cpu").begin_step(seed=1, step=step)


def losses(trainable, objective, batch, variant, progress=0.5):
    denominator = objective.denominator(batch)
    return trainable.objective(0)(batch, denominator, variant, torch.tensor(progress), noise())


def modulated(model, x, layers, document_ids, numbers):
    """Layers with adaptive norms, written out."""
    by_layer = numbers.view(-1, 6, x.shape[-1])
    for (block, shared), vectors in zip(model.layers_with_shared(layers), by_layer, strict=True):
        branches = (
            (block.mixer_norm, lambda x, of=block, row=shared: of.mixer(x, document_ids, *row), block.mixer_gate()),
            (block.ffn_norm, block.ffn, block.ffn_gate()),
        )
        for (norm, branch, factor), (shift, scale, gate) in zip(branches, vectors.split(3), strict=True):
            x = x + (1 if factor is None else factor) * (1 + gate) * branch(norm(x) * (1 + scale) + shift)
    return x


def naive(trainable, objective, batch, variant, progress=0.5):
    """The loss by its definition: a row for each target, in which it is the last position."""
    route, model, spec = trainable.stages[0].route, trainable.model, objective.route
    layers = blocks_of(len(model.layers), spec.blocks)[variant]
    bag, near, width = objective.bag, objective.near, model.spec.width
    shares = [(place + 1) ** -objective.targets.power for place in range(near)]
    shares = [share * near / sum(shares) for share in shares]
    if objective.further:
        later = objective.further.weight * (1 - progress)
        count = objective.further.count
        shares = [share / (1 + later) for share in shares] + count * [later / (1 + later) * near / count]
    of_prefix = objective.prefix.weight * (1 - progress) if objective.prefix else 0.0
    shares = [share / (1 + of_prefix) for share in shares]
    embedding, total = model.embedding.weight, 0.0
    frozen = deepcopy(model).requires_grad_(False)

    def scaled(tokens):
        mean = sum(embedding[token] for token in tokens) / len(tokens)
        return mean / mean.norm() * (1 if spec.embeddings == "unit" else spec.data_std * sqrt(width))

    low, high = spec.levels.ranges(spec.blocks, spec.overlap)[variant]
    first, last = (NormalDist().cdf((log(end) - spec.mean) / spec.std) for end in (low, high))
    for row in range(len(batch.tokens)):
        tokens, documents = batch.tokens[row].tolist(), batch.document_ids[row].tolist()
        positions = (len(tokens) - objective.ahead) // bag
        number = batch.row[row : row + 1]
        level = float(noise().uniform(number)[0])
        sigma = exp(spec.mean + spec.std * NormalDist().inv_cdf(first + level * (last - first)))
        epsilon = noise().normal(number, positions, width, stream=1)[0].double()
        told = torch.zeros(width)
        if spec.conditioning != "none":
            told = route.conditioning[variant](torch.tensor([log(sigma) / 4], dtype=torch.float64))[0, 0]
        added = told if spec.conditioning == "add" else 0.0
        summed = sigma**2 + spec.data_std**2
        weight = summed / (sigma * spec.data_std) ** 2
        weight = weight if spec.max_loss_weight is None else min(weight, spec.max_loss_weight)
        clean, own = [], []
        plain = []
        for place in range(positions):
            read = slice(place * bag, place * bag + bag)
            bag_tokens, bag_documents = tokens[read], documents[read]
            begins = bag_tokens[bag_documents.index(bag_documents[-1])]
            kept = [
                token if document == bag_documents[-1] else begins
                for token, document in zip(bag_tokens, bag_documents, strict=True)
            ]
            clean.append(scaled(kept) + added)
            plain.append(sum(embedding[token] for token in kept) / bag)
            own.append(bag_documents[-1])
            target = tokens[read.stop : read.stop + objective.ahead]
            target_documents = documents[read.stop : read.stop + objective.ahead]
            z = scaled(target[:near]) + sigma * epsilon[place]
            stream = torch.stack([*clean, z / sqrt(summed) + added])[None]
            of = torch.tensor([[*own, target_documents[0]]])
            if spec.conditioning == "adaln":
                out = modulated(model, stream, layers, of, told)[0, -1]
            else:
                out = model.forward_layers(stream, layers, of)[0, -1]
            denoised = spec.data_std**2 / summed * z + sigma * spec.data_std / sqrt(summed) * out
            outputs = [(denoised, weight * (1 - spec.clean_share))]
            if spec.clean_share:
                through, numbers = torch.stack(plain)[None], torch.tensor([own])
                below = frozen.forward_layers(through, slice(0, layers.start), numbers)
                through = model.forward_layers(below.detach() if layers.start else below, layers, numbers)
                through = frozen.forward_layers(through, slice(layers.stop, None), numbers)
                outputs.append((through[0, -1], spec.clean_share))
            if len(set(target_documents[:near])) > 1:
                continue
            for hidden, by_row in outputs:
                predicted = model.logits(hidden[None])[0].log_softmax(dim=-1)
                for index, token in enumerate(target):
                    if target_documents[index] == target_documents[0]:
                        charged = shares[index] * by_row * batch.weight[row, read.stop + index]
                        total = total - charged * predicted[token]
                        prefix = int(batch.extras[PREFIX_TOKENS][row, read.stop + index]) if of_prefix else NO_PREFIX
                        if prefix != NO_PREFIX:
                            total = total - of_prefix * charged * predicted[prefix]
    return total / objective.denominator(batch)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_any_bag_goes_with_any_route_and_mixer(name, route, kind):
    """The loss is that of plain rows, and so are the gradients of what a variant trains."""
    objective = replace(OBJECTIVES[kind], route=ROUTES[route])
    trainable, batch = made(MODELS[name], objective), batch_of(objective)
    for variant in range(2):
        found = losses(trainable, objective, batch, variant).loss
        expected = naive(trainable, objective, batch, variant)
        assert found.item() == pytest.approx(expected.item(), rel=2e-5)
        active = trainable.active(0, variant)
        ours, theirs = (torch.autograd.grad(loss, list(active.values())) for loss in (found, expected))
        for parameter, one, other in zip(active, ours, theirs, strict=True):
            assert (one - other).norm() <= 1e-3 * other.norm() + 1e-6, parameter


def test_what_is_recorded_is_in_nats_a_target_whatever_rows_weigh():
    one, other = (
        NextToken(route=DiffusionBlocks(blocks=2, max_loss_weight=most), terms=(CrossEntropy(), ZLoss()))
        for most in (1e-3, 1.0)
    )
    batch = batch_of(one)
    found = [losses(made(tiny.ODIN_SPEC, each), each, batch, 1) for each in (one, other)]
    assert found[0].loss.item() == pytest.approx(1e-3 * found[1].loss.item())
    for name in ("cross_entropy", "z_loss"):
        assert float(found[0].terms[name]) == pytest.approx(float(found[1].terms[name]))
    mixed = replace(one, route=replace(one.route, clean_share=0.5))
    terms = losses(made(tiny.ODIN_SPEC, mixed), mixed, batch, 1).terms
    assert list(terms) == ["cross_entropy", "z_loss", "clean/cross_entropy", "clean/z_loss"]
    assert float(terms["cross_entropy"]) == pytest.approx(float(found[0].terms["cross_entropy"]))


def test_ranges_of_noise_are_equally_likely():
    expected = [80, 0.676649, 0.301200, 0.134076, 0.002]
    assert LEVELS.boundaries(4) == pytest.approx(expected, abs=1e-5)
    cdf = [NormalDist(-1.2, 1.2).cdf(log(end)) for end in LEVELS.boundaries(4)]
    shares = [(high - low) / (cdf[0] - cdf[-1]) for high, low in pairwise(cdf)]
    assert shares == pytest.approx([0.25] * 4)
    for found, expected in zip(
        LEVELS.ranges(4, 0.1),
        [(0.41985, 80), (0.27778, 0.73369), (0.12365, 0.32659), (0.002, 0.20417)],
        strict=True,
    ):
        assert tuple(found) == pytest.approx(expected, abs=1e-5)
    assert [PORT.levels.lowest, PORT.levels.highest] == [5, 10] and PORT.overlap == 0.05


def test_levels_are_drawn_as_their_distribution_has_them():
    levels = NoiseLevels(mean=-1.2, std=1.2, lowest=0.002, highest=80.0)
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    for low, high in levels.ranges(4, 0.1):
        drawn = levels.draw(uniform, NoiseRange(low, high))
        assert low <= drawn.amin() and drawn.amax() <= high and (drawn.diff() >= 0).all()
        ends = [NormalDist(-1.2, 1.2).cdf(log(end)) for end in (low, high)]
        median = exp(NormalDist(-1.2, 1.2).inv_cdf(sum(ends) / 2))
        assert float(drawn.median()) == pytest.approx(median, rel=1e-3)


@pytest.mark.parametrize("data_std", [0.5, 0.036])
def test_scales_are_those_of_edm(data_std):
    sigma = torch.tensor([0.002, 0.134, 0.301, 0.677, 80.0], dtype=torch.float64)
    skip, out, into, level = preconditioning(sigma, data_std)
    assert torch.allclose(loss_weight(sigma, data_std, None) * out**2, torch.ones_like(sigma))
    assert torch.allclose(into**2 * (sigma**2 + data_std**2), torch.ones_like(sigma))
    assert torch.allclose(level, sigma.log() / 4)
    z, made = torch.randn(2, 1, 8, dtype=torch.float64)
    for at, expected in ((1e-9, z), (1e9, data_std * made)):
        skip, out, *_ = preconditioning(torch.tensor(at, dtype=torch.float64), data_std)
        assert torch.allclose(skip * z + out * made, expected, atol=1e-6)
    assert loss_weight(sigma, 0.5, 20.0).tolist() == pytest.approx([20, 20, 15.04, 6.18, 4.0], abs=0.01)


def test_the_last_step_of_euler_is_what_was_denoised():
    z, denoised = torch.randn(2, 3, 8)
    assert torch.equal(euler_step(z, denoised, 0.3, 0.0), denoised)
    assert torch.allclose(euler_step(z, denoised, 0.3, 0.3), z)
    halfway = euler_step(z, denoised, 0.3, 0.15)
    assert torch.allclose(halfway, (z + denoised) / 2, atol=1e-6)
    assert (halfway - denoised).norm() < (z - denoised).norm(), "towards it, not away, as the paper prints it"


def sees(route, rows, variant):
    """Which clean positions each denoised one depends on [L, L]; a scan forgets documents by a factor near 0."""
    x = rows.x.detach().requires_grad_()
    hidden = route(rows._replace(x=x), variant, torch.tensor(0.0), noise())[0].hidden
    gradients = [torch.autograd.grad(one.sum(), x, retain_graph=True)[0][0] for one in hidden[0]]
    return torch.stack([gradient.abs().sum(dim=-1) > 1e-12 for gradient in gradients])


class Leaking(DiffusionBlocksModule):
    """Reads the clean stream from one position further on: that of the target itself."""

    def denoise(self, clean, *others):
        return super().denoise(clean.roll(-1, dims=1), *others)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bag", [1, 4])
@pytest.mark.parametrize("documents", [False, True])
def test_no_target_is_in_its_own_prediction_but_for_its_noised_self(name, bag, documents):
    objective = NextToken(bag=bag, route=DiffusionBlocks(blocks=2))
    trainable = made(MODELS[name], objective)
    route, model = trainable.stages[0].route, trainable.model
    own = torch.tensor([[0, 0, 1, 1, 1, 2]] if documents else [[0] * 6])
    of_targets = torch.tensor([[0, 1, 1, 1, 2, 2]] if documents else [[0] * 6])
    tokens = torch.randint(0, 300, (1, 7 * bag), generator=torch.Generator().manual_seed(3)).unflatten(1, (7, bag))
    rows = RouteInput(model.embed(tokens[:, :-1]), tokens[:, 1:], own, of_targets, torch.zeros(1, dtype=torch.int64))
    allowed = torch.ones(6, 6).tril().bool() & (of_targets[0][:, None] == own[0][None])
    for variant in range(2):
        assert torch.equal(sees(route, rows, variant), allowed)
        leaking = Leaking(objective.route, model)
        leaking.load_state_dict(route.state_dict())
        assert (sees(leaking, rows, variant) & ~allowed).any(), "the test finds a planted leak"


@pytest.mark.parametrize("name", MODELS)
def test_another_target_changes_its_own_denoised_position_alone(name):
    objective = NextToken(route=DiffusionBlocks(blocks=2))
    trainable = made(MODELS[name], objective)
    route, tokens = trainable.stages[0].route, torch.arange(10, 17)[None, :, None]
    documents = torch.zeros(1, 6, dtype=torch.int64)
    rows = RouteInput(trainable.model.embed(tokens[:, :-1]), tokens[:, 1:], documents, documents, torch.zeros(1).long())
    changed = rows.targets.clone()
    changed[0, 3] = 200
    one, other = (
        route(rows._replace(targets=targets), 0, torch.tensor(0.0), noise())[0].hidden[0]
        for targets in (rows.targets, changed)
    )
    assert (one != other).any(dim=-1).tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_block_has_gradients_of_its_own_layers_and_of_what_all_share(name, share):
    objective = NextToken(route=DiffusionBlocks(blocks=2, clean_share=share))
    trainable, batch = made(MODELS[name], objective), batch_of(objective)
    for variant in range(2):
        trainable.zero_grad()
        losses(trainable, objective, batch, variant).loss.backward()
        touched = {name for name, one in trainable.named_parameters() if one.grad is not None}
        assert touched == trainable.active(0, variant).keys()
        assert all(one.requires_grad for one in trainable.parameters())
        other = blocks_of(len(trainable.model.layers), 2)[1 - variant]
        layers = [f"layers.{layer}." for layer in range(len(trainable.model.layers))[other]]
        assert not any(name.startswith(tuple(layers)) for name in touched)
        assert {"embedding.weight", "norm.weight"} <= touched
        assert any(f"conditioning.{variant}." in name for name in touched)
        assert not any(f"conditioning.{1 - variant}." in name for name in touched)
        frozen = replace(objective, route=replace(objective.route, freeze_shared=True))
        alone = Trainable.of_phase(trainable.model, [frozen], seed=0).active(0, variant).keys()
        assert alone == {name for name in touched if name.startswith(("layers.", "objective."))}


def test_impossible_settings_are_refused():
    for settings in (
        {"blocks": 1},
        {"overlap": 1.0},
        {"lowest": 90.0},
        {"std": 0.0},
        {"max_loss_weight": 0.0},
        {"conditioning": "film"},
        {"embeddings": "raw"},
        {"clean_share": 1.0},
    ):
        with pytest.raises(RecipeError, match=next(iter(settings)).replace("lowest", "sigma from")):
            DiffusionBlocks(**settings)


def test_layers_are_cut_into_blocks():
    assert blocks_of(16, 4) == [slice(0, 4), slice(4, 8), slice(8, 12), slice(12, 16)]
    assert [len(range(7)[block]) for block in blocks_of(7, 3)] == [2, 2, 3]
    with pytest.raises(RecipeError, match="2 layers cannot be cut into 4 blocks"):
        DiffusionBlocks().build(tiny.GQA_SPEC.build(seed=0), None)


def test_held_out_numbers_are_defined_where_all_layers_learn_them():
    for share, defined in ((0.0, False), (0.5, True)):
        objective = NextToken(route=DiffusionBlocks(blocks=2, clean_share=share))
        trainable, batch = made(tiny.ODIN_SPEC, objective), batch_of(objective)
        found = trainable.objective(0).evaluate(batch)
        assert (found is not None) == defined
        if found is not None:
            plain = Trainable.of_phase(trainable.model, [NextToken()], seed=0).objective(0).evaluate(batch)
            assert found == plain


def test_conditioning_begins_as_nothing_and_tells_levels_apart():
    first = []
    for name in ("none", "adaln", "add"):
        objective = NextToken(route=DiffusionBlocks(blocks=2, conditioning=name))
        trainable = Trainable.of_phase(tiny.ODIN_SPEC.build(seed=0), [objective], seed=0)
        owned = sorted(trainable.owned_tensors())
        assert len(owned) == (0 if name == "none" else 8), "a network for each block, of two layers"
        first.append(losses(trainable, objective, batch_of(objective), 0).loss.item())
    assert first[0] == first[2] == pytest.approx(first[1], rel=1e-6)
    network = made(tiny.ODIN_SPEC, objective).stages[0].route.conditioning[0].float()
    told = network(torch.tensor([0.002, 0.0021, 0.3, 0.31, 79.0, 80.0]).log() / 4)[:, 0]
    assert told.shape == (6, 32) and torch.cdist(told, told).add(torch.eye(6)).amin() > 1e-3


@pytest.fixture(scope="module", params=["hgrn2", "gqa"])
def overfit(request):
    """Blocks trained on two rows, from almost nothing but noise: the text before a token has to tell it."""
    objective = NextToken(route=DiffusionBlocks(blocks=2, lowest=70.0, highest=80.0, conditioning="none"))
    spec = {"hgrn2": tiny.ODIN_SPEC, "gqa": tiny.GQA_SPEC}[request.param]
    spec = replace(spec, vocab=64, width=64, layers=4, ffn=SwiGLU(inner=128))
    trainable = Trainable.of_phase(spec.build(seed=0), [objective], seed=0)
    tokens = (batch_of(objective, length=8).tokens % 64).repeat(4, 1)
    batch = Batch(tokens=tokens, weight=torch.ones(tokens.shape), document_ids=torch.zeros_like(tokens))
    optimizer, last, steps = AdamW(lr=1e-2, weight_decay=0.0).build(trainable), [9.0, 9.0], 300
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1, (step + 1) / 20, 2 * (1 - step / steps))
        trainable.zero_grad()
        denominator = objective.denominator(batch)
        found = trainable.objective(0)(batch, denominator, step % 2, torch.tensor(0.0), noise(step))
        found.loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable.parameters(), 1.0)
        optimizer.step()
        last[step % 2] = float(found.terms["cross_entropy"])
    return trainable.stages[0].route, tokens[:2], last


def test_every_block_learns_a_batch_from_the_text_before_alone(overfit):
    _, _, last = overfit
    assert max(last) < 0.1


@pytest.mark.parametrize("steps", [None, 2, 5])
def test_what_was_learned_is_written(overfit, steps):
    route, tokens, _ = overfit
    assert torch.equal(sample(route, tokens[:, :4], 5, noise(), steps=steps), tokens)


def test_text_is_written_as_whole_rows_are_denoised():
    """The states of the sampler are what `forward_pair` makes of the whole text at each level."""
    objective = NextToken(route=DiffusionBlocks(blocks=2))
    trainable = made(MODELS["hybrid"], objective, torch.float32)
    route, model = trainable.stages[0].route, trainable.model
    tokens = start = torch.tensor([[5, 6, 7], [8, 9, 10]])
    levels, embeddings = [*objective.route.levels.boundaries(4)[:-1], 0.0], route.scaled(model.embedding.weight)
    with torch.no_grad():
        for place in range(5):
            z = levels[0] * noise().normal(torch.arange(2), 1, 32, stream=2 * place)
            for step, variant in enumerate((0, 0, 1, 1)):
                clean = embeddings[tokens]
                sigma = torch.full((2,), levels[step])
                noised = torch.cat((torch.zeros_like(clean[:, 1:]), z), dim=1)
                logits = model.logits(route.denoise(clean, noised, sigma, variant))[:, -1:]
                z = euler_step(z, logits.softmax(dim=-1) @ embeddings, levels[step], levels[step + 1])
            tokens = torch.cat((tokens, logits.argmax(dim=-1)), dim=1)
    assert torch.equal(sample(route, start, 5, noise(), steps=4), tokens)
    drawn = [sample(route, start, 5, noise(), temperature=one) for one in (1e-6, 3.0, 3.0)]
    assert torch.equal(drawn[0], sample(route, start, 5, noise()))
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    with pytest.raises(RecipeError, match="1 steps leave out some of 2 blocks"):
        sample(route, start, 5, noise(), steps=1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("conditioning", ["add", "adaln"])
def test_whole_rows_are_predicted_as_text_is_written(name, conditioning):
    """Each position as the next token of the text up to it, of its own document."""
    objective = NextToken(route=DiffusionBlocks(blocks=2, conditioning=conditioning))
    trainable = made(MODELS[name], objective, torch.float32)
    route, tokens = trainable.stages[0].route, torch.tensor([[5, 6, 7, 8], [8, 9, 10, 11]])

    class Noiseless:
        """So that a position begins alike in rows of any length."""

        def normal(self, rows, *shape, stream=0):
            return torch.linspace(-1, 1, shape[-1]).expand(len(rows), *shape)

    found = predict(route, tokens, Noiseless(), steps=3)
    written = [sample(route, tokens[:, :end], 1, Noiseless(), steps=3)[:, -1] for end in range(1, 5)]
    assert torch.equal(found.argmax(dim=-1), torch.stack(written, dim=1))
    begins = torch.tensor([0, 0, 1, 1, 1])
    documents = {"document_ids": begins[:-1].expand(2, -1), "target_document_ids": begins[1:].expand(2, -1)}
    changed = tokens + torch.tensor([9, 9, 0, 0])
    one, other = (predict(route, each, Noiseless(), **documents) for each in (tokens, changed))
    torch.testing.assert_close(one[:, 1:], other[:, 1:], rtol=1e-5, atol=1e-6)
    assert not torch.equal(predict(route, tokens, noise()), predict(route, tokens, noise(step=4)))
    with pytest.raises(RecipeError, match="1 steps leave out some of 2 blocks"):
        predict(route, tokens, noise(), steps=1)
