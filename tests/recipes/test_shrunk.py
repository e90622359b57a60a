"""Recipes at toy size: what stays, what is replaced, and whole timelines from text to card."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from statistics import fmean

import pytest
import tiny
import tiny_parquet
import tiny_partitions
from rich.console import Console
from safetensors.torch import load_file

from lilliput.base.implemented import unimplemented_parts
from lilliput.base.spec import from_plain, to_plain
from lilliput.base.units import Share, Steps
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.filters import Clean, Filtered
from lilliput.data.documents import Document
from lilliput.evals.suites import named
from lilliput.nn.gqa import GQA
from lilliput.optim.schedule import CosineCycles
from lilliput.plan import plan
from lilliput.publish.load import load
from lilliput.recipe import Release, load_recipe, names
from lilliput.run.command_record import Command, RecipeOptions
from lilliput.run.pipeline import run, train
from lilliput.shrink import QUESTIONS, SPLIT, TEXT, shrink
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import read_metrics
from lilliput.train.phase import Phase, StepPlan

PHASES = ("00-accelerated", "01-end-to-end")
CPU = Machine(device="cpu", threads=1)
RUNNABLE = [name for name in names("lilliput.recipes") if not unimplemented_parts(load_recipe(name))]


@pytest.mark.parametrize("name", names("lilliput.recipes"))
def test_the_structure_stays(name):
    recipe, small = load_recipe(name), shrink(load_recipe(name))
    assert from_plain(to_plain(small)) == small and plan(small)
    assert unimplemented_parts(small) == unimplemented_parts(recipe)
    assert (small.name, set(small.corpora)) == (recipe.name, set(recipe.corpora))
    assert [type(entry) for entry in small.timeline] == [type(entry) for entry in recipe.timeline]
    for before, after in zip(recipe.timeline, small.timeline, strict=True):
        if isinstance(before, Phase):
            assert after.data == before.data and after.optimizer == before.optimizer and after.stages == before.stages
            steps = StepPlan(after)
            assert {steps.stage(step) for step in range(steps.steps)} == set(range(len(before.stages)))
        if isinstance(before, Release):
            assert (after.name, after.layout, after.chat) == (before.name, before.layout, before.chat)
            assert named(after.suite).name.startswith("quickstart")


@pytest.mark.parametrize("name", names("lilliput.recipes"))
def test_it_is_small(name):
    small = shrink(load_recipe(name))
    assert small.model.skeleton().parameter_counts()["total"] < 1e6
    assert all(int(entry.tokens) < 1e5 for entry in small.timeline if isinstance(entry, Phase))


def test_short_stages_get_a_step_and_warm_ups_stay_in_proportion():
    phase = load_recipe("odinnext-138m-best").timeline[0]
    stages = (replace(phase.stages[0], share=0.04), replace(phase.stages[2], share=0.96))
    recipe = load_recipe("odinnext-138m-best")
    small = shrink(replace(recipe, timeline=(replace(phase, stages=stages), *recipe.timeline[1:]))).timeline[0]
    steps = StepPlan(small)
    assert steps.steps == 25 and [steps.stage(step) for step in (0, 1)] == [0, 1]
    assert small.schedule == replace(phase.schedule, warmup=Steps(1)) and phase.schedule.decay == Share(0.15)
    long = replace(phase, schedule=replace(phase.schedule, warmup=Steps(StepPlan(phase).steps // 2)))
    assert shrink(replace(recipe, timeline=(long, *recipe.timeline[1:]))).timeline[0].schedule.warmup == Steps(6)
    cycles = replace(long, schedule=CosineCycles(base=long.schedule, part=Share(0.5)))
    found = shrink(replace(recipe, timeline=(cycles, *recipe.timeline[1:]))).timeline[0].schedule
    assert found.base.warmup == Steps(6) and found.part == Share(0.5)


def test_attention_keeps_how_many_queries_share_a_key():
    for heads, kv_heads, kept in ((8, 8, 4), (8, 4, 2), (8, 2, 1), (9, 3, 1)):
        recipe = replace(load_recipe("quickstart-gqa"), timeline=())
        mixer = GQA(heads=heads, kv_heads=kv_heads, head_width=32)
        small = shrink(replace(recipe, model=replace(recipe.model, mixer=mixer))).model.mixer
        assert (small.heads, small.kv_heads) == (4, kept)


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A corpus that Lilliput knows nothing of."""

    lines: int

    def identity(self) -> None: ...

    def documents(self) -> Iterator[Document]:
        return iter(())


def test_corpora_are_replaced_filters_and_strangers_stay(tmp_path):
    recipe = tiny.recipe(tmp_path)
    stranger = Elsewhere(lines=10**9)
    corpora = dict(recipe.corpora)
    corpora |= {"filtered": Filtered(source=recipe.corpora["texts"], filters=(Clean(),)), "stranger": stranger}
    small = shrink(replace(recipe, corpora=corpora)).corpora
    assert small["texts"] == TEXT and small["filtered"] == Filtered(source=TEXT, filters=(Clean(),))
    assert isinstance(corpora["chats"], ChatFiles) and small["chats"] == QUESTIONS
    assert small["stranger"] is stranger


def test_both_sides_of_the_split_have_text_and_conversations():
    texts, chats = (document.group for document in TEXT.documents()), (one.group for one in QUESTIONS.conversations())
    for groups in (list(texts), list(chats)):
        heldout = {group for group in groups if SPLIT.is_heldout(group)}
        assert heldout == {"jinja2", "rich"} and len(set(groups)) == 7
        assert sum(group in heldout for group in groups) >= 5


def walk(name, folder, *sources):
    """A shrunk recipe from text to cards; every phase that trains on plain text has learned something by its end."""
    command = Command(recipe=name, shrink=True, sources=tuple(sources))
    small, machine = command.make(), Machine(device="cpu", precision="fp32", threads=1)
    releases = run(small, folder, machine, Console(file=StringIO()), command=command)
    assert [release.name for release in releases] == [e.name for e in small.timeline if isinstance(e, Release)]
    assert all((release / "README.md").read_text().startswith("---\n") for release in releases)
    heldout = {}
    for index, entry in enumerate(small.timeline):
        if isinstance(entry, Phase) and entry.stages[0].objective == entry.stages[-1].objective:
            lines = read_metrics(folder / "phases" / f"{index:02d}-{entry.name}" / "metrics.jsonl")
            heldout[entry.name] = [line["heldout"] for line in lines if "heldout" in line][-1]
            if entry.resumes:  # perhaps with other text, whose losses say nothing beside those before
                before = heldout[entry.resumes]
                assert all(heldout[entry.name][name] < before[name] for name in before), entry.name
                continue
            losses = [line["cross_entropy"] for line in lines if "cross_entropy" in line]
            half = len(losses) // 2  # of a few steps one alone is noise
            assert fmean(losses[-half:]) < fmean(losses[:half]), entry.name
    return releases


@pytest.mark.slow
def test_a_stacked_model_goes_from_text_to_card(tmp_path):
    before, release = walk("mtlm1-200m", tmp_path / "run")
    assert (load(before).model.spec.layers, load(release).model.spec.layers) == (4, 8)
    card = (release / "README.md").read_text()
    assert "in the place of the author's own collection" in card
    assert "reads 7,000,000,000 tokens up to here, 35.99 a parameter" in card, "the recipe, which is not shrunk"
    base = read_metrics(tmp_path / "run" / "phases" / "00-base" / "metrics.jsonl")
    assert [line["step"] for line in base if "fineweb-edu" in line.get("heldout", ())] == [12], (
        "measured at the end alone"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RUNNABLE if name != "mtlm1-200m"])
def test_every_recipe_goes_from_text_to_card(name, tmp_path):
    walk(name, tmp_path / "run")


def test_odinnext_denoises_and_goes_on_end_to_end_as_far_as_it_is_built(tmp_path):
    """Its bags of 4, 2 and 1 through blocks, and all layers together afterwards; a teacher's replies are not asked."""
    small = shrink(load_recipe("odinnext-138m"))
    train(small, tmp_path / "run", CPU, Console(file=StringIO()), until="end-to-end")
    blocks, after = (read_metrics(tmp_path / f"run/phases/{name}/metrics.jsonl") for name in PHASES)
    assert {value for line in blocks for value in line.get("heldout", {}).values()} == {None}
    assert all(value > 0 for line in after for value in line.get("heldout", {}).values())
    parameters = load_file(tmp_path / f"run/phases/{PHASES[0]}/final/weights.safetensors")
    assert parameters.keys() == dict(small.model.skeleton().named_parameters()).keys()


def test_a_rehearsal_reads_a_folder_that_is_laid_out_like_the_dataset(tmp_path):
    recipe, mix = load_recipe("odinnext-138m-best"), str(tiny_partitions.write_folder(tmp_path, documents=1))
    small = RecipeOptions(shrink=True, sources=(f"natural={mix}",)).apply(recipe)
    assert small.corpora["natural"] == replace(recipe.corpora["natural"], dataset=mix)
    assert small.corpora["instructions"] == shrink(recipe).corpora["instructions"] and small.split == recipe.split


@pytest.mark.slow
def test_a_rehearsal_on_such_a_folder_goes_from_text_to_card(tmp_path):
    mix = tiny_partitions.write_folder(tmp_path / "mix", documents=40)
    base, _ = walk("odinnext-138m-best", tmp_path / "run", f"natural={mix}")
    assert tiny_partitions.UNWANTED not in (base / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slm-10m", "mtlm1-152m", "mtlm1-200m"])
def test_rehearsals_of_the_others_read_folders_that_are_laid_out_like_their_datasets(name, tmp_path):
    sources = [
        f"{corpus}={tiny_parquet.write_folder(tmp_path / corpus, corpus, documents=40)}"
        for corpus in load_recipe(name).corpora
    ]
    walk(name, tmp_path / "run", *sources)


@pytest.mark.slow
def test_the_rehearsal_of_a_decay_on_other_text_goes_from_text_to_card(tmp_path):
    walk("slm-10m-hopper", tmp_path / "run")
