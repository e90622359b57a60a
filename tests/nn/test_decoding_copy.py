"""A copy for decoding: it shares weights, leaves the model as it is, and rounds to 8 bits if asked."""

import pytest
import tiny
import torch

from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.nn.decoding_copy import decoding_copy

SPECS = {"gqa": tiny.GQA_SPEC, "odin": tiny.ODIN_SPEC}


@pytest.fixture(params=SPECS)
def model(request):
    return SPECS[request.param].build(seed=1).eval()


def test_a_copy_shares_what_it_does_not_pack_and_leaves_the_model_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens = torch.arange(20)[None]
    expected = model(tokens)
    copied = decoding_copy(model)
    assert copied.embedding.weight is model.embedding.weight
    assert torch.allclose(copied(tokens), expected, atol=1e-5)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("int8", [False, True])
def test_a_copy_of_a_copy_is_that_copy(model, int8):
    copied = decoding_copy(model, int8=int8)
    again = decoding_copy(copied, int8=int8)
    tensors = copied.state_dict()
    assert all(tensors[name].data_ptr() == tensor.data_ptr() for name, tensor in again.state_dict().items())
    assert again.state_dict().keys() == tensors.keys()


def test_8_bits_stay_near_the_weights_and_write(model):
    tokens = torch.randint(tiny.VOCAB, (4, 30), generator=torch.Generator().manual_seed(0))
    exact, rounded = model(tokens).log_softmax(-1), decoding_copy(model, int8=True)(tokens).log_softmax(-1)
    assert (exact - rounded).abs().mean() < 0.02
    engine = Engine(model, rows=2, int8=True)
    request = Request(prompt=tokens[0].tolist(), max_new_tokens=5, sampling=Sampling(greedy=True))
    first, second = ([token for index, token in engine.generate([request, request]) if index == row] for row in (0, 1))
    assert len(first) == 5 and first == second
    assert not {name for name, _ in engine._model.named_parameters() if "norm" not in name and "gate" not in name}
