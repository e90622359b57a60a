"""Samples in training: what they are, that they change nothing of it, killed or not, and their page."""

import json
from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from rich.console import Console
from safetensors.torch import load_file

from lilliput.base.errors import RecipeError
from lilliput.base.files import sha256
from lilliput.base.spec import to_plain
from lilliput.base.units import Steps
from lilliput.growth.use_ema import UseEma
from lilliput.model import copy_weights
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.recipe import Release
from lilliput.report.page import write_report
from lilliput.run import pipeline, samples
from lilliput.run.run_data import RunData
from lilliput.run.samples import sample_writer
from lilliput.train.compile import compiled
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import measured_of, read_metrics
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.phase import Stage

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
PRETRAIN, SFT = "00-pretrain", "03-sft"
CLOCK = ("seconds", "tokens_per_second", "peak_memory")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    base = tiny.recipe(tmp_path_factory.mktemp("data"), tiny.GQA_SPEC)
    entries = tuple(entry for entry in base.timeline if not isinstance(entry, Release))
    assert isinstance(entries[1], UseEma)
    return replace(base, timeline=entries)


def with_samples(recipe, count):
    entries = (replace(one, samples=count) if one.kind == "phase" else one for one in recipe.timeline)
    return replace(recipe, timeline=tuple(entries))


def train(recipe, folder, machine=MACHINE):
    screen = StringIO()
    pipeline.train(recipe, folder, machine, Console(file=screen, width=100))
    return screen.getvalue()


def metrics(run, phase):
    return [
        {key: value for key, value in line.items() if key not in CLOCK}
        for line in read_metrics(run / "phases" / phase / "metrics.jsonl")
    ]


def weights(run):
    return {path.relative_to(run): sha256(path) for path in sorted(run.glob("phases/*/final/*.safetensors"))}


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(recipe, folder)


def test_each_measurement_has_the_same_prompts_from_held_out_documents(run):
    folder, said = run
    measured = measured_of(metrics(folder, PRETRAIN))
    prompts = [[one["prompt"] for one in line["samples"]] for line in measured]
    assert len(prompts) == 4 and len(set(map(tuple, prompts))) == 1 and len(set(prompts[0])) == 3
    held_out = [text for _, text in RunData(folder).tokens("texts").heldout_texts()]
    for prompt, text in zip(prompts[0], held_out, strict=False):
        assert text.startswith(prompt) and 0 < len(prompt) < len(text)
    texts = [one["text"] for line in measured for one in line["samples"]]
    assert any(texts) and len(set(texts)) > len(prompts[0]), "they change as the model learns"
    shown = [line for line in said.splitlines() if line.startswith("    ") and " | " in line]
    assert len(shown) == len(measured) + len(measured_of(metrics(folder, SFT))), "a line each"
    assert all(len(line) <= 100 for line in shown)


def test_a_conversation_is_continued_after_its_first_question(run):
    folder, _ = run
    (line,) = measured_of(metrics(folder, SFT))[-1:]
    files = RunData(folder).tokens("chats")
    questions = {messages[0].content for _, messages in files.heldout_conversations()}
    assert len(line["samples"]) == 3
    for one in line["samples"]:
        assert one["corpus"] == "chats" and one["prompt"].strip() in questions
        assert "<|im_end|>" not in one["text"]


def test_the_weights_that_are_measured_write(run, recipe):
    """Those of the average, by the engine itself: the last sample is what the average of the phase writes."""
    folder, _ = run
    data = RunData(folder)
    files = data.tokens("texts")
    model = recipe.filled(tiny.VOCAB).model.build(seed=0).eval()
    write = sample_writer(recipe.timeline[0], {"texts": files}, writes=True)
    final = folder / "phases" / PRETRAIN / "final"
    written = {}
    for name in ("average", "weights"):
        copy_weights(model, load_file(final / f"{name}.safetensors"))
        written[name] = [one.plain() for one in write(model)]
    recorded = measured_of(metrics(folder, PRETRAIN))[-1]["samples"]
    assert recorded == written["average"] != written["weights"]


def test_training_is_the_same_to_the_bit_without_samples(run, recipe, tmp_path):
    folder, _ = run
    said = train(with_samples(recipe, 0), tmp_path / "none")
    assert weights(tmp_path / "none") == weights(folder) and len(weights(folder)) == 4
    assert " | " not in said
    for phase in (PRETRAIN, SFT):
        without = [{k: v for k, v in line.items() if k != "samples"} for line in metrics(folder, phase)]
        assert metrics(tmp_path / "none", phase) == without
    newest = [max(one.glob(f"phases/{SFT}/checkpoints/step-*")) for one in (folder, tmp_path / "none")]
    one, other = ({path.name: sha256(path) for path in step.glob("*.safetensors")} for step in newest)
    assert one == other and one


@pytest.mark.gpu
@pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore:TensorFloat32", "ignore:The .grad attribute"
)
def test_training_in_graphs_is_the_same_to_the_bit_without_samples(recipe, tmp_path):
    cuda = Machine(device="cuda", precision="bf16", threads=1)
    said = train(recipe, tmp_path / "three", cuda)
    train(with_samples(recipe, 0), tmp_path / "none", cuda)
    assert weights(tmp_path / "none") == weights(tmp_path / "three") and "no samples" not in said
    assert [len(line["samples"]) for line in measured_of(metrics(tmp_path / "three", PRETRAIN))] == [3] * 4


@pytest.mark.parametrize("measurement", [1, 2, 4])
def test_a_killed_run_has_each_sample_once(run, recipe, tmp_path, monkeypatch, measurement):
    folder, _ = run
    seen, count = MetricsLogger.log_validation, []

    def killed(self, *measured):
        seen(self, *measured)
        count.append(1)
        if len(count) == measurement:
            raise KeyboardInterrupt

    monkeypatch.setattr(MetricsLogger, "log_validation", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run")
    monkeypatch.undo()
    train(recipe, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(folder)
    assert [metrics(tmp_path / "run", phase) for phase in (PRETRAIN, SFT)] == [
        metrics(folder, phase) for phase in (PRETRAIN, SFT)
    ]


def test_a_sample_that_fails_is_told_and_training_goes_on(run, recipe, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("no state\nof <b>rows</b>")

    monkeypatch.setattr(samples, "write_texts", failing)
    said = train(recipe, tmp_path / "run")
    assert "pretrain step 12: no samples: RuntimeError: no state of <b>rows</b>" in said
    assert weights(tmp_path / "run") == weights(run[0])
    incidents = read_metrics(tmp_path / "run" / "phases" / PRETRAIN / "incidents.jsonl")
    assert [one["incident"] for one in incidents] == ["no samples"] * 4
    page = (tmp_path / "run" / "report.html").read_text()
    assert "no samples after step 12: RuntimeError: no state of &lt;b&gt;rows&lt;/b&gt;" in page


def test_blocks_that_learn_alone_write_nothing(recipe, tmp_path):
    blocks = Stage(share=0.5, objective=NextToken(route=DiffusionBlocks(blocks=2)))
    phase = tiny.pretraining(stages=(blocks, Stage(share=0.5, objective=NextToken())), save_every=Steps(12))
    said = train(replace(recipe, timeline=(phase,)), tmp_path / "run")
    lines = measured_of(metrics(tmp_path / "run", PRETRAIN))
    assert [(line["step"], len(line.get("samples", ()))) for line in lines] == [(3, 0), (6, 0), (9, 3), (12, 3)]
    assert "no samples" not in said


def test_they_leave_random_numbers_and_weights_alone(run, recipe):
    files = RunData(run[0]).tokens("texts")
    model = recipe.filled(tiny.VOCAB).model.build(seed=0)
    before, state = {name: one.clone() for name, one in model.named_parameters()}, torch.get_rng_state()
    mode, keys = model.training, [set(vars(module)) for module in model.modules()]
    write = sample_writer(recipe.timeline[0], {"texts": files}, writes=True)
    assert write(model) == write(model)
    assert torch.equal(torch.get_rng_state(), state) and model.training == mode
    assert [set(vars(module)) for module in model.modules()] == keys
    assert all(torch.equal(one, before[name]) and one.requires_grad for name, one in model.named_parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of PyTorch's compiler, in PyTorch
def test_a_model_whose_layers_are_compiled_writes_the_same(run, recipe):
    files = RunData(run[0]).tokens("texts")
    model = recipe.filled(tiny.VOCAB).model.build(seed=0)
    write = sample_writer(recipe.timeline[0], {"texts": files}, writes=True)
    plain = write(model)
    with compiled(model, "blocks"):
        assert write(model) == plain


def test_ranks_that_write_no_run_have_no_samples(recipe):
    phase = recipe.timeline[0]
    assert sample_writer(phase, {}, writes=False) is None
    assert sample_writer(replace(phase, samples=0), {}, writes=True) is None


def test_recipes_are_what_they_were_before_there_were_samples(recipe):
    phase = recipe.timeline[0]
    assert "samples" not in to_plain(phase) and to_plain(replace(phase, samples=0))["samples"] == 0
    with pytest.raises(RecipeError, match="samples cannot be -1"):
        replace(phase, samples=-1)


def test_the_page_shows_them_and_obeys_none(run, recipe, tmp_path):
    folder, _ = run
    page = (folder / "report.html").read_text()
    assert page.count('class="samples"') == 6 and page.count("<dt>step 12</dt>") == 3
    path = folder / "phases" / PRETRAIN / "metrics.jsonl"
    before = path.read_text()
    lines = [json.loads(line) for line in before.splitlines()]
    for line in lines:
        for one in line.get("samples", ()):
            one["text"] = f"</dd><script>alert({line['step']})</script>\x1b[2J"
    try:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        shown = write_report(folder).read_text()
    finally:
        path.write_text(before)
    escaped = "&lt;/dd&gt;&lt;script&gt;alert(12)&lt;/script&gt;\\x1b[2J"
    assert "<script>alert" not in shown and shown.count(escaped) == 3
