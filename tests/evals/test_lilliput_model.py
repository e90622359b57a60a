"""Lilliput's own forward pass answers every request as lm-evaluation-harness's Hugging Face model does."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny_releases import RELEASES, awake, offline, tokenizer  # noqa: F401
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from lilliput.base.errors import DataError
from lilliput.base.files import write_json
from lilliput.evals.hf_model import HFModel
from lilliput.evals.lilliput_model import LilliputModel
from lilliput.evals.load_tasks import compiled_once
from lilliput.evals.progress import Progress
from lilliput.evals.request_tokens import RequestTokenizer
from lilliput.evals.suites import ARITHMARK2, ARITHMARK3, PIQA, TaskUse
from lilliput.generate.log_likelihood import POSITIONS
from lilliput.model import LanguageModel
from lilliput.publish.export import GENERATION_FILE, RELEASE_FILE, Generation, export
from lilliput.publish.load import load
from lilliput.run.native import native
from lilliput.tokenizer.bpe import END, END_ID
from lilliput.tokenizer.encoder import Encoder

pytestmark = pytest.mark.usefixtures("offline")

WINDOW = 64
MANY = 198
"""Requests of which more than two batches of 64 rows are full."""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
WORDS = "the quick brown fox jumps over a lazy dog café “mat” 12 geese".split()


def released(folder: Path, name: str) -> Path:
    spec, layout = RELEASES[name]
    export(
        awake(spec),
        tokenizer(),
        folder,
        layout=replace(layout, context=WINDOW),
        dtype="F32",
        generation=Generation(repetition_penalty=1.2),
        chat_template=None,
    )
    return folder


@pytest.fixture(params=["qwen3", "hgrn2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return released(tmp_path / "model", request.param)


def ours(folder: Path, **settings: Any) -> LilliputModel:
    asked = {"device": "cpu", "dtype": "float32", "batch_size": None, "watcher": None} | settings
    model = LilliputModel(native(load(folder), folder), **asked)
    model.begin(PIQA)
    return model


def theirs(folder: Path, batch_size: int = 4) -> Any:
    wrapper: Any = HFLM
    return wrapper(
        str(folder),
        dtype="float32",
        softmax_dtype="float32",
        device="cpu",
        batch_size=batch_size,
        trust_remote_code=True,
        prefix_token_id=END_ID,
    )


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=index)  # type: ignore[arg-type]
        for index, one in enumerate(arguments)
    ]


def said(draw: random.Random, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def questions(count: int) -> list[tuple[str, str]]:
    """Six choices of each of some questions: three phrases, then three letters."""
    draw = random.Random(0)
    pairs: list[tuple[str, str]] = []
    for _ in range(count):
        context = f"Question: {said(draw, 4)}?\nAnswer:"
        pairs += [(context, f" {said(draw, 3)}") for _ in range(3)] + [(context, letter) for letter in "ABC"]
    return pairs


def decisions(totals: list[float]) -> list[int]:
    """The likeliest of every three choices."""
    return [max(range(start, start + 3), key=totals.__getitem__) for start in range(0, len(totals), 3)]


def choices() -> list[Instance]:
    draw, pairs = random.Random(2), questions(6)
    pairs += [
        ("", "a continuation of nothing"),
        ("", END + "that begins as documents do"),
        ("trailing spaces  ", "belong to what follows"),
        (said(draw, 40) * 3, " a context longer than the window"),
        ("the", " fox " * 9),
        pairs[0],
    ]
    return asked("loglikelihood", *pairs)


def test_choices_are_as_likely_as_in_transformers(folder: Path) -> None:
    requests = choices()
    expected, found = theirs(folder).loglikelihood(requests), ours(folder).loglikelihood(requests)
    for (total, greedy), (other, best) in zip(found, expected, strict=True):
        assert total == pytest.approx(other, abs=1e-4) and greedy == best


@pytest.mark.parametrize("device", DEVICES)
def test_decisions_are_the_same_at_any_batch_size(folder: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    embed = LanguageModel.embed

    def counted(self: LanguageModel, tokens: torch.Tensor) -> torch.Tensor:
        rows.append(len(tokens))
        return embed(self, tokens)

    monkeypatch.setattr(LanguageModel, "embed", counted)  # with which every pass begins
    monkeypatch.setitem(POSITIONS, "cpu", POSITIONS["cuda"])  # so that rows are what limits a batch
    requests = asked("loglikelihood", *questions(MANY // 6))
    expected = decisions([total for total, _ in ours(folder, device=device).loglikelihood(requests)])
    for size in (1, 2, 7, 64):
        rows.clear()
        found = ours(folder, device=device, batch_size=size).loglikelihood(requests)
        assert max(rows) == size and len(rows) > 1
        assert decisions([total for total, _ in found]) == expected
    assert {choice % 3 for choice in expected} == {0, 1, 2}


@torch.inference_mode()
def totals_of_batches(
    folder: Path, pairs: list[tuple[list[int], list[int]]], side: str, size: int, device: str
) -> list[float]:
    """Log-likelihoods that the published model gives in padded batches, in nats."""
    published = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    published.eval().to(device)
    totals = []
    for start in range(0, len(pairs), size):
        texts = [torch.tensor([*context, *rest], device=device) for context, rest in pairs[start : start + size]]
        how: dict[str, Any] = {"batch_first": True, "padding_side": side}
        tokens = pad_sequence(texts, padding_value=END_ID, **how)
        mask = pad_sequence([torch.ones_like(text) for text in texts], **how)
        assert len(tokens) == size or start + size > len(pairs), "all batches but the last are full"
        logs = published(input_ids=tokens, attention_mask=mask).logits.log_softmax(-1).cpu()
        for row, text, (_, rest) in zip(logs, texts, pairs[start : start + size], strict=True):
            end = len(row) if side == "left" else len(text)
            totals.append(sum(float(row[end - place - 1, rest[-place]]) for place in range(1, len(rest) + 1)))
    return totals


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_decisions_are_those_of_the_published_model_in_padded_batches(folder: Path, side: str, device: str) -> None:
    requests = asked("loglikelihood", *questions(MANY // 6))
    mine = [total for total, _ in ours(folder, device=device).loglikelihood(requests)]
    tokenizer = RequestTokenizer(native(load(folder), folder))
    pairs = [(list(head), list(tail)) for head, tail in tokenizer.pairs([one.args for one in requests], "joined")]
    assert len(pairs) >= 2 * 64
    for size in (1, 5, 64):
        found = totals_of_batches(folder, pairs, side, size, device)
        assert found == pytest.approx(mine, abs=1e-4 if device == "cpu" else 1e-3)
        assert decisions(found) == decisions(mine)


@pytest.mark.parametrize("use", [ARITHMARK2, ARITHMARK3], ids=["summed", "mean"])
def test_choices_that_are_encoded_apart(folder: Path, use: TaskUse) -> None:
    requests = asked("loglikelihood", ("1 + 2 =", " 3"), ("1 + 2 =", " 31"), ("5 - 4 =", " 1"), ("", " 1"))
    reference = HFModel(folder, device="cpu", dtype="float32", batch_size=2, trust_remote_code=True, watcher=None)
    model = ours(folder)
    for one in (model, reference):
        one.begin(use)
    expected = reference.loglikelihood(requests)
    assert [total for total, _ in model.loglikelihood(requests)] == pytest.approx(
        [total for total, _ in expected], abs=1e-4
    )


def test_texts_are_measured_in_windows(folder: Path) -> None:
    draw = random.Random(1)
    requests = asked("loglikelihood_rolling", *((said(draw, most),) for most in (3, 30, 90)), ("fox",))
    reference = theirs(folder)
    assert ours(folder).loglikelihood_rolling(requests) == pytest.approx(
        reference.loglikelihood_rolling(requests), abs=1e-3
    )


@pytest.mark.parametrize("penalty", [None, 1.3], ids=["released", "saved-by-others"])
def test_texts_are_written_until_a_stop_string(tmp_path: Path, penalty: float | None) -> None:
    folder = released(tmp_path / "model", "qwen3")
    if penalty is not None:
        (folder / RELEASE_FILE).unlink()
        write_json(folder / GENERATION_FILE, {"repetition_penalty": penalty, "eos_token_id": END_ID})
    free = [(f"the quick {word}", {"until": [], "max_gen_toks": 12}) for word in WORDS[:4]]
    reference, model = theirs(folder, batch_size=1), ours(folder, batch_size=3)
    written = reference.generate_until(asked("generate_until", *free))
    assert model.generate_until(asked("generate_until", *free)) == written
    stopping = [
        (context, {"until": [text[4:6]], "max_gen_toks": 12, "do_sample": False})
        for (context, _), text in zip(free, written, strict=True)
    ]
    stopped = model.generate_until(asked("generate_until", *stopping))
    assert stopped == reference.generate_until(asked("generate_until", *stopping))
    assert all(len(short) < len(text) for short, text in zip(stopped, written, strict=True))
    with pytest.raises(DataError, match="leave no room"):
        model.generate_until(asked("generate_until", ("the", {"until": [], "max_gen_toks": WINDOW})))


def test_a_context_is_encoded_once_for_its_choices(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    stream = Encoder.stream

    def counted(self: Encoder, texts: Any, **settings: Any) -> Any:
        encoded.extend(texts := list(texts))
        return stream(self, texts, **settings)

    tokenizer = RequestTokenizer(native(load(folder), folder))
    pairs = [("the quick brown", f" {word}") for word in ("fox", "dog")]
    pairs += [("the quick brown", "er fox"), ("the fox ", "jumps"), ("the fox ", " jumps"), ("", "the fox")]
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    monkeypatch.setattr(Encoder, "stream", counted)
    for (context, rest), (head, tail) in zip(pairs, tokenizer.pairs(pairs, "joined"), strict=True):
        if context:
            assert [*head, *tail] == plain.encode(context + rest).ids and list(head) == plain.encode(
                context.strip()
            ).ids
    assert encoded.count("the quick brown") == 1 and "the quick brown fox" not in encoded
    assert "the quick browner fox" in encoded, "the last word of the context is another one there"


@pytest.mark.parametrize("is_ours", [True, False], ids=["released", "saved-by-others"])
def test_a_tokenizer_that_begins_texts(tmp_path: Path, is_ours: bool) -> None:
    folder = released(tmp_path / "model", "qwen3")
    changed = Tokenizer.from_file(str(folder / "tokenizer.json"))
    changed.post_processor = TemplateProcessing(single=f"{END} $A", special_tokens=[(END, END_ID)])
    loaded = load(folder)
    changed.save(str(folder / "tokenizer.json"))
    if not is_ours:
        (folder / RELEASE_FILE).unlink()
        loaded = load(folder)
    model = native(replace(loaded, tokenizer=changed), folder)
    likely = LilliputModel(model, device="cpu", dtype="float32", batch_size=None, watcher=None)
    likely.begin(PIQA)
    requests = choices()
    for (total, greedy), (other, best) in zip(
        likely.loglikelihood(requests), theirs(folder).loglikelihood(requests), strict=True
    ):
        assert total == pytest.approx(other, abs=1e-4) and greedy == best


def test_choices_beyond_the_window_and_without_tokens_are_refused(folder: Path) -> None:
    model = ours(folder)
    with pytest.raises(DataError, match=f"the model's window {WINDOW}"):
        model.loglikelihood(asked("loglikelihood", ("the", " fox" * 80)))
    with pytest.raises(DataError, match="a choice has no tokens"):
        model.loglikelihood(asked("loglikelihood", ("the", "")))


def test_progress_counts_rows(folder: Path) -> None:
    seen: list[Progress] = []
    requests = asked("loglikelihood", *(("the fox", f" {letter}") for letter in "ab"), ("the dog", " a b"))
    ours(folder, watcher=seen.append, batch_size=1).loglikelihood(requests)
    assert [(one.rows, one.total) for one in seen][-1] == (seen[-1].total, seen[-1].total)
    assert seen[-1].task == PIQA.display and len(seen) > 1


def test_templates_are_compiled_once_and_rendered_for_every_question(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.utils

    compiled: list[str] = []
    environment: Any = lm_eval.utils.env
    compile_template = type(environment).compile

    def counted(self: Any, source: str, *names: Any, **settings: Any) -> Any:
        compiled.append(source)
        return compile_template(self, source, *names, **settings)

    monkeypatch.setattr(type(environment), "compile", counted)
    with compiled_once():
        texts = [lm_eval.utils.apply_template("{{a}}!", {"a": number}) for number in range(3)]
    assert texts == ["0!", "1!", "2!"] and compiled == ["{{a}}!"]
    assert lm_eval.utils.apply_template("{{a}}!", {"a": 4}) == "4!" and len(compiled) == 2
