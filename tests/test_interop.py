"""Releases in other people's trainers: the Trainer of transformers, TRL's of chats and preferences, LoRA by PEFT."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tiny_releases import RELEASES, VOCAB, awake, offline, rows, tokenizer

from lilliput.data.messages import Message
from lilliput.publish.export import Generation, export
from lilliput.publish.load import load
from lilliput.publish.pretrained import PretrainedModel
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml, encode_messages

__all__ = ["offline"]

# What other libraries warn each other of is no fault here.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

QUESTIONS = ("the fox?", "what of the cat", "the lazy dog\nand", "brown")
ANSWERS = ("jumps over the dog", "on the mat", " the quick\n", "fox 🙂")
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Release:
    """A folder, opened by transformers."""

    folder: Any
    model: Any
    tokenizer: Any


@pytest.fixture(params=("hgrn2-options", "qwen3"))
def release(request, tmp_path, offline):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec, layout = RELEASES[request.param]
    folder = tmp_path / "release"
    folder.mkdir()
    options = {"layout": layout, "dtype": "F32", "generation": Generation(), "chat_template": CHAT_TEMPLATE}
    export(awake(replace(spec, vocab=VOCAB + 2)), add_chatml(tokenizer()), folder, **options)
    return Release(
        folder,
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True),
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True),
    )


def examples(count=6):
    """Rows of one length, each asked for every token."""
    return [{"input_ids": row, "labels": row, "attention_mask": [1] * 20} for row in rows(count, 20).tolist()]


def same(found, expected, rtol=1e-5):
    """Whether two models give the same logits."""
    tokens = rows(2, 20)
    with torch.no_grad():
        logits = [getattr(out, "logits", out) for out in (found.eval()(tokens), expected.eval()(tokens))]
    torch.testing.assert_close(*logits, rtol=0, atol=rtol * logits[1].abs().max().item())


def changed(model, folder):
    """Whether training did anything to what the folder holds."""
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    pairs = zip(before.parameters(), model.parameters(), strict=True)
    return any(not torch.equal(one, other) for one, other in pairs)


def test_the_trainer_trains_evaluates_predicts_and_goes_on(release, tmp_path):
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    def trainer(model, steps):
        arguments = TrainingArguments(tmp_path / "out", max_steps=steps, save_steps=2, **SETTINGS)
        return Trainer(
            model=model,
            args=arguments,
            train_dataset=examples(),
            eval_dataset=examples(3),
            processing_class=release.tokenizer,
        )

    first = trainer(release.model, 4)
    tokens = torch.tensor([example["input_ids"] for example in examples(3)])
    with torch.no_grad():
        losses = [release.model(row[None], labels=row[None]).loss.item() for row in tokens]
    assert first.evaluate()["eval_loss"] == pytest.approx(sum(losses) / 3, rel=1e-4)
    predicted = first.predict(examples(3))
    assert predicted.predictions.shape == (3, 20, VOCAB + 2), "logits alone, and no state of the model"
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(predicted.predictions), release.model(tokens).logits)

    first.train()
    assert changed(first.model, release.folder)
    fresh = AutoModelForCausalLM.from_pretrained(release.folder, trust_remote_code=True)
    second = trainer(fresh, 4)
    second.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    same(load(tmp_path / "out" / "checkpoint-4").model, first.model)


def test_trl_teaches_answers_alone(release, tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    talks = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    arguments = trl.SFTConfig(tmp_path / "out", max_steps=2, assistant_only_loss=True, max_length=64, **SETTINGS)
    trainer = trl.SFTTrainer(
        model=release.model,
        args=arguments,
        train_dataset=Dataset.from_list([{"messages": talk} for talk in talks]),
        processing_class=release.tokenizer,
    )
    assert release.tokenizer.chat_template == trainer.processing_class.chat_template == CHAT_TEMPLATE
    charged = sorted(row[row != -100].tolist() for batch in trainer.get_train_dataloader() for row in batch["labels"])
    assert charged == sorted(answers_of(talk) for talk in talks)
    trainer.train()
    assert changed(trainer.model, release.folder)


def test_rows_without_padding_are_what_each_text_is_by_itself(release, tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    arguments = trl.SFTConfig(tmp_path / "out", max_steps=1, max_length=None, padding_free=True, **SETTINGS)
    texts = Dataset.from_list([{"text": answer} for answer in ANSWERS])
    trainer = trl.SFTTrainer(
        model=release.model, args=arguments, train_dataset=texts, processing_class=release.tokenizer
    )
    batch, model = next(iter(trainer.get_train_dataloader())), release.model.eval()
    assert len(batch["input_ids"]) == 1 and (batch["position_ids"] == 0).sum() > 1
    with torch.no_grad():
        whole = model(**batch).logits[0]
        begins = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
        for begin, end in itertools.pairwise([*begins, len(whole)]):
            alone = model(batch["input_ids"][:, begin:end]).logits[0]
            assert torch.allclose(whole[begin:end], alone, atol=1e-4)
    trainer.train()


def answers_of(talk):
    """The tokens of a conversation that our own training asks for."""
    encoded = encode_messages(add_chatml(tokenizer()), [Message(**message) for message in talk])
    return [token for ids, mask in encoded for token, one in zip(ids, mask, strict=True) if one]


def test_trl_learns_preferences(release, tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    pairs = [
        {
            "prompt": [{"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": answer}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    trainer = trl.DPOTrainer(
        model=release.model,
        ref_model=AutoModelForCausalLM.from_pretrained(release.folder, trust_remote_code=True),
        args=trl.DPOConfig(tmp_path / "out", max_steps=2, max_length=64, **SETTINGS),
        train_dataset=Dataset.from_list(pairs),
        processing_class=release.tokenizer,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logged[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "model and reference are the same at first"
    assert changed(trainer.model, release.folder)


def test_peft_trains_an_adapter_and_merges_it(release, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", lora_alpha=64)
    adapted = peft.get_peft_model(release.model, config)
    arguments = TrainingArguments(tmp_path / "out", max_steps=4, save_strategy="no", **SETTINGS)
    Trainer(model=adapted, args=arguments, train_dataset=examples()).train()
    adapted.save_pretrained(tmp_path / "adapter")

    base = AutoModelForCausalLM.from_pretrained(release.folder, trust_remote_code=True)
    same(peft.PeftModel.from_pretrained(base, tmp_path / "adapter"), adapted)
    merged = adapted.merge_and_unload()
    assert changed(merged, release.folder)
    merged.save_pretrained(tmp_path / "merged")
    release.tokenizer.save_pretrained(tmp_path / "merged")
    same(AutoModelForCausalLM.from_pretrained(tmp_path / "merged", trust_remote_code=True), merged)
    same(load(tmp_path / "merged").model, merged)
    same(PretrainedModel(checkpoint=str(tmp_path / "merged")).build(seed=0), merged)
