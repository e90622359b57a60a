"""Documents ranked by perplexity, by byte and by token; in windows where they are long."""

import math

import pytest
import tiny
import torch

from lilliput.generate.rank import rank_documents


@pytest.fixture(scope="module")
def model():
    return tiny.GQA_SPEC.build(seed=3).eval()


def nats(model, ids, before):
    """By hand: the surprise of each token after the one before it and all since."""
    with torch.inference_mode():
        logits = model(torch.tensor([[before, *ids[:-1]]]))[0]
    return float(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(ids), reduction="sum"))


def test_documents_come_by_bits_per_byte_with_both_figures(model):
    documents = [([5, 9, 12, 7], 40), ([3, 3, 8], 4), ([11, 2], 6)]
    ranked = rank_documents(model, documents, window=16, end_id=0)
    assert sorted(one.index for one in ranked) == [0, 1, 2]
    assert [one.bits_per_byte for one in ranked] == sorted(one.bits_per_byte for one in ranked)
    assert ranked[0].index == 0, "forty bytes of four tokens"
    for one in ranked:
        ids, size = documents[one.index]
        expected = nats(model, ids, 0)
        assert one.bits_per_byte == pytest.approx(expected / math.log(2) / size, rel=1e-4)
        assert one.perplexity == pytest.approx(math.exp(expected / len(ids)), rel=1e-4)
        assert (one.tokens, one.bytes) == (len(ids), size)


def test_a_long_document_is_read_in_windows_each_led_by_the_token_before(model):
    ids = [5, 9, 12, 7, 3, 3, 8, 11, 2, 6]
    (one,) = rank_documents(model, [(ids, 20)], window=4, end_id=0)
    windows = ((ids[:4], 0), (ids[4:8], ids[3]), (ids[8:], ids[7]))
    assert -one.log_likelihood == pytest.approx(sum(nats(model, part, before) for part, before in windows), rel=1e-4)
