"""Replies are judged as greedy decoding and log-likelihoods, one text at a time and without a cache, say."""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lilliput.base.errors import ExportError
from lilliput.evals.chat import ENDS, PREFERS, NothingToJudge, judge_replies
from lilliput.evals.score import Score
from lilliput.publish.load import load
from lilliput.tokenizer.bpe import BPE, save_tokenizer
from lilliput.tokenizer.chatml import MESSAGE_END, add_chatml, render

MOST = 20
ANIMALS = ("hen", "fox", "owl", "ant", "cow", "bee", "pig", "cat")
FOODS = ("corn", "eggs", "mice", "crumbs of old bread", "grass", "sugar", "peels", "fish")
CONVERSATIONS = [
    (f"What does {'the ' * (index % 3)}{animal} eat?", f"It eats {food}.")
    for index, (animal, food) in enumerate(zip(ANIMALS, FOODS, strict=True))
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more to waiting for a second core than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model taught half of the answers with their end, and half to go on for ever."""
    folder = tmp_path_factory.mktemp("instruct")
    tokenizer = add_chatml(BPE(vocab=300).train([f"{question} {answer}" for question, answer in CONVERSATIONS]))
    save_tokenizer(tokenizer, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=302,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=96,
        bos_token_id=0,
        eos_token_id=[0, 301],
    )
    model = LlamaForCausalLM(config)
    rows = []
    for index, (question, answer) in enumerate(CONVERSATIONS):
        endless = answer[:-1] + " and more" * 12
        turns = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": endless if index % 2 else answer},
        ]
        rows.append(torch.tensor(tokenizer.encode(render(turns)).ids[:56]))
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model(ids.clamp(min=0), labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.generation_config.repetition_penalty = 1.05
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.7
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scores(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Score]:
    return judge_replies(load(folder), CONVERSATIONS, max_new_tokens=MOST)


class ByHand:
    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.end = self.tokenizer.convert_tokens_to_ids(MESSAGE_END)

    def prompt(self, question: str) -> list[int]:
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        return self.tokenizer.encode(text, add_special_tokens=False)

    def logits(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0].double()

    def ends(self, question: str, penalty: float = 1.05) -> bool:
        ids = self.prompt(question)
        for _ in range(MOST):
            logits = self.logits(ids)[-1]
            for token in set(ids):
                logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
            ids.append(int(logits.argmax()))
            if ids[-1] in (0, self.end):
                return ids[-1] == self.end
        return False

    def mean(self, question: str, answer: str) -> tuple[float, float]:
        """Mean and sum of the answer's log-likelihood, its end included."""
        prompt = self.prompt(question)
        ids = [*prompt, *self.tokenizer.encode(answer, add_special_tokens=False), self.end]
        log_probabilities = self.logits(ids[:-1]).log_softmax(-1)
        total = sum(log_probabilities[index - 1, ids[index]].item() for index in range(len(prompt), len(ids)))
        return total / (len(ids) - len(prompt)), total


@pytest.fixture(scope="module")
def by_hand(folder: Path) -> ByHand:
    return ByHand(folder)


def test_replies_that_end_are_those_of_plain_greedy_decoding(scores: list[Score], by_hand: ByHand) -> None:
    expected = [by_hand.ends(question) for question, _ in CONVERSATIONS]
    assert 0 < sum(expected) < len(expected)
    share = sum(expected) / len(expected)
    score = scores[0]
    assert (score.metric, score.value, score.items, score.chance) == (ENDS, share, len(expected), None)
    assert score.stderr == pytest.approx(math.sqrt(share * (1 - share) / (len(expected) - 1)))


def test_decoding_uses_the_released_repetition_penalty(
    folder: Path, scores: list[Score], by_hand: ByHand, tmp_path: Path
) -> None:
    penalized = tmp_path / "penalized"
    shutil.copytree(folder, penalized)
    settings = json.loads((penalized / "generation_config.json").read_text()) | {"repetition_penalty": 8.0}
    (penalized / "generation_config.json").write_text(json.dumps(settings))
    expected = [by_hand.ends(question, 8.0) for question, _ in CONVERSATIONS]
    ends = judge_replies(load(penalized), CONVERSATIONS, max_new_tokens=MOST)[0]
    assert ends.value == sum(expected) / len(expected) != scores[0].value


def test_a_right_answer_is_compared_with_another_questions(by_hand: ByHand, folder: Path, tmp_path: Path) -> None:
    # Of two conversations each lends the other its answer, whatever the seed.
    for first in range(0, len(CONVERSATIONS), 2):
        pair = CONVERSATIONS[first : first + 2]
        right = [by_hand.mean(question, answer) for question, answer in pair]
        other = [by_hand.mean(question, answer) for (question, _), (_, answer) in zip(pair, pair[::-1], strict=True)]
        by_mean, by_sum = (sum(a[i] > b[i] for a, b in zip(right, other, strict=True)) / 2 for i in (0, 1))
        score = judge_replies(load(folder), pair, max_new_tokens=MOST, rows=3)[1]
        assert (score.metric, score.value, score.items, score.chance) == (PREFERS, by_mean, 2, 0.5)
        assert f"by summed log-likelihood: {by_sum:.1%}" in score.note


def test_a_taught_model_ends_and_prefers_right_answers(folder: Path, tmp_path: Path) -> None:
    ends, prefers = judge_replies(load(folder), CONVERSATIONS[::2], max_new_tokens=MOST)
    assert (ends.value, prefers.value) == (1.0, 1.0)
    alike = "all 4 are right: 47.3% or more, at 95% confidence"
    assert prefers.note == f"{alike}; within two standard errors of chance; by summed log-likelihood: 100.0%"
    assert ends.note == alike and ends.stderr is prefers.stderr is None
    endless = judge_replies(load(folder), CONVERSATIONS[1::2], max_new_tokens=MOST)[0]
    assert endless.value == 0.0


def test_batches_and_padding_change_nothing(folder: Path, scores: list[Score], tmp_path: Path) -> None:
    alone = judge_replies(load(folder), CONVERSATIONS, max_new_tokens=MOST, rows=1)
    assert alone == scores


def test_the_draw_is_a_function_of_the_seed(folder: Path, tmp_path: Path) -> None:
    def judge(seed: int) -> list[Score]:
        return judge_replies(load(folder), CONVERSATIONS, max_new_tokens=MOST, limit=4, seed=seed)

    assert judge(3) == judge(3)
    assert [score.items for score in judge(3)] == [4, 4]
    assert len({tuple(map(dataclasses.astuple, judge(seed))) for seed in range(6)}) > 1


def test_conversations_that_do_not_fit_take_no_part(folder: Path, scores: list[Score], tmp_path: Path) -> None:
    long_question = ("the fox " * 60, "It eats eggs.")
    long_answer = ("What?", "no " * 30)
    kept = judge_replies(load(folder), [*CONVERSATIONS, long_question, long_answer], max_new_tokens=MOST)
    assert kept[0] == scores[0] and kept[1].items == len(CONVERSATIONS)
    with pytest.raises(NothingToJudge, match="0 of 2 questions fit 96 tokens with a reply of"):
        judge_replies(load(folder), [long_question, long_answer], max_new_tokens=MOST)


def test_equal_answers_are_never_compared(folder: Path, tmp_path: Path) -> None:
    same = [("What does the hen eat?", "It eats corn."), ("What does the ant eat?", "It eats corn.")]
    for alone in (same, same[:1]):
        (ends,) = judge_replies(load(folder), alone, max_new_tokens=MOST)
        assert ends.metric == ENDS and ends.items == len(alone) and "one answer alone" in ends.note
        assert (ends.stderr is None) == (len(alone) == 1)
    assert judge_replies(load(folder), [*same, CONVERSATIONS[4]], max_new_tokens=MOST)[1].items == 3


def test_a_base_model_has_no_replies(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(folder, base)
    config = json.loads((base / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match="no chat template"):
        judge_replies(load(base), CONVERSATIONS)
