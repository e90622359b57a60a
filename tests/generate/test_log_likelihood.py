"""Continuations are as likely as the whole text's logits say, however rows are grouped and batched."""

import random

import pytest
import torch
from tiny_releases import RELEASES, VOCAB, awake

from lilliput.generate import log_likelihood
from lilliput.generate.log_likelihood import Likelihood, Request, log_likelihoods, score
from lilliput.generate.shared_prefixes import WORTH, common_length, groups
from lilliput.model import LanguageModel

WINDOW = 48
MIXERS = ["qwen3", "llama-untied", "hgrn2", "hgrn2-options"]


def model(name: str) -> LanguageModel:
    return awake(RELEASES["llama" if name == "llama-untied" else name][0])


def ids(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(1, VOCAB) for _ in range(count)]


def questions(seed: int = 0, common: int = 0, count: int = 12) -> list[Request]:
    """Choices of one token and of several, shared contexts, contexts that begin alike, and texts beyond the window."""
    draw = random.Random(seed)
    before = ids(draw, common)
    found: list[Request] = []
    for number in range(count):
        context = before + ids(draw, draw.randrange(6, 14))
        if number % 4 == 0:
            found += [(context, [choice]) for choice in ids(draw, 4)]
        elif number % 4 == 1:
            found += [(context, ids(draw, draw.randrange(1, 9))) for _ in range(4)]
        elif number % 4 == 2:  # two contexts that differ in the middle, and one continuation
            rest = ids(draw, 5)
            found += [([*context, option, *ids(draw, 3)], rest) for option in ids(draw, 2)]
        else:
            found.append((context + ids(draw, 60), ids(draw, 7)))
    found.append(found[0])
    draw.shuffle(found)
    return found


def shapes_read(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of the tokens of every pass from now on."""
    shapes: list[torch.Size] = []
    embed = LanguageModel.embed

    def counted(self: LanguageModel, tokens: torch.Tensor, *shares: torch.Tensor) -> torch.Tensor:
        shapes.append(tokens.shape)
        return embed(self, tokens, *shares)

    monkeypatch.setattr(LanguageModel, "embed", counted)
    return shapes


@torch.no_grad()
def by_hand(model: LanguageModel, request: Request) -> Likelihood:
    context, continuation = request
    text = [*context, *continuation][-(WINDOW + 1) :]
    logits = model(torch.tensor([text[:-1]]))[0].double().log_softmax(dim=-1)[-len(continuation) :]
    targets = torch.tensor(list(continuation))
    total = float(logits.gather(-1, targets[:, None]).sum())
    return Likelihood(total, bool((logits.argmax(dim=-1) == targets).all()))


@pytest.mark.parametrize("common", [0, 35], ids=["", "after-common-tokens"])
@pytest.mark.parametrize("name", MIXERS)
def test_likelihoods_are_those_of_one_text_at_a_time(name: str, common: int) -> None:
    native, requests = model(name), questions(common=common)
    found = score(native, requests, window=WINDOW)
    for request, one in zip(requests, found, strict=True):
        expected = by_hand(native, request)
        assert one.total == pytest.approx(expected.total, abs=1e-4) and one.is_greedy == expected.is_greedy
    assert log_likelihoods(native, requests, window=WINDOW) == [one.total for one in found]


def test_greedy_continuations_are_known() -> None:
    native = model("qwen3")
    context, written = ids(random.Random(1), 5), []
    with torch.no_grad():
        for _ in range(4):
            written.append(int(native(torch.tensor([context + written]))[0, -1].argmax()))
    other = [*written[:-1], written[-1] + 1]
    found = score(native, [(context, written), (context, other), (context, written[:1])], window=WINDOW)
    assert [one.is_greedy for one in found] == [True, False, True]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["qwen3", "hgrn2"])
def test_batches_of_any_size_and_any_padding_decide_alike(
    name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    native, requests = model(name).to(device), questions(2, count=80)
    assert len(requests) > 3 * 64
    first = score(native, requests, window=WINDOW)
    monkeypatch.setitem(log_likelihood.POSITIONS, "cpu", log_likelihood.POSITIONS["cuda"])  # rows are the limit
    shapes = shapes_read(monkeypatch)
    for rows in (1, 2, 3, 16, 64):
        for aligned in (1, 16):
            monkeypatch.setitem(log_likelihood.ALIGNED, device, aligned)
            monkeypatch.setitem(log_likelihood.LOGITS, device, VOCAB * rows)
            shapes.clear()
            again = score(native, requests, window=WINDOW, most_rows=rows)
            assert max(read for read, _, _ in shapes) == rows
            assert [one.is_greedy for one in again] == [one.is_greedy for one in first]
            close = pytest.approx([one.total for one in first], abs=2e-5 if device == "cpu" else 1e-3)
            assert [one.total for one in again] == close


def test_rows_are_read_once_and_only_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    native, requests = model("qwen3"), questions(3)
    shapes = shapes_read(monkeypatch)
    told: list[tuple[int, int]] = []
    score(native, requests, window=WINDOW, most_rows=4, watcher=lambda done, total: told.append((done, total)))
    assert all(rows <= 4 for rows, _, _ in shapes)
    unique = {tuple([*context, *continuation][-(WINDOW + 1) : -1]) for context, continuation in requests}
    assert told[-1] == (len(unique), len(unique)) and [done for done, _ in told] == sorted(done for done, _ in told)
    positions = sum(rows * length for rows, length, _ in shapes)
    assert positions < sum(len(row) for row in unique)


def test_half_the_positions_are_tried_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    native, requests = model("hgrn2"), questions(4)
    expected = score(native, requests, window=WINDOW)
    embed = LanguageModel.embed

    def scarce(self: LanguageModel, tokens: torch.Tensor, *shares: torch.Tensor) -> torch.Tensor:
        if tokens.numel() > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(self, tokens, *shares)

    monkeypatch.setattr(LanguageModel, "embed", scarce)
    found = score(native, requests, window=WINDOW)
    assert [one.total for one in found] == pytest.approx([one.total for one in expected], abs=2e-5)
    with pytest.raises(torch.OutOfMemoryError):
        score(native, [(ids(random.Random(0), 120), [1])], window=200)


def test_groups_are_the_partition_that_reads_the_fewest_positions() -> None:
    one, other, third = (1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 5, 6, 8), (1, 2, 9, 9, 9, 9, 9)
    rows = [other, third, one, (5,)]
    found = {tuple(sorted(group.rows)): group.shared for group in groups(rows, most=8)}
    assert found == {(0, 2): 6, (1,): 7, (3,): 1}
    assert {group.rows for group in groups(rows, most=1)} == {(0,), (1,), (2,), (3,)}
    assert common_length(one, other) == 6 and common_length(one, one[:3]) == 3
    # Questions that begin with the same words are not read as one group, though neighbors share something.
    draw = random.Random(0)
    start = tuple(ids(draw, WORTH + 1))
    contexts = [start + tuple(ids(draw, 20)) for _ in range(3)]
    many = [context + tuple(ids(draw, 3)) for context in contexts for _ in range(4)]
    assert sorted(sorted(group.rows) for group in groups(many, most=64)) == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]
    ]  # fmt: skip


def test_nothing_to_score() -> None:
    assert score(model("qwen3"), [], window=WINDOW) == []
