"""A preference phase of a run: its reference computed once, bound to its pairs, resumed to the bit, alarms told."""

import json
import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import tiny
from rich.console import Console

from lilliput.base.errors import DataError, RecipeError, RunError
from lilliput.base.files import read_json
from lilliput.base.spec import from_plain, to_plain
from lilliput.base.units import Tokens
from lilliput.computations import reference_log_probabilities
from lilliput.computations.measure_heldout import MeasureHeldOut
from lilliput.computations.reference_log_probabilities import ReferenceLogProbabilities
from lilliput.data.corpora.pairs import PairFiles, ShuffledAnswers
from lilliput.data.pair_data import PairData
from lilliput.data.pair_reference import ReferenceWriter, with_reference
from lilliput.data.pair_rows import PackedPairs
from lilliput.growth.growth import Computed
from lilliput.objectives.dpo import DPO
from lilliput.objectives.next_token import NextToken
from lilliput.optim.adamw import AdamW
from lilliput.optim.ema import NoEma
from lilliput.optim.schedule import Constant
from lilliput.plan.count import plan
from lilliput.plan.measure import probe
from lilliput.run import pipeline
from lilliput.shrink import shrink
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import measured_of, read_growing, read_metrics, steps_of
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.phase import Stage

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
LENGTH, STEPS = 320, 12
REFERENCE = "computed/03-reference"
PHASE = "phases/04-dpo"


def dpo(lr=5e-4, **changes):
    return tiny.pretraining(
        name="dpo",
        length=LENGTH,
        batch_tokens=4 * LENGTH,
        tokens=Tokens(STEPS * 4 * LENGTH),
        data=PairData(corpus="pairs", reference="reference"),
        stages=(Stage(share=1.0, objective=DPO(**changes)),),
        optimizer=AdamW(lr=lr),
        schedule=Constant(),
        ema=NoEma(),
    )


def recipe(folder, *then, phase=None):
    base = tiny.recipe(folder)
    pretraining, _, _, chatml, sft, _ = base.timeline
    reference = ReferenceLogProbabilities(name="reference", corpus="pairs")
    rows = [
        {
            "prompt": f"What comes after {word} {number}?",
            "chosen": f"{tiny.WORDS[(number + 1) % len(tiny.WORDS)]} comes after {word}.",
            "rejected": "Nobody can say." if number % 2 else f"Nobody can say what comes after {word}, nobody at all.",
        }
        for number, word in ((number, tiny.WORDS[number % len(tiny.WORDS)]) for number in range(120))
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(
        base,
        corpora={**base.corpora, "pairs": PairFiles(paths=(str(folder / "pairs.jsonl"),))},
        timeline=(pretraining, chatml, sft, reference, phase or dpo(), *then),
    )


def train(whole, run):
    out = Console(file=StringIO(), width=200)
    pipeline.train(whole, run, MACHINE, out)
    return out.file.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpo")
    whole = recipe(folder / "data")
    said = train(whole, folder / "run")
    return folder, whole, said


def test_it_begins_at_ln_2_and_learns_to_prefer(trained):
    folder, whole, said = trained
    assert from_plain(to_plain(whole)) == whole
    steps = steps_of(read_metrics(folder / "run" / PHASE / "metrics.jsonl"))
    assert steps[0]["dpo"] == pytest.approx(np.log(2), abs=1e-4) and steps[0]["headline"] == "dpo"
    assert steps[0]["logps/chosen_change"] == pytest.approx(0, abs=1e-3)
    assert steps[-1]["dpo"] < steps[0]["dpo"] and steps[-1]["rewards/accuracies"] > 0.5
    assert {"rewards/margins", "logps/chosen", "logps/closing", "length_drift", "chosen_nll"} <= steps[-1].keys()
    held = measured_of(read_metrics(folder / "run" / PHASE / "metrics.jsonl"))[-1]["heldout"]
    assert 0 < held["pairs"] < np.log(2)
    value = read_json(folder / "run/parts/computed.03-reference.json")["outputs"]["value"]
    assert value["pairs"] == 120 and value["chosen"] < 0 and value["rejected"] < 0
    assert sorted(read_json(folder / "run/parts/computed.03-reference.json")["outputs"]["files"]) == [
        "heldout.bin",
        "train.bin",
    ]
    assert "03 reference, ReferenceLogProbabilities: computed" in said and "train 1" in said and "pairs" in said
    (corpus,) = (one for one in plan(whole, MACHINE, folder=folder / "run")["corpora"] if one["name"] == "pairs")
    assert corpus["passes"] > 0


def test_a_killed_phase_ends_in_the_same_bits(trained, monkeypatch):
    folder, whole, _ = trained
    seen = MetricsLogger.log_step

    def killed(self, step, *numbers):
        seen(self, step, *numbers)
        if self._name == "dpo" and step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(MetricsLogger, "log_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(whole, folder / "again")
    monkeypatch.undo()
    assert re.search(r"dpo: .*resum", train(whole, folder / "again"))
    ours, theirs = (read_json(folder / name / "parts/phases.04-dpo.json")["outputs"] for name in ("run", "again"))
    assert ours["weights"] == theirs["weights"]


def test_a_killed_reference_goes_on_where_it_was_and_has_the_same_files(trained, monkeypatch):
    folder, whole, _ = trained
    write, written = ReferenceWriter.write, []

    def killed(self, values):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(len(values))
        write(self, values)

    small = replace(MACHINE, positions=2 * LENGTH)
    monkeypatch.setattr(reference_log_probabilities, "SYNC_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(ReferenceWriter, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(whole, folder / "small", small, Console(file=StringIO()), until="sft")
            pipeline.train(whole, folder / "small", small, Console(file=StringIO()))
    assert read_json(folder / "small" / REFERENCE / "progress.json")["side"] == "train"
    resumed = []
    monkeypatch.setattr(
        ReferenceWriter, "write", lambda self, values: (resumed.append(len(values)), write(self, values))
    )
    pipeline.train(whole, folder / "small", small, Console(file=StringIO()))
    sides = read_json(folder / "run/parts/shards.pairs.json")["outputs"]["sides"]
    rows = sides["train"]["rows"] + sides["heldout"]["rows"]
    assert sum(written) + sum(resumed) == rows and resumed
    for side in ("train", "heldout"):
        ours, theirs = (np.fromfile(folder / run / REFERENCE / f"{side}.bin", "<f4") for run in ("run", "small"))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert not (folder / "small" / REFERENCE / "progress.json").exists()


def test_a_reference_of_other_pairs_is_refused(trained):
    folder, _, _ = trained
    pairs = PackedPairs(folder / "run/shards/pairs")
    value = read_json(folder / "run/parts/computed.03-reference.json")["outputs"]["value"]
    computed = Computed(value=value, folder=folder / "run" / REFERENCE)
    batch = with_reference(pairs, computed, "reference").take("train", [1, 0])
    assert batch.extras["reference"].shape == (2, pairs.pairs_per_row, 2)
    with pytest.raises(DataError, match="'reference' are of other pairs"):
        with_reference(pairs, replace(computed, value=value | {"pairs_sha256": "0"}), "reference")
    with pytest.raises(RecipeError, match="did not compute log-probabilities"):
        with_reference(pairs, replace(computed, value=3), "reference")
    with pytest.raises(RecipeError, match="holds no pairs"):
        with_reference(object(), computed, "reference")
    other = folder / "short"
    other.mkdir()
    for side in ("train", "heldout"):
        (other / f"{side}.bin").write_bytes((computed.folder / f"{side}.bin").read_bytes()[:-8])
    with pytest.raises(RunError, match="numbers of"):
        with_reference(pairs, replace(computed, folder=other), "reference")


def test_what_a_timeline_lacks_is_refused_before_anything_is_done(tmp_path):
    whole = recipe(tmp_path / "data")
    with pytest.raises(RecipeError, match=r"dpo, 12 steps, reads 'reference', which is not before it"):
        replace(whole, timeline=(*whole.timeline[:3], whole.timeline[4]))
    wrong = ReferenceLogProbabilities(name="reference", corpus="chats")
    with pytest.raises(RecipeError, match="'chats' holds no pairs"):
        train(replace(whole, timeline=(*whole.timeline[:3], wrong)), tmp_path / "run")


def test_a_falling_probability_of_chosen_answers_is_told(tmp_path):
    said = train(recipe(tmp_path / "data", phase=dpo(lr=3e-2, beta=0.05)), tmp_path / "run")
    assert re.search(r"dpo step \d+: chosen answers have lost [\d.]+ nats each since the reference", said)
    (alarm, *_) = [
        one for one in read_growing(tmp_path / "run" / PHASE / "incidents.jsonl") if one["incident"] == "alarm"
    ]
    assert "chosen answers have lost" in alarm["what"]


def test_it_is_measured_planned_and_shrunk(tmp_path):
    measure = MeasureHeldOut(name="after", corpora=("pairs",), length=LENGTH)
    whole = recipe(tmp_path / "data", measure)
    small = shrink(replace(whole, corpora=whole.corpora | {"pairs": PairFiles(paths=("prefs.jsonl",))}))
    assert isinstance(small.corpora["pairs"], ShuffledAnswers) and small.timeline[4].data.lost == 1.0
    costs = probe(small, MACHINE, print)
    assert costs[4].passes[0].seconds > 0
    assert isinstance(whole.timeline[0].stages[0].objective, NextToken)
