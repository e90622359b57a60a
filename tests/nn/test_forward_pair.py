"""A noised position comes out as the last one of an ordinary row that ends with it, and nothing else is seen."""

from dataclasses import replace

import pytest
import torch
from tiny import GQA_SPEC, HGRN2_SPEC, ODIN_SPEC, SPECS
from torch.nn.init import normal_

from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.rope import NoPE, RoPE
from lilliput.train.compile import compiled

EVEN = RoPE(layers="even", layout="interleaved", theta=100.0)
MIXERS = {
    "plain": GQA(heads=4, kv_heads=4, head_width=8),
    "one key head": GQA(heads=4, kv_heads=1, head_width=8, qk_norm=True),
    "soft-cap": GQA(heads=4, kv_heads=2, head_width=8, qk_norm=True, softcap=0.7),
    "soft-cap alone": GQA(heads=2, kv_heads=1, head_width=16, softcap=0.7, rope=EVEN),
    "interleaved": GQA(heads=4, kv_heads=2, head_width=8, rope=RoPE(layout="interleaved", theta=100.0)),
    "even layers": GQA(heads=4, kv_heads=2, head_width=8, rope=RoPE(layers="even")),
    "no positions": GQA(heads=4, kv_heads=2, head_width=8, rope=NoPE()),
    "one head": HGRN2(heads=1),
    "turning": HGRN2(heads=2, rope=RoPE(theta=100.0)),
    "neighbors turning": HGRN2(heads=4, rope=EVEN),
    "tied": HGRN2(heads=2, rope=RoPE(theta=100.0), rope_tie_gate=True),
    "bounds": HGRN2(heads=2, lower_bounds=True),
    "everything": HGRN2(heads=2, rope=EVEN, rope_tie_gate=True, lower_bounds=True, forget_timescales=(2.0, 50.0)),
}
ALL_SPECS = SPECS | {
    name: replace(GQA_SPEC if isinstance(mixer, GQA) else ODIN_SPEC, mixer=mixer, layers=3)
    for name, mixer in MIXERS.items()
}
LENGTH = 10
DOCUMENTS = {
    "one document": None,
    "several": [[0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], [0, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]],
    "one beginning with the last target": [[5] * 10 + [6], [0] * 11],
}
"""Of the positions of a row and of the target after them."""


def made(spec, dtype=torch.float64):
    """A model whose every parameter, gains, gates, biases and bounds too, is away from where it begins."""
    model = spec.build(seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
            else:
                parameter.add_(normal_(torch.empty_like(parameter), std=0.5, generator=generator))
        if model.shared is not None:
            normal_(model.shared.bound_logits, generator=generator)
    return model.to(dtype)


def streams(length=LENGTH, width=32, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(2, length, width, generator=generator, dtype=dtype) for _ in range(2)]


def documents(name):
    numbers = DOCUMENTS[name]
    return (None, None) if numbers is None else (torch.tensor(numbers)[:, :-1], torch.tensor(numbers)[:, 1:])


def by_rows(model, clean, noisy, document_ids, target_document_ids, layers=slice(None)):
    """The definition: a row of its own for each noised position, which ends with it."""
    last = []
    for index in range(clean.shape[1]):
        row = torch.cat((clean[:, : index + 1], noisy[:, index : index + 1]), dim=1)
        numbers = None
        if document_ids is not None:
            numbers = torch.cat((document_ids[:, : index + 1], target_document_ids[:, index : index + 1]), dim=1)
        last.append(model.forward_layers(row, layers, numbers)[:, -1])
    return torch.stack(last, dim=1)


@pytest.fixture(scope="module", params=ALL_SPECS)
def model(request):
    return made(ALL_SPECS[request.param])


@pytest.mark.parametrize("numbers", DOCUMENTS)
def test_a_noised_position_is_the_last_one_of_a_row_that_ends_with_it(model, numbers):
    clean, noisy = streams()
    context, read = model.forward_pair(clean, noisy, slice(None), *documents(numbers))
    torch.testing.assert_close(read, by_rows(model, clean, noisy, *documents(numbers)), rtol=1e-9, atol=1e-11)
    assert torch.equal(context, model.forward_layers(clean, document_ids=documents(numbers)[0]))


@pytest.mark.parametrize("numbers", ["one document", "several"])
def test_gradients_are_those_of_such_rows(model, numbers):
    clean, noisy = (stream.requires_grad_() for stream in streams())
    weights = torch.linspace(-1, 1, clean.numel(), dtype=clean.dtype).view_as(clean)
    leaves = {"clean": clean, "noisy": noisy} | dict(model.layers.named_parameters())
    if model.shared is not None:
        leaves["bounds"] = model.shared.bound_logits

    def gradients(context, read):
        loss = (context * weights.flip(1)).sum() + (read * weights).sum()
        return torch.autograd.grad(loss, leaves.values())

    found = gradients(*model.forward_pair(clean, noisy, slice(None), *documents(numbers)))
    rows = by_rows(model, clean, noisy, *documents(numbers))
    expected = gradients(model.forward_layers(clean, document_ids=documents(numbers)[0]), rows)
    for name, one, other in zip(leaves, found, expected, strict=True):
        assert other.any() or name == "bounds", name
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9, msg=lambda said, name=name: f"{name}: {said}")


@pytest.fixture(params=[LENGTH, 40])  # the scan of a short row is another one
def length(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request):
    return request.param


LEAKS = pytest.mark.parametrize("name", ["gqa", "soft-cap", "hgrn2", "odin", "everything"])


@LEAKS
def test_a_clean_position_is_seen_from_there_on_in_its_document_and_nowhere_else(name, dtype, length):
    model, (clean, noisy) = made(ALL_SPECS[name], dtype), streams(length, dtype=dtype)
    numbers = torch.arange(length + 1) // 7
    given = slice(None), numbers[:-1].expand(2, -1), numbers[1:].expand(2, -1)
    context, read = model.forward_pair(clean, noisy, *given)
    for index in range(length):
        changed = clean.clone()
        changed[:, index] += 3.0
        after_context, after = model.forward_pair(changed, noisy, *given)
        assert torch.equal(after_context[:, :index], context[:, :index])
        assert torch.equal(after[:, :index], read[:, :index]), "to the bit: a causal leak cannot hide in a tolerance"
        sees = (numbers[1:] == numbers[index]) & (torch.arange(length) >= index)
        assert (after[:, sees] != read[:, sees]).any(dim=-1).all()
        first = numbers[1:] != numbers[:-1]
        assert torch.equal(after[:, first], read[:, first]), "where the target begins a document, the past is empty"
        # A scan empties its state by a decay, which rounds with what was there.
        torch.testing.assert_close(after[:, ~sees], read[:, ~sees], rtol=0, atol=100 * torch.finfo(dtype).eps)


@LEAKS
def test_a_noised_position_is_seen_by_itself_alone(name, dtype, length):
    model, (clean, noisy) = made(ALL_SPECS[name], dtype), streams(length, dtype=dtype)
    context, read = model.forward_pair(clean, noisy)
    for index in range(length):
        changed = noisy.clone()
        changed[:, index] += 3.0
        after_context, after = model.forward_pair(clean, changed)
        others = torch.arange(length) != index
        assert torch.equal(after_context, context) and torch.equal(after[:, others], read[:, others])
        assert (after[:, index] != read[:, index]).any(dim=-1).all()


@pytest.mark.parametrize("name", ["gqa", "no positions", "hgrn2", "everything"])
def test_a_document_is_read_as_in_a_row_of_its_own(name):
    """Of mixers whose scores depend on distances alone."""
    model = made(ALL_SPECS[name])
    clean, noisy = streams()
    document_ids, target_document_ids = documents("several")
    _, read = model.forward_pair(clean, noisy, slice(None), document_ids, target_document_ids)
    for row, index in ((row, index) for row in range(2) for index in range(LENGTH)):
        own = document_ids[row, : index + 1] == target_document_ids[row, index]
        alone = torch.cat((clean[row, : index + 1][own], noisy[row, index : index + 1]))[None]
        torch.testing.assert_close(read[row, index], model.forward_layers(alone)[0, -1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("layers", [slice(0, 1), slice(1, 3), slice(2, 2)], ids=str)
@pytest.mark.parametrize("name", ["even layers", "everything"])
def test_a_block_of_layers_runs_alone(name, layers):
    model = made(ALL_SPECS[name])
    clean, noisy = streams()
    context, read = model.forward_pair(clean, noisy, layers)
    rows = by_rows(model, clean, noisy, None, None, layers)
    assert torch.equal(context, model.forward_layers(clean, layers))
    torch.testing.assert_close(read, rows, rtol=1e-9, atol=1e-11)
    whole = model.forward_pair(*model.forward_pair(clean, noisy, slice(0, 1)), slice(1, None))
    assert all(map(torch.equal, whole, model.forward_pair(clean, noisy)))


@pytest.mark.parametrize("name", ["gqa", "options"])
def test_in_bf16_the_streams_are_near_those_in_fp64(name):
    exact, model = made(ALL_SPECS[name]), made(ALL_SPECS[name], torch.float32)
    clean, noisy = streams(length=40)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.forward_pair(clean.float(), noisy.float())
    for one, other in zip(found, exact.forward_pair(clean, noisy), strict=True):
        assert one.isfinite().all() and (one - other).norm() < 0.05 * other.norm()


def test_documents_are_given_for_both_streams_or_for_neither():
    model = made(HGRN2_SPEC)
    with pytest.raises(AssertionError, match="or neither"):
        model.forward_pair(*streams(), document_ids=torch.zeros(2, LENGTH, dtype=torch.int64))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which the compiler looks at
@pytest.mark.parametrize(("name", "kinds"), [("gqa", 1), ("hgrn2", 1), ("even layers", 2)])
def test_layers_compile_what_they_do_to_both_streams_and_share_it(monkeypatch, name, kinds):
    from torch._dynamo import reset
    from torch._dynamo.testing import CompileCounter

    model, counter, plainly = made(replace(ALL_SPECS[name], layers=4), torch.float32), CompileCounter(), torch.compile
    inputs = [stream.requires_grad_() for stream in streams(dtype=torch.float32)]
    expected = model.forward_pair(*inputs)
    monkeypatch.setattr(torch, "compile", lambda each, **how: plainly(each, backend=counter, fullgraph=True, **how))
    reset()
    with compiled(model, "blocks"):
        assert all(map(torch.equal, model.forward_pair(*inputs), expected))
        assert counter.frame_count == kinds, "one for each kind of layers, whichever block they are in"
        assert all(map(torch.equal, model.forward_pair(*inputs, slice(2, 4)), model.forward_pair(*inputs, slice(2, 4))))
        assert counter.frame_count == kinds
    assert all(map(torch.equal, model.forward_pair(*inputs), expected)) and counter.frame_count == kinds
    with compiled(model, "off"):
        assert all(map(torch.equal, model.forward_pair(*inputs), expected)) and counter.frame_count == kinds
    reset()


WIDE = {
    "gqa": GQA(heads=4, kv_heads=2, head_width=32, qk_norm=True),
    "hgrn2": HGRN2(heads=2, rope=RoPE(layers="even"), forget_timescales=(2.0, 50.0)),
}
"""Wide enough for kernels, in rows long enough for all of them."""


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.parametrize("name", WIDE)
def test_on_a_gpu_the_streams_are_near_those_of_a_cpu_and_nothing_leaks(name):
    spec = replace(HGRN2_SPEC, width=128, mixer=WIDE[name])
    exact, model = spec.build(seed=0).double(), spec.build(seed=0).cuda()
    inputs = [stream.bfloat16().double() for stream in streams(length=700, width=128)]
    numbers = torch.arange(701) // 130
    documents = numbers[:-1].expand(2, -1), numbers[1:].expand(2, -1)

    def run(model, clean, noisy):
        leaves = [clean.detach().requires_grad_(), noisy.detach().requires_grad_(), *model.layers.parameters()]
        given = (one.to(clean.device) for one in documents)
        made = model.forward_pair(*leaves[:2], slice(None), *given)
        weights = torch.linspace(-1, 1, clean.numel(), device=clean.device).view_as(clean)
        return *made, *torch.autograd.grad(sum((stream * weights).sum() for stream in made), leaves)

    with torch.autocast("cuda", torch.bfloat16):
        clean, noisy = (stream.cuda().bfloat16() for stream in inputs)
        for one, other in zip(run(model, clean, noisy), run(exact, *inputs), strict=True):
            assert (one.cpu() - other).norm() < 0.1 * other.norm()  # 0.06 for a bias, in ordinary rows too
        given = slice(None), *(one.cuda() for one in documents)
        torch.cuda.set_sync_debug_mode("error")
        try:
            context, read = model.forward_pair(clean, noisy, *given)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        later, other = clean.clone(), noisy.clone()
        later[:, 301] += 3.0
        other[:, 301] += 3.0
        after_context, after = model.forward_pair(later, noisy, *given)
        assert torch.equal(after[:, :301], read[:, :301]) and torch.equal(after_context[:, :301], context[:, :301])
        assert (after[:, 301:389] != read[:, 301:389]).any(dim=-1).all()
        after_context, after = model.forward_pair(clean, other, *given)
        others = torch.arange(700) != 301
        assert torch.equal(after_context, context) and torch.equal(after[:, others], read[:, others])
