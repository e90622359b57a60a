"""Perplexity and bits per byte of any text file."""

import json
import lzma
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tiny_releases import QWEN3, RELEASES, awake, tokenizer
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from lilliput.base.errors import DataError
from lilliput.evals import perplexity as text
from lilliput.evals.hf_model import HFModel
from lilliput.evals.perplexity import measure_text
from lilliput.evals.progress import Progress
from lilliput.publish.export import Generation, export
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.tokenizer.bpe import END, END_ID

TEXTS = [f"The {word} fox and {number} geese, café." for number, word in enumerate("old new red sly shy odd".split())]


def released(folder: Path, *, uniform: bool = False) -> Path:
    folder.mkdir()
    spec = replace(QWEN3, tie_embeddings=False) if uniform else RELEASES["qwen3"][0]
    model = awake(spec)
    if uniform:
        with torch.no_grad():
            model.head_weight.zero_()
    layout, generation = Qwen3Format(context=64), Generation()
    export(model, tokenizer(), folder, layout=layout, dtype="F32", generation=generation, chat_template=None)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("text") / "model")


def rows(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    return path


def measured(model: Path, path: Path, **settings: int) -> dict[str, float]:
    return {score.metric: score.value for score in measure_text(model, path, **settings).scores}


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large(tmp_path: Path) -> None:
    model, path = released(tmp_path / "uniform", uniform=True), rows(tmp_path / "texts.jsonl", TEXTS)
    found = measured(model, path)
    tokens = sum(len(tokenizer().encode(one).ids) for one in TEXTS)
    size, words = sum(len(one.encode()) for one in TEXTS), sum(len(one.split()) for one in TEXTS)
    assert found["byte_perplexity"] ** (size / tokens) == pytest.approx(QWEN3.vocab, rel=1e-5)
    assert found["word_perplexity"] ** (words / tokens) == pytest.approx(QWEN3.vocab, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(tokens * math.log2(QWEN3.vocab) / size, rel=1e-6)


def test_scores_come_with_errors_and_the_name_of_the_file(model: Path, tmp_path: Path) -> None:
    found = measure_text(model, rows(tmp_path / "texts.jsonl", TEXTS)).scores
    assert [score.metric for score in found] == ["bits_per_byte", "byte_perplexity", "word_perplexity"]
    assert all(score.stderr > 0 and score.items == 6 and score.task == "texts.jsonl" for score in found)
    assert not any(score.higher_is_better for score in found)
    assert 2 ** found[0].value == pytest.approx(found[1].value)


def test_compressed_rows_and_a_limit_are_read_as_documents(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl.xz"
    path.write_bytes(lzma.compress(rows(tmp_path / "all.jsonl", TEXTS).read_bytes()))
    first = rows(tmp_path / "first.jsonl", TEXTS[:3])
    assert measured(model, path, limit=3) == measured(model, first)


def test_rows_have_their_texts_in_any_column(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"story": text, "text": "x"}) + "\n" for text in TEXTS))
    named = measure_text(model, other, column="story").plain()["scores"]
    texts = measure_text(model, rows(tmp_path / "texts.jsonl", TEXTS)).plain()["scores"]
    assert [score["value"] for score in named] == [score["value"] for score in texts]
    with pytest.raises(DataError, match="tale"):
        measure_text(model, other, column="tale")
    (tmp_path / "plain.txt").write_text("some words")
    with pytest.raises(DataError, match="no columns"):
        measure_text(model, tmp_path / "plain.txt", column="story")


def test_plain_text_is_cut_where_lines_end(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    halves = ["\n".join(TEXTS[:3]) + "\n", "\n".join(TEXTS[3:])]
    assert measured(model, path) == measured(model, rows(tmp_path / "halves.jsonl", halves))
    monkeypatch.setattr(text, "PIECE", 1)
    ends = [f"{one}\n" for one in TEXTS[:-1]] + TEXTS[-1:]
    assert measured(model, path) == measured(model, rows(tmp_path / "ends.jsonl", ends))


def test_one_line_is_cut_between_words_and_one_word_is_too_little(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text(TEXTS[0])
    assert measure_text(model, path).scores[0].items == 2
    path.write_text("word")
    with pytest.raises(DataError, match="holds 1 documents"):
        measure_text(model, path)
    with pytest.raises(DataError, match="is not a file"):
        measure_text(model, tmp_path)


def test_progress_ends_at_its_total_though_equal_windows_share_a_row(model: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    measure_text(model, rows(tmp_path / "texts.jsonl", [*TEXTS, "\n", "\n", " " * 400]), watcher=seen.append)
    assert seen[-1].rows == seen[-1].total < 6 + 2 + math.ceil(400 / 64) + 6


def test_a_tokenizer_that_adds_a_beginning_is_not_charged_for_it(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    encoder = Tokenizer.from_file(str(other / "tokenizer.json"))
    encoder.post_processor = TemplateProcessing(single=f"{END} $A", special_tokens=[(END, END_ID)])
    encoder.save(str(other / "tokenizer.json"))
    path = rows(tmp_path / "texts.jsonl", TEXTS)
    assert measured(other, path) == measured(model, path)


def test_records_name_every_document_longest_first(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    found = measure_text(model, rows(tmp_path / "texts.jsonl", TEXTS), records=path).scores
    records = [json.loads(line) for line in path.read_text().splitlines()]
    total = sum(record["log_likelihoods"][0] for record in records)
    size = sum(record["bits_per_byte"][1] for record in records)
    assert size == sum(len(one.encode()) for one in TEXTS)
    assert found[0].value == pytest.approx(-total / size / math.log(2))


@pytest.mark.parametrize("begins", [False, True])
def test_a_long_text_has_the_ids_that_transformers_gives(model: Path, tmp_path: Path, begins: bool) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    if begins:
        changed = Tokenizer.from_file(str(folder / "tokenizer.json"))
        changed.post_processor = TemplateProcessing(single=f"{END} $A", special_tokens=[(END, END_ID)])
        changed.save(str(folder / "tokenizer.json"))
    settings = {"device": "cpu", "dtype": "float32", "batch_size": 1}
    likelihoods = HFModel(folder, **settings, trust_remote_code=False, watcher=None)
    for long in (" ".join(TEXTS) * 100, " " * 20_000 + END, END + "x" * 20_000):
        assert likelihoods.tok_encode(long) == HFLM.tok_encode(likelihoods, long)
        whole = HFLM.tok_encode(likelihoods, long, add_special_tokens=False)
        assert likelihoods.tok_encode(long, add_special_tokens=False) == whole
