"""Choosing tokens: each setting beside its plain form and Hugging Face's, each row by its own settings and seed."""

import pytest
import torch

from lilliput.base.errors import RecipeError
from lilliput.generate.sampler import DRAWS, Sampler
from lilliput.generate.sampling import Sampling
from lilliput.ops.counter_noise import uniform
from lilliput.publish.export import Generation

VOCAB = 50
ROWS = [
    Sampling(greedy=True),
    Sampling(temperature=0.7),
    Sampling(top_k=5),
    Sampling(top_p=0.6, temperature=1.5),
    Sampling(top_k=12, top_p=0.8),
    Sampling(min_p=0.2),
    Sampling(repetition_penalty=1.4, frequency_penalty=0.5),
    Sampling(repetition_penalty=0.8, top_k=9, top_p=0.9, min_p=0.05, temperature=0.6, frequency_penalty=-0.3),
    Sampling(presence_penalty=1.5, frequency_penalty=0.2),
    Sampling(greedy=True, presence_penalty=2),
    Sampling(temperature=0),
]


def naive_scores(logits, sampling, prompt, written):
    """One row, one token at a time."""
    scores = logits.tolist()
    for token in {*prompt, *written}:
        rate = sampling.repetition_penalty
        scores[token] = scores[token] * rate if scores[token] < 0 else scores[token] / rate
    for token in written:
        scores[token] -= sampling.frequency_penalty
    for token in {*written}:
        scores[token] -= sampling.presence_penalty
    if sampling.is_greedy:
        return torch.tensor(scores)
    scores = torch.tensor(scores) / sampling.temperature
    order = scores.argsort(descending=True).tolist()
    kept = order[: sampling.top_k or VOCAB]
    shares = scores[kept].softmax(dim=0).tolist()
    if sampling.top_p < 1:
        kept = [token for place, token in enumerate(kept) if sum(shares[:place]) < sampling.top_p]
    highest = scores.softmax(dim=0).max()
    kept = [token for token in kept if scores.softmax(dim=0)[token] >= sampling.min_p * highest]
    return torch.full((VOCAB,), -torch.inf).index_copy(0, torch.tensor(kept), scores[kept])


def naive_choice(scores, sampling, seed, position):
    if sampling.is_greedy:
        return int(scores.argmax())
    drawn, reached = float(uniform(torch.tensor(seed), torch.tensor([position]), ())), 0.0
    for token, share in enumerate(scores.softmax(dim=0).tolist()):
        reached += share
        if reached > drawn:
            return token
    raise AssertionError


def test_every_row_is_chosen_for_as_by_the_plain_form_alone():
    draw = torch.Generator().manual_seed(0)
    sampler = Sampler(len(ROWS), VOCAB, torch.device("cpu"))
    prompts = [torch.randint(VOCAB, (4 + row,), generator=draw).tolist() for row in range(len(ROWS))]
    written = [[] for _ in ROWS]
    for row, sampling in enumerate(ROWS):
        sampler.begin(row, sampling, 10 + row, prompts[row])
    for step in range(40):
        logits = 2 * torch.randn(len(ROWS), VOCAB, generator=draw)
        choosing = [row for row in range(len(ROWS)) if (step + row) % 4]
        mask = torch.tensor([int(row in choosing) for row in range(len(ROWS))])
        tokens, likelihoods, *_ = sampler.choose(logits, choosing, mask)
        assert likelihoods is None
        for row in choosing:
            scores = naive_scores(logits[row], ROWS[row], prompts[row], written[row])
            position = len(prompts[row]) + len(written[row])
            assert int(tokens[row]) == naive_choice(scores, ROWS[row], 10 + row, position), (step, ROWS[row])
            written[row].append(int(tokens[row]))


def test_filters_are_those_of_hugging_face():
    from transformers import (
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(0))
    prompt = [3, 9, 9, 30]
    sampling = Sampling(temperature=0.7, top_k=20, top_p=0.8, min_p=0.1, repetition_penalty=1.3)
    theirs = logits[None]
    for step in (
        RepetitionPenaltyLogitsProcessor(1.3),
        TemperatureLogitsWarper(0.7),
        TopKLogitsWarper(20),
        TopPLogitsWarper(0.8),
        MinPLogitsWarper(0.1),
    ):
        theirs = step(torch.tensor([prompt]), theirs)  # type: ignore[arg-type]
    torch.testing.assert_close(naive_scores(logits, sampling, prompt, []), theirs[0])


def test_draws_follow_the_probabilities():
    sampler = Sampler(1, 4, torch.device("cpu"))
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2, 0.0]]))
    sampler.begin(0, Sampling(), 7, [])
    chosen = [int(sampler.choose(logits, [0], torch.ones(1, dtype=torch.int64))[0]) for _ in range(4 * DRAWS)]
    shares = torch.bincount(torch.tensor(chosen), minlength=4) / len(chosen)
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2, 0.0]), atol=0.04) and not shares[3]


def test_log_probabilities_are_the_models_own_whatever_the_settings():
    sampler = Sampler(2, VOCAB, torch.device("cpu"))
    sampler.begin(0, Sampling(temperature=0.3, repetition_penalty=1.5), 1, [4], log_probabilities=True)
    sampler.begin(1, Sampling(greedy=True), 1, [4])
    logits = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(2))
    tokens, likelihoods, *_ = sampler.choose(logits, [0, 1], torch.ones(2, dtype=torch.int64))
    assert likelihoods is not None
    torch.testing.assert_close(likelihoods[0], logits[0].log_softmax(dim=0)[tokens[0]])


def test_scores_that_are_no_numbers_choose_a_token_of_the_vocabulary():
    sampler = Sampler(1, VOCAB, torch.device("cpu"))
    sampler.begin(0, Sampling(presence_penalty=1), 7, [3])
    chosen = sampler.choose(torch.full((1, VOCAB), torch.nan), [0], torch.ones(1, dtype=torch.int64))
    assert 0 <= int(chosen.tokens) < VOCAB


def test_temperature_zero_is_greedy():
    assert Sampling(temperature=0).is_greedy
    with pytest.raises(RecipeError, match="temperature 0"):
        Generation(temperature=0)


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_k": -1},
        {"min_p": 1.1},
        {"repetition_penalty": 0},
        {"frequency_penalty": float("inf")},
        {"presence_penalty": float("nan")},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(RecipeError, match=next(iter(bad))):
        Sampling(**bad)
