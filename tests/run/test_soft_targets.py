"""A teacher's predictions: written once for every token, found again wherever it is read, and learned from."""

from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from rich.console import Console
from safetensors.torch import load_file

from lilliput.base.errors import DataError, RecipeError, RunError
from lilliput.base.files import read_json
from lilliput.computations import top_k_predictions
from lilliput.computations.top_k_predictions import TopKPredictions
from lilliput.data.batch import Cursor, document_ids_of
from lilliput.data.mixture import Mixture
from lilliput.data.segmentations import Segmentations
from lilliput.data.shards import Shards
from lilliput.data.soft_targets import PROBABILITIES, TOKENS, SoftTargetFile, record_type
from lilliput.growth.growth import Computed
from lilliput.model import LanguageModel, ModelSpec
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.soft_targets import SoftTargets
from lilliput.plan.count import plan
from lilliput.run import pipeline
from lilliput.tokenizer.bpe import BPE, load_tokenizer, tokenizer_hash
from lilliput.train.machine import Machine
from lilliput.train.phase import Stage

MACHINE = Machine(device="cpu", precision="fp32", threads=1, positions=512)
LENGTH, COUNT = 32, 3
TEACHER = TopKPredictions(name="teacher", corpora=("texts",), length=LENGTH, count=COUNT)
DATA = Mixture(weights={"texts": 1.0}, soft_targets="teacher")
FILE = Path("computed/01-teacher/texts.bin")
WEIGHTS = Path("phases/02-student/final/weights.safetensors")


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """A teacher from elsewhere, for tests."""

    shape: ModelSpec
    tokenizer: str

    def build(self, seed: int) -> LanguageModel:
        return self.shape.build(7)

    def tokenizer_hash(self) -> str:
        return tokenizer_hash(load_tokenizer(Path(self.tokenizer)))


def recipe(folder, teacher=TEACHER, data=DATA):
    stages = (Stage(share=1.0, objective=NextToken(soft=SoftTargets(count=COUNT, until=0.7))),)
    student = replace(tiny.pretraining(steps=8), name="student", data=data, stages=stages)
    timeline = (tiny.pretraining(steps=8), teacher, student)
    return replace(tiny.recipe(folder, tiny.GQA_SPEC), timeline=timeline)


def train(whole, run):
    pipeline.train(whole, run, MACHINE, Console(file=StringIO(), width=200))
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return train(recipe(folder / "data"), folder / "run")


@pytest.fixture(scope="module")
def opened(trained):
    shards = Shards(trained / "shards" / "texts")
    value = read_json(trained / "parts/computed.01-teacher.json")["outputs"]["value"]
    computed = {"teacher": Computed(value=value, folder=trained / FILE.parent)}
    return DATA.with_computed({"texts": shards}, computed), computed


def test_there_is_a_record_for_every_token_and_it_is_what_the_model_predicts(trained, opened):
    shards = opened[0]["texts"]
    stream, model = shards.stream("train"), tiny.GQA_SPEC.build(0)
    model.load_state_dict(load_file(trained / "phases/00-pretrain/final/weights.safetensors"))
    tokens = stream.read(0, len(stream))
    assert (trained / FILE).stat().st_size == len(stream) * record_type(tiny.VOCAB, COUNT).itemsize
    ids, probabilities = shards.soft_targets.take(np.arange(len(stream)))
    assert not probabilities[0].any() and (probabilities[1:, 0] > 0).all()
    for begin in (0, LENGTH, 37 * LENGTH, (len(stream) - 2) // LENGTH * LENGTH):
        row = tokens[begin : begin + LENGTH + 1][None]
        documents = torch.from_numpy(document_ids_of(row, shards.end))[:, :-1]
        with torch.no_grad():
            hidden = model.forward_layers(model.embed(torch.from_numpy(row)[:, :-1, None]), document_ids=documents)
            expected = model.logits(hidden).softmax(dim=-1)[0].topk(COUNT)
        found = slice(begin + 1, begin + row.shape[1])
        assert np.allclose(probabilities[found], expected.values.numpy(), rtol=5e-3)
        assert (ids[found] == expected.indices.numpy()).mean() > 0.95, "but for ties"


@pytest.mark.parametrize("packing", ["stream", "best-fit"])
def test_rows_bring_the_predictions_for_each_token_in_every_pass(opened, packing, tmp_path):
    """Predictions that say where they are: the first is the position, the second the token itself."""
    shards = opened[0]["texts"]
    stream, record = shards.stream("train"), record_type(1 << 20, 2)
    made = np.zeros(len(stream), dtype=record)
    made["tokens"] = np.stack([np.arange(len(stream)), stream.read(0, len(stream))], axis=1)
    (tmp_path / "texts.bin").write_bytes(made.tobytes())
    marked = {"texts": shards.with_soft_targets(SoftTargetFile(tmp_path / "texts.bin", record, len(stream)))}
    reader = replace(DATA, packing=packing).open(marked)
    plain = Mixture(weights={"texts": 1.0}, packing=packing).open({"texts": Shards(shards.folder)})
    rows = 2 * len(stream) // 40 + 7
    batch, after = reader.read(Cursor(), rows, 41)
    same, end = plain.read(Cursor(), rows, 41)
    assert torch.equal(batch.tokens, same.tokens) and after == end and not same.extras
    has_some = batch.extras[PROBABILITIES].sum(dim=-1) > 0
    assert has_some.float().mean() > 0.9
    assert torch.equal(batch.extras[TOKENS][..., 1][has_some].long(), batch.tokens[has_some])
    seen = np.bincount(batch.extras[TOKENS][:, 1:, 0][has_some[:, 1:]].numpy(), minlength=len(stream))
    assert (seen[1:] >= 1).mean() > 0.99, "two passes have every token"
    first, middle = reader.read(Cursor(), 5, 41)
    second, _ = reader.read(middle, 4, 41)
    for name in (TOKENS, PROBABILITIES):
        assert torch.equal(torch.cat([first.extras[name], second.extras[name]]), batch.extras[name][:9])


def test_the_student_learns_from_them(trained, tmp_path):
    plain = recipe(trained.parent / "data")
    plain = replace(plain, timeline=(*plain.timeline[:2], replace(plain.timeline[2], stages=tiny.pretraining().stages)))
    train(plain, tmp_path / "run")
    assert (tmp_path / "run" / FILE).read_bytes() == (trained / FILE).read_bytes()
    assert (tmp_path / "run" / WEIGHTS).read_bytes() != (trained / WEIGHTS).read_bytes()


def test_killed_while_predicting_and_while_learning_it_ends_in_the_same_bits(trained, tmp_path, monkeypatch):
    whole, run = recipe(trained.parent / "data"), tmp_path / "run"
    written = top_k_predictions.SoftTargetWriter.write
    calls = []

    def interrupted(self, *values):
        calls.append(self.count)
        if len(calls) == 4:
            raise KeyboardInterrupt
        written(self, *values)
        self.sync()

    monkeypatch.setattr(top_k_predictions.SoftTargetWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(whole, run)
    with monkeypatch.context() as patch:
        patch.setattr(Mixture, "open", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(whole, run)
    assert calls[4] == calls[3] > calls[1], "it went on where it stood"
    train(whole, run)
    for name in (FILE, WEIGHTS):
        assert (run / name).read_bytes() == (trained / name).read_bytes()


def test_a_teacher_from_elsewhere_predicts_with_its_own_weights(trained, tmp_path):
    shape, tokenizer = replace(tiny.GQA_SPEC, layers=1), str(trained / "tokenizer")
    other = replace(TEACHER, teacher=Untrained(shape=shape, tokenizer=tokenizer))
    run = train(recipe(trained.parent / "data", teacher=other), tmp_path / "run")
    assert (run / FILE).stat().st_size == (trained / FILE).stat().st_size
    assert (run / FILE).read_bytes() != (trained / FILE).read_bytes()


def test_a_teacher_of_another_tokenizer_is_refused(trained, tmp_path):
    BPE(vocab=300, at_most=True).train([tiny.sentences(1)]).save(str(tmp_path / "tokenizer.json"))
    strange = replace(TEACHER, teacher=Untrained(shape=tiny.GQA_SPEC, tokenizer=str(tmp_path)))
    with pytest.raises(RecipeError, match="another tokenizer than its student") as refused:
        train(recipe(trained.parent / "data", teacher=strange), tmp_path / "run")
    assert "PretrainedTokenizer" in refused.value.hint
    many = replace(TEACHER, count=tiny.VOCAB + 1)
    with pytest.raises(RecipeError, match=f"there are {tiny.VOCAB} tokens, not {tiny.VOCAB + 1}"):
        train(recipe(trained.parent / "data", teacher=many), tmp_path / "many")


def test_predictions_that_do_not_fit_are_refused(opened, tmp_path):
    tokens, computed = opened
    shards, value = tokens["texts"], computed["teacher"].value

    def bound(**changes):
        return DATA.with_computed({"texts": shards}, {"teacher": Computed(**{"folder": tmp_path} | changes)})

    with pytest.raises(RecipeError, match="computed no predictions"):
        bound(value={"live": 1})
    with pytest.raises(RecipeError, match="predicted no token of texts"):
        bound(value=value | {"shards": {"poems": "a"}})
    with pytest.raises(DataError, match="for other tokens of 'texts'"):
        bound(value=value | {"shards": {"texts": "a" * 64}})
    with pytest.raises(RunError, match=r"texts\.bin has 0 bytes"):
        bound(value=value)
    with pytest.raises(RecipeError, match="one tokenization"):
        replace(DATA, segmentations=Segmentations(count=2))


def test_they_are_planned_for(trained):
    whole = recipe(trained.parent / "data")
    assert [one["what"] for one in plan(whole, MACHINE)["others"]] == ["teacher, TopKPredictions"]
    batch, _ = Mixture(weights={"texts": 1.0}).open({"texts": Shards(trained / "shards/texts")}).read(Cursor(), 2, 33)
    assert {TOKENS, PROBABILITIES} == DATA.synthetic(batch).extras.keys()
