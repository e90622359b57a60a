"""Choosing tokens as Hugging Face does, decoding as the full forward pass does, text as the tokenizer does."""

from io import StringIO

import pytest
import tiny
import torch

from lilliput.base.errors import RecipeError
from lilliput.base.terminal import Terminal
from lilliput.generate.chat import converse
from lilliput.generate.decode import stream
from lilliput.generate.sample import Sampling, _narrowed, choose, penalised
from lilliput.generate.talk import write_on
from lilliput.tokenizer.bpe import BPE, END_ID


@pytest.fixture(params=tiny.SPECS)
def model(request):
    return tiny.SPECS[request.param].build(seed=0).eval()


def test_scores_are_those_of_hugging_face():
    from transformers import (
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 50, generator=generator)
    text = torch.randint(0, 50, (3, 12), generator=generator)
    sampling = Sampling(temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.3)
    ours = _narrowed(penalised(scores, text, 1.3) / 0.7, sampling)
    theirs = scores
    for step in (
        RepetitionPenaltyLogitsProcessor(1.3),
        TemperatureLogitsWarper(0.7),
        TopKLogitsWarper(20),
        TopPLogitsWarper(0.8),
    ):
        theirs = step(text, theirs)
    assert torch.allclose(ours, theirs)


def test_greedy_takes_the_likeliest_of_full_forward_passes(model):
    prompt = [5, 17, 42, 5]
    text = list(prompt)
    for _ in range(20):
        text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    written = list(stream(model, prompt, Sampling(greedy=True), stops=(), most=20))
    assert written == text[4:]


def test_a_stop_ends_the_text_and_is_its_last_token(model):
    whole = list(stream(model, [5, 17], Sampling(greedy=True), stops=(), most=20))
    stop = whole[7]
    assert list(stream(model, [5, 17], Sampling(greedy=True), stops={stop}, most=20)) == whole[: whole.index(stop) + 1]


def test_sampling_is_a_function_of_the_seed(model):
    texts = [tuple(stream(model, [5], Sampling(), stops=(), most=12, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_sampling_follows_the_probabilities():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(4000, 3)
    chosen = choose(logits, torch.zeros(4000, 1, dtype=torch.long), Sampling(), torch.Generator().manual_seed(0))
    shares = torch.bincount(chosen, minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"top_p": 0}, {"top_k": -1}, {"repetition_penalty": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(RecipeError, match=next(iter(bad))):
        Sampling(**bad)


def test_text_comes_in_whole_characters(model):
    tokenizer = BPE(vocab=tiny.VOCAB).train([tiny.sentences(n) for n in range(50)])
    pieces = list(write_on(model, tokenizer, tokenizer.encode("plain text").ids, Sampling(), stops={END_ID}, most=60))
    ids = list(stream(model, tokenizer.encode("plain text").ids, Sampling(), stops={END_ID}, most=60))
    ids = ids[: ids.index(END_ID)] if END_ID in ids else ids
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=False)
    assert list(write_on(model, tokenizer, [END_ID], Sampling(), stops=(), most=5)), "an end begins a document"


def test_a_conversation_is_remembered_until_it_begins_anew(monkeypatch):
    console, heard = Terminal(file=StringIO(), width=200), []
    said = iter(["hello", "again", "/new", "other", ""])
    monkeypatch.setattr(console, "input", lambda prompt: next(said))

    def answer(messages, seed):
        heard.append(([message["content"] for message in messages], seed))
        return iter(["I ", "see"])

    converse(answer, console, seed=5)
    assert heard == [(["hello"], 6), (["hello", "I see", "again"], 8), (["other"], 6)]
