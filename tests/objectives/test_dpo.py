"""DPO: its loss and gradients against the formula of the paper in fp64, and what is told of a step."""

import copy
import math
from dataclasses import replace

import pytest
import tiny
import torch
from tiny_releases import RELEASES, awake, hugging_face, offline, tokenizer

from lilliput.base.errors import RecipeError
from lilliput.data.batch import Batch
from lilliput.data.pair_rows import REFERENCE
from lilliput.objectives.answers import answers_of, count_pairs, hidden_states
from lilliput.objectives.dpo import DPO
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import Alarm
from lilliput.ops.softcap import softcap
from lilliput.train.alarms import FEWEST, AlarmWatch
from lilliput.train.trainable import Trainable

assert offline  # a fixture
SIZES = (((9, 4), (9, 7)), ((12, 6), (12, 3)))
"""Tokens and targets of both documents of the pairs of the first row; the second row has the first pair alone."""


def batch_of(vocab, length=72):
    draw = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, vocab, (2, length), generator=draw)
    weight, documents = torch.zeros(2, length), torch.zeros(2, length, dtype=torch.int32)
    for row, pairs in enumerate((SIZES, SIZES[:1])):
        at = 0
        for number, (prompt, answer) in enumerate(side for pair in pairs for side in pair):
            weight[row, at + prompt : at + prompt + answer] = 1
            documents[row, at : at + prompt + answer + 1] = number
            at += prompt + answer + 1
        documents[row, at:] = 2 * len(pairs)
    return Batch(tokens=tokens, weight=weight, document_ids=documents)


def model_of(spec=tiny.GQA_SPEC, seed=0, **changes):
    return replace(spec, **changes).build(seed=seed).double()


def with_reference(batch, reference):
    return replace(batch, extras={REFERENCE: reference.float()})


def log_probabilities(model, batch):
    """Each document by itself, in plain PyTorch: [B, P, 2], zeros for empty places."""
    found = []
    for tokens, weight, documents in zip(batch.tokens, batch.weight, batch.document_ids, strict=True):
        row = []
        for number in range(2 * len(SIZES)):
            place = documents == number
            if not weight[place].any():
                row.append(torch.zeros((), dtype=torch.float64))
                continue
            logits = model(tokens[place][None])[0, :-1].log_softmax(-1)
            row.append((logits.gather(1, tokens[place][1:, None])[:, 0] * weight[place][1:]).sum())
        found.append(torch.stack(row).unflatten(0, (-1, 2)))
    return torch.stack(found)


def losses_of(spec, model, batch):
    module = Trainable.of_phase(model, [spec], seed=0).objective(0)
    return module(batch, spec.denominator(batch), 0, torch.tensor(0.0), Noise("cpu").begin_step(1, 1))


@pytest.mark.parametrize("name", ["gqa", "hgrn2", "options"])
@pytest.mark.parametrize("sft_weight", [0.0, 0.3])
def test_loss_and_gradients_are_those_of_the_paper(name, sft_weight):
    model, other = model_of(tiny.SPECS[name]), model_of(tiny.SPECS[name], seed=1)
    batch = batch_of(tiny.VOCAB)
    with torch.no_grad():
        reference = log_probabilities(other, batch).float()
    spec, lengths = DPO(beta=0.2, sft_weight=sft_weight), torch.tensor([[4.0, 6.0], [4.0, 1.0]])
    found = losses_of(spec, model, with_reference(batch, reference))
    found.loss.backward()
    plain = copy.deepcopy(model)
    plain.zero_grad()
    now = log_probabilities(plain, batch)
    gained = now - reference
    is_pair = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    margin = 0.2 * (gained[..., 0] - gained[..., 1])
    expected = ((-torch.nn.functional.logsigmoid(margin) - sft_weight * now[..., 0] / lengths) * is_pair).sum() / 3
    expected.backward()
    now, margin = now.detach(), margin.detach()
    assert float(found.loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
    for one, two in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-7)
    assert found.terms["rewards/accuracies"] == pytest.approx(float(((margin > 0) * is_pair).sum() / 3))
    assert found.terms["rewards/margins"] == pytest.approx(float((margin * is_pair).sum() / 3), abs=1e-6)
    assert found.terms["logps/chosen"] == pytest.approx(float((now[..., 0] * is_pair).sum() / 3), rel=1e-6)
    longer = torch.tensor([[3.0, -3.0], [3.0, 0.0]])
    assert found.terms["length_drift"] == pytest.approx(float((longer * (margin < 0)).sum() / 3), abs=1e-6)


def test_at_the_reference_the_loss_is_ln_2_and_the_gradients_of_both_log_probabilities_are_opposite():
    model, batch, beta = model_of(), batch_of(tiny.VOCAB), 0.5
    now = log_probabilities(model, batch)
    found = losses_of(DPO(beta=beta), model, with_reference(batch, now.detach()))
    assert float(found.loss.detach()) == pytest.approx(math.log(2), abs=1e-6)
    assert found.terms["rewards/margins"] == pytest.approx(0, abs=1e-5)
    found.loss.backward()
    plain = copy.deepcopy(model)
    plain.zero_grad()
    now = log_probabilities(plain, batch)
    # d loss / d log p is -beta / 2 of a chosen answer and beta / 2 of a rejected one, of each of three pairs.
    (-beta / 2 * now[..., 0] + beta / 2 * now[..., 1]).sum().div(3).backward()
    for one, two in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-8)


def test_answers_are_summed_with_their_closing_token():
    model, batch = model_of(logit_softcap=4.0), batch_of(tiny.VOCAB)
    answers = answers_of(model, hidden_states(model, batch), batch, pairs=2)
    torch.testing.assert_close(answers.log_probabilities, log_probabilities(model, batch), rtol=1e-6, atol=1e-6)
    assert answers.lengths.tolist() == [[[4, 7], [6, 3]], [[4, 7], [0, 0]]]
    assert answers.is_pair.tolist() == [[True, True], [True, False]] and count_pairs(batch) == 3
    last = torch.log_softmax(softcap(torch.zeros(1), 1.0), -1)
    assert (answers.closing[0] < last).all() and (answers.closing[0] >= answers.log_probabilities[0]).all()


def test_the_step_is_the_same_in_other_micro_batches():
    model, batch = model_of(), batch_of(tiny.VOCAB)
    reference = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0)) - 30
    whole, spec = with_reference(batch, reference), DPO()
    parts = [whole.map(lambda one, row=row: one[row : row + 1]) for row in (0, 1)]
    module = Trainable.of_phase(model, [spec], seed=0).objective(0)

    def losses(part):
        return module(part, spec.denominator(whole), 0, torch.tensor(0.0), Noise("cpu").begin_step(1, 1))

    assert sum(spec.denominator(part) for part in parts) == spec.denominator(whole) == 3
    assert float(losses(whole).loss.detach()) == pytest.approx(
        sum(float(losses(part).loss.detach()) for part in parts), abs=1e-7
    )
    held = module.evaluate(whole)
    assert float(held[0]) / float(held[1]) == pytest.approx(float(losses(whole).terms["dpo"]), abs=1e-6)


def test_rows_without_a_reference_and_bad_settings_are_refused():
    batch = batch_of(tiny.VOCAB)
    with pytest.raises(RecipeError, match="do not have the reference's log-probabilities"):
        losses_of(DPO(), model_of(), batch)
    with pytest.raises(RecipeError, match="beta cannot be 0"):
        DPO(beta=0)
    with pytest.raises(RecipeError, match="sft_weight"):
        DPO(sft_weight=-1)


def test_an_alarm_is_told_where_a_mean_is_beyond_its_limit_and_again_where_it_is_twice_as_far():
    class Watched:
        alarms = (Alarm(number="change", below=-1.0, says="lost {amount:.1f}"), Alarm(number="l", above=2.0, says="l"))

    watch = AlarmWatch([Watched(), Watched(), DPO()])
    said = [line for _ in range(FEWEST + 40) for line in watch.see({"change": -1.5, "l": 1.0, "dpo": 0.6})]
    assert said == ["lost 1.5"]
    said = [line for step in range(200) for line in watch.see({"change": -1.5 - step / 10, "l": math.nan})]
    assert 2 <= len(said) <= 5 and said[0].startswith("lost 2.")


def examples(batch):
    """The pairs of a batch as TRL's collator takes them."""
    for row, pairs in enumerate((SIZES, SIZES[:1])):
        for number in range(len(pairs)):
            sides = {}
            for name, document in (("chosen", 2 * number), ("rejected", 2 * number + 1)):
                place = batch.document_ids[row] == document
                tokens, weight = batch.tokens[row][place], batch.weight[row][place] > 0
                first = int(weight.nonzero()[0])
                sides["prompt_ids"] = tokens[:first].tolist()
                sides[f"{name}_ids"] = tokens[weight].tolist()
            yield sides


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("offline")
def test_the_loss_and_its_gradient_are_those_of_trl(tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    spec, layout = RELEASES["qwen3"]
    model, before = awake(spec), awake(spec, seed=1)
    batch = batch_of(spec.vocab)
    for document in (1, 3):  # both sides of a pair have one prompt
        for row in (0, 1):
            one, other = (batch.document_ids[row] == number for number in (document - 1, document))
            size = SIZES[document // 2][0][0]
            if other.any() and batch.weight[row][other].any():
                batch.tokens[row, other.nonzero()[:size, 0]] = batch.tokens[row, one.nonzero()[:size, 0]]

    def exported(native):
        found = hugging_face(layout, spec)
        stored = {name: native.get_parameter(own).detach() for own, name in layout.names(spec).items()}
        assert not found.load_state_dict(stored, strict=False).unexpected_keys
        found.tie_weights()
        return found

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    settings = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_dropout=True,
        max_length=None,
    )
    trainer = trl.DPOTrainer(
        model=exported(model),
        ref_model=exported(before),
        args=settings,
        processing_class=fast,
        train_dataset=Dataset.from_list([{"prompt": "the", "chosen": " fox", "rejected": " dog"}]),
    )
    trainer.model.train()
    inputs = trainer.data_collator(list(examples(batch)))
    theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()
    with torch.no_grad():
        reference = answers_of(before, hidden_states(before, batch), batch, pairs=2).log_probabilities
    ours = losses_of(DPO(beta=0.3), model, with_reference(batch, reference))
    ours.loss.backward()
    assert float(ours.loss.detach()) == pytest.approx(float(theirs.detach()), abs=1e-4)
    theirs_of, compared = dict(trainer.model.named_parameters()), 0
    for native, name in layout.names(spec).items():
        compared += name in theirs_of
        if name in theirs_of:
            torch.testing.assert_close(model.get_parameter(native).grad, theirs_of[name].grad, rtol=1e-3, atol=1e-5)
    assert compared > 10
