"""The plan: the cards' figures, bytes that are really held, prices, and tables that fit the terminal."""

import gzip
import json
import random
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
import torch
from test_model import ODIN, SLM, mtlm

from lilliput.base.errors import LilliputError, MachineError
from lilliput.base.run_folder import RunFolder
from lilliput.base.terminal import Terminal, visible
from lilliput.base.text_units import duration, flops, number, price, size
from lilliput.base.units import Steps, Tokens
from lilliput.data.batch import Cursor
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.arithmetic import Arithmetic
from lilliput.data.corpora.concatenated import Concatenated, ConcatenatedChats
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered, Length
from lilliput.data.corpora.hub import HubChats, HubText
from lilliput.data.mixture import Mixture
from lilliput.data.split import Split
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.stack import Stack
from lilliput.growth.use_ema import UseEma
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.optim.adamw import AdamW
from lilliput.optim.ema import Ema, NoEma
from lilliput.optim.normuon import NorMuon
from lilliput.optim.optimizer import set_multiplier, state_tensors
from lilliput.plan import Tariff, plan, show
from lilliput.plan.cost import Cost, Measured, Pass
from lilliput.plan.growth_timing import tokens_before_growth
from lilliput.plan.memory import held_bytes
from lilliput.plan.synthetic_data import RandomRows
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Release, load_recipe, names
from lilliput.run.prepare import Preparation
from lilliput.shrink import TEXT
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHATML
from lilliput.train.all_reduce import AllReduce
from lilliput.train.checkpoint import Checkpoint, Progress, save
from lilliput.train.forward_backward import EagerForwardBackward, StepInputs
from lilliput.train.machine import Machine
from lilliput.train.phase import Stage
from lilliput.train.precision import precision_of
from lilliput.train.ranks import OneRank
from lilliput.train.trainable import Trainable


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A tiny recipe with another model and timeline."""
    folder = tmp_path_factory.mktemp("plan")

    def make(spec=tiny.HGRN2_SPEC, timeline=None):
        made = tiny.recipe(folder)
        changed = replace(made, model=spec, tokenizer=BPE(vocab=spec.vocab), timeline=timeline or ())
        return changed if timeline else replace(changed, timeline=made.timeline)

    return make


def release(name, layout, **changes):
    return Release(name=name, layout=layout, suite="quickstart", heldout="texts", **changes)


def test_odinnext_has_the_figures_of_its_card(recipe):
    layout = HGRN2Format(context=2_048)
    timeline = (release("base", layout), AddTokens(tokens=CHATML), release("instruct", layout, dtype="F16"))
    made = json.loads(json.dumps(plan(recipe(ODIN, timeline))))
    base, instruct = made["releases"]
    assert base["parameters"] == {
        "total": 138_449_696,
        "embedding": 25_165_824,
        "non_embedding": 113_283_872,
    }
    assert instruct["parameters"]["total"] == 138_451_232
    assert base["state_bytes"] == {"fp16": 3_145_728, "fp32": 6_291_456}
    assert (base["download_bytes"], instruct["dtype"]) == (276_899_392, "F16")
    assert made["totals"]["download_bytes"] == 2 * (138_449_696 + 138_451_232)


def test_slm_has_the_figures_of_its_card_and_a_cache_that_grows(recipe):
    made = plan(recipe(SLM, (release("slm", Qwen3Format(context=1_024), dtype="F32"),)))
    (slm,) = made["releases"]
    assert slm["parameters"]["total"] == 9_968_640 and slm["download_bytes"] == 4 * 9_968_640
    each = 12 * 2 * 2 * 32 * 2  # layers, keys and values, heads, width, bytes
    assert slm["state_bytes"] == {"bf16_per_token": each, "context": 1_024, "bf16_at_context": 1_024 * each}


@pytest.mark.parametrize(
    ("inner", "before", "after"), [(2_048, 109_529_856, 194_482_944), (1_280, 88_296_192, 152_015_616)]
)
def test_mtlm_is_counted_before_and_after_it_is_stacked(recipe, inner, before, after):
    layout = LlamaFormat(context=1_024)
    timeline = (release("half", layout), Stack(times=2), tiny.pretraining(), release("whole", layout))
    made = plan(recipe(mtlm(12, inner), timeline))
    (growth,) = made["growths"]
    assert (growth["index"], growth["name"]) == (1, "Stack")
    assert (growth["before"]["total"], growth["after"]["total"]) == (before, after)
    assert [entry["parameters"]["total"] for entry in made["releases"]] == [before, after]
    assert made["model"]["parameters"]["total"] == before
    assert made["phases"][0]["parameters"]["total"] == after, "the phase trains the grown model"


def test_a_growth_in_depth_is_told_when_the_published_rule_would_grow(recipe):
    assert tokens_before_growth(1_100_000_000, 8e20) == pytest.approx(1.0e10, rel=0.1)  # 10 billion, says the paper
    base, after = replace(tiny.pretraining(), name="base"), tiny.pretraining()
    made = plan(recipe(mtlm(12, 1_280), (base, Stack(times=2), UseEma(), after)))
    stack, ema = made["growths"]
    phases = made["phases"]
    assert ema["timing"] is None
    assert (stack["timing"]["tokens"], stack["timing"]["total"]) == (
        phases[0]["tokens"],
        phases[0]["tokens"] + phases[1]["tokens"],
    )
    screen = StringIO()
    show(Terminal(file=screen, width=200), made)
    assert "Stack grows after" in screen.getvalue() and "more than the" in screen.getvalue()


def test_a_phase_reads_more_text_where_bags_are_larger(recipe):
    stages = tuple(Stage(share=share, objective=NextToken(bag=bag)) for share, bag in ((0.5, 4), (0.3, 2), (0.2, 1)))
    phase = tiny.pretraining(tokens=Tokens(20 * 128 * 2.8 + 1), stages=stages, save_every=Steps(100))
    (made,) = plan(recipe(timeline=(phase,)), Machine(rows=3))["phases"]
    assert made["stages"] == [
        {
            "steps": steps,
            "tokens_per_position": bag,
            "tokens": steps * 128 * bag,
            "positions": steps * 128,
            "length": 32,
            "operations": 3 * tiny.HGRN2_SPEC.flops(32) * steps * 128,
        }
        for steps, bag in ((10, 4), (6, 2), (4, 1))
    ]
    assert (made["steps"], made["positions"], made["tokens"]) == (20, 20 * 128, 20 * 128 * 2.8)
    assert (made["rows"], made["length"], made["micro_batches"]) == (4, 32, {"count": 2, "rows": 2})
    assert made["operations"] == 3 * tiny.HGRN2_SPEC.flops(32) * 20 * 128
    assert made["tokens_per_parameter"] == made["tokens"] / made["parameters"]["total"]
    assert made["checkpoints"]["kept"] == 2, "it is saved at its beginning and at its end"
    assert made["memory"]["peak"] is None and made["cost"] is None, "not measured"


def test_a_block_counts_its_own_layers_for_two_streams_and_the_head_once(recipe):
    spec = replace(tiny.HGRN2_SPEC, layers=4)
    head = 2 * 32 * 300
    body, counted = spec.flops(32) - head, []
    for share in (0.0, 0.5):
        route = DiffusionBlocks(blocks=4, clean_share=share)
        phase = tiny.pretraining(stages=(Stage(share=1.0, objective=NextToken(route=route)),))
        (made,) = plan(recipe(spec, (phase,)))["phases"]
        counted.append(made["operations"] / made["positions"])
    layer = body / 4  # without noise: below forward alone, the block's own three times, above twice
    clean = sum(below * layer + 3 * layer + 2 * (3 - below) * layer for below in range(4)) / 4
    assert counted == [3 * (2 * layer + head), 3 * (2 * layer + head) + clean + 3 * head]


def trained(phase, spec):
    """A model, optimizer and average after one real step."""
    model = spec.build(seed=0)
    optimizer, average = phase.optimizer.build(model), phase.ema.build(model)
    set_multiplier(optimizer, 1.0)
    logits = model(torch.randint(spec.vocab, (2, 9)))
    logits.square().mean().backward()
    optimizer.step()
    average.update(dict(model.named_parameters()), 1)
    return model, optimizer, average


def in_bytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("name", tiny.SPECS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-3), NorMuon(lr=1e-3, adam_lr=1e-3)], ids=["adamw", "normuon"])
@pytest.mark.parametrize("ema", [Ema(), NoEma()], ids=["ema", "no-ema"])
def test_the_bytes_are_those_of_a_real_step(tmp_path, name, tied, optimizer, ema):
    spec = replace(tiny.SPECS[name], tie_embeddings=tied)
    phase = tiny.pretraining(optimizer=optimizer, ema=ema)
    model, stepped, average = trained(phase, spec)
    state = state_tensors(stepped, model)
    held = held_bytes(phase, spec)
    assert held == {
        "weights": in_bytes(model.parameters()),
        "gradients": in_bytes(parameter.grad for parameter in model.parameters()),
        "optimizer": in_bytes(state.values()),
        "average": in_bytes(average.tensors.values()),
    }
    tensors = {"weights": dict(model.named_parameters()), "average": average.tensors, "optimizer": state}
    save(tmp_path, Checkpoint(progress=Progress(step=1), tensors=tensors))
    on_disk = sum(file.stat().st_size for file in (tmp_path / "step-000001").glob("*.safetensors"))
    names = sum(200 + len(key) for part in tensors.values() for key in part)
    written = held["weights"] + held["average"] + held["optimizer"]
    assert written < on_disk < written + names, "a checkpoint holds this and its tensors' names"


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_gradients_are_those_of_one_block_at_a_time_unless_graphs_keep_them(share):
    bags = (NextToken(bag=bag, route=DiffusionBlocks(blocks=2, clean_share=share)) for bag in (2, 1))
    phase = tiny.pretraining(stages=tuple(Stage(share=0.5, objective=objective) for objective in bags))
    trainable = Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), [stage.objective for stage in phase.stages], seed=0)
    optimizer, precision = phase.optimizer.build(trainable), precision_of("cpu", "fp32", trainable)
    passes, sizes, ever = EagerForwardBackward(trainable, precision, OneRank()), [], {}
    for stage, variant in ((0, 0), (0, 1), (1, 0), (1, 1)):
        batch, _ = RandomRows(300).read(Cursor(), 2, phase.stages[stage].objective.row_length(16))
        passes(StepInputs(step=0, stage=stage, variant=variant, progress=0.0, seed=0), [batch], 64.0)
        trainable.keep_active(stage, variant)
        made = {name: one.grad for name, one in trainable.named_parameters() if one.grad is not None}
        sizes.append(in_bytes(made.values()))
        ever |= made
        optimizer.step()
        optimizer.zero_grad()
        assert all(one.grad is None for one in trainable.parameters())
    assert held_bytes(phase, tiny.HGRN2_SPEC)["gradients"] == max(sizes) < in_bytes(ever.values())
    assert held_bytes(phase, tiny.HGRN2_SPEC, captures=True)["gradients"] == in_bytes(ever.values())
    for machine, captures in (
        (Machine(device="cuda"), True),
        (Machine(device="cuda", compile="blocks"), False),
        (Machine(device="cuda", exchange=AllReduce(workers=2)), False),
        (Machine(device="cpu"), False),
        (Machine(device="cpu", compile="graphs"), True),
    ):
        assert machine.captures == captures


def cost(seconds, *, rows=2, activations=1_000):
    one = Pass(seconds=seconds, repeats=3, rows=rows, activations=activations)
    return Cost(passes=(one, one), update=Measured(seconds=0.5, repeats=2))


def whole(seconds, *, rows=4, found=None, peak=None):
    """The cost of whole steps."""
    one = Pass(seconds=seconds, repeats=3, rows=rows, activations=None)
    return Cost(passes=(one, one), update=None, rows=found, peak=peak)


def test_time_follows_from_passes_and_updates(recipe):
    made = plan(recipe(), Machine(rows=4), costs={0: cost(1.5), 4: cost(3.0)})
    first, second = made["phases"]
    assert first["cost"]["seconds_per_step"] == 4 / 2 * 1.5 + 0.5
    assert first["cost"]["seconds"] == 12 * 3.5 and first["cost"]["tokens_per_second"] == 128 / 3.5
    assert first["cost"]["passes"][0] == {"count": 3, "rows": 2, "of_rows": 4, "seconds": 1.5}
    total = made["totals"]["cost"]
    assert (total["phases"], total["of_phases"]) == (2, 2)
    assert total["seconds"] == first["cost"]["seconds"] + second["cost"]["seconds"] and total["price"] is None


def test_activations_are_scaled_to_the_micro_batch_and_added_to_what_is_held(recipe):
    (known, _) = plan(recipe(), Machine(rows=4), costs={0: cost(1.0), 4: cost(1.0)})["phases"]
    held = sum(known["memory"][part] for part in ("weights", "gradients", "optimizer", "average"))
    assert known["memory"]["activations"] == 2_000 and known["memory"]["peak"] == held + 2_000


def test_whole_steps_are_taken_as_they_are(recipe):
    machine = Machine(device="cpu", rows="memory")
    (unknown, _) = plan(recipe(), machine)["phases"]
    assert unknown["micro_batches"] == {"count": None, "rows": None}
    (known, _) = plan(recipe(), machine, costs={0: whole(1.5, found=2, peak=5_000_000)})["phases"]
    assert known["micro_batches"] == {"count": 2, "rows": 2}
    assert known["cost"]["seconds_per_step"] == 1.5 and known["cost"]["updates"] is None
    held = sum(known["memory"][part] for part in ("weights", "gradients", "optimizer", "average"))
    assert known["memory"]["peak"] == 5_000_000 and known["memory"]["activations"] == 5_000_000 - held
    (unseen, _) = plan(recipe(), machine, costs={0: whole(1.5)})["phases"]
    assert unseen["memory"]["peak"] is None and unseen["memory"]["activations"] is None


def test_prices_are_hours_times_what_was_said(recipe):
    assert Tariff().bill(7_200) == {"kwh": None, "price": None, "currency": None}
    assert Tariff(watts=250).bill(7_200) == {"kwh": 0.5, "price": None, "currency": None}
    assert Tariff(watts=250, price_per_kwh=0.4).bill(7_200)["price"] == pytest.approx(0.2)
    assert Tariff(price_per_hour=3.0, currency="EUR").bill(7_200) == {"kwh": None, "price": 6.0, "currency": "EUR"}
    both = Tariff(price_per_hour=3.0, watts=250, price_per_kwh=0.4).bill(7_200)
    assert both["price"] == pytest.approx(6.2)
    made = plan(recipe(), costs={0: cost(1.0), 4: cost(1.0)}, tariff=Tariff(watts=100))
    total = made["totals"]["cost"]
    assert total["kwh"] == pytest.approx(total["seconds"] / 3600 / 10)
    assert total["kwh"] == pytest.approx(sum(phase["cost"]["kwh"] for phase in made["phases"]))


@pytest.mark.parametrize("field", ["price_per_hour", "watts", "price_per_kwh"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_prices_are_refused(field, value):
    with pytest.raises(MachineError, match=f"{field} cannot be {value}") as error:
        Tariff(**{"watts": 100.0} | {field: value})
    assert "where:" in str(error.value) and "hint:" in str(error.value)


def test_a_tariff_that_has_no_effect_is_refused(recipe):
    with pytest.raises(LilliputError, match="the machine's power is not given"):
        Tariff(price_per_kwh=0.3)
    with pytest.raises(LilliputError, match="currency is EUR, but no price is given"):
        Tariff(watts=100, currency="EUR")
    with pytest.raises(LilliputError, match="a price needs measured time"):
        plan(recipe(), tariff=Tariff(watts=100))


def shown(made):
    console = Terminal(file=StringIO(), width=100)
    show(console, made)
    return console.file.getvalue()


def test_any_name_is_planned(tmp_path):
    known = tiny.recipe(tmp_path)
    corpora, phase = (
        {"NAME": known.corpora["texts"]},
        tiny.pretraining(name="NAME", data=Mixture(weights={"NAME": 1.0})),
    )
    timeline = (phase, replace(known.timeline[2], name="NAME", heldout="NAME"))
    named = {"name": "NAME", "about": "about NAME", "corpora": corpora, "tokenizer_corpora": ("NAME",)}
    made = json.dumps(plan(replace(known, timeline=timeline, **named)))
    for name in ("[red]a[/x]", ":smile:", "\x1b[2J", "\u202eש", "a|b"):
        text = shown(json.loads(made.replace("NAME", json.dumps(name)[1:-1])))
        assert text.count(visible(name)) == 6 and (name in text) == (name == visible(name)), text


@pytest.mark.slow
def test_the_tables_fit_a_hundred_columns(recipe):
    layout = HGRN2Format(context=2_048)
    stages = tuple(Stage(share=share, objective=NextToken(bag=bag)) for share, bag in ((0.5, 4), (0.5, 1)))
    long = tiny.pretraining(
        name="accelerated", tokens=Tokens(123e9), length=2_048, batch_tokens=2**19, stages=stages, ema=Ema()
    )
    timeline = (long, release("OdinNext-138M-Instruct", layout), AddTokens(tokens=CHATML), replace(long, name="sft"))
    tariff = Tariff(price_per_hour=2.5, watts=650, price_per_kwh=0.4, currency="EUR")
    costs = {0: cost(19.8, rows=1, activations=2_345_678_901), 3: cost(1.0)}
    steps = {index: whole(19.8, rows=256, found=32, peak=98_765_432_109) for index in (0, 3)}
    for text in (
        shown(plan(recipe(ODIN, timeline), costs=costs, tariff=tariff)),
        shown(plan(recipe(ODIN, timeline), costs={3: costs[3]})),
        shown(plan(recipe(ODIN, timeline))),
        shown(plan(recipe(ODIN, timeline), Machine(device="cuda"))),
        shown(plan(recipe(ODIN, timeline), Machine(device="cuda"), costs=steps, tariff=tariff)),
        shown(plan(recipe(SLM, (release("slm", Qwen3Format(context=32_768)),)))),
    ):
        assert max(len(line) for line in text.splitlines()) <= 100 and "…" not in text
    text = shown(plan(recipe(ODIN, timeline), costs=costs, tariff=tariff))
    words = ("138,449,696", "113,283,872", "3.0 MiB in fp16", "264.1 MiB in BF16", "256 x 2,048", "EUR", "kWh")
    for word in (*words, "bags of 4", "accelerated", "OdinNext-138M-Instruct", "3 x 1 of 256 rows", "Extrapolated"):
        assert word in text, word
    assert "what fits" in shown(plan(recipe(ODIN, timeline), Machine(device="cuda")))
    text = shown(plan(recipe(ODIN, timeline), Machine(device="cuda"), costs=steps))
    for word in ("32 rows", "92.0 GiB", "3 steps", "whole steps"):
        assert word in text, word
    assert "these 1 of 2" in shown(plan(recipe(ODIN, timeline), costs={3: costs[3]}))
    assert "--probe" in shown(plan(recipe(ODIN, timeline)))


@pytest.mark.parametrize("name", names("lilliput.recipes"))
def test_every_recipe_has_a_plan_that_fits(name):
    made = plan(load_recipe(name))
    text = shown(json.loads(json.dumps(made)))
    assert max(len(line) for line in text.splitlines()) <= 100 and "…" not in text
    assert all(entry["name"] in text for entry in made["phases"] + made["releases"])


def test_streams_are_sized_by_their_budgets_and_nobody_is_asked(recipe):
    stream = HubText(dataset="a/b", license="odc-by", config="c", tokens=Tokens(8e9))
    two = ConcatenatedChats(
        sources=(
            HubChats(dataset="a/chats", license="mit", split="test"),
            HubChats(dataset="b/chats", license="apache-2.0"),
        )
    )
    small = HubText(dataset="d/e", license="odc-by", bytes=400)
    mixed = Mixture(weights={"texts": 3.0, "small": 1.0})
    sft = tiny.pretraining(name="sft", data=ChatData(corpus="chats"))
    timeline = (tiny.pretraining(data=mixed), tiny.pretraining(), sft)
    corpora = {"texts": stream, "small": small, "chats": two, "unread": stream}
    made = plan(replace(recipe(), corpora=corpora, timeline=timeline))
    texts, small, chats = made["corpora"]
    each = made["phases"][0]["tokens"]
    assert texts == {
        "name": "texts",
        "source": "a/b, c",
        "licenses": ["odc-by"],
        "tokens_read": 1.75 * each,
        "passes": 1.75 * each / 10e9,
        "text_bytes": 40_000_000_000,
        "token_file_bytes": 20_000_000_000,
        "estimated": True,
        "there": 0,
        "unknown": "",
    }
    assert small["passes"] == 0.25 * each / 100
    assert chats["source"] == "a/chats, test; b/chats" and chats["licenses"] == ["mit", "apache-2.0"]
    assert (chats["tokens_read"], chats["passes"], chats["text_bytes"]) == (each, None, None)
    assert made["totals"]["token_file_bytes"] is None
    text = shown(made)
    unread = "? The size of chats is not known before `lilliput data` has encoded it."
    for words in ("37.3 GiB", "~18.6 GiB", "apache-2.0", "a/chats, test;", "~ is an estimate", unread):
        assert words in text, words


def test_local_texts_are_estimated_from_their_beginning(recipe, tmp_path):
    draw = random.Random(0)
    texts = [f"{tiny.sentences(n)} {draw.randbytes(150 + n % 300).hex()} é" for n in range(9_000)]
    size = sum(len(text.encode()) for text in texts)
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "plain.jsonl").write_text(rows)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(rows.encode(), 1))
    (tmp_path / "short.jsonl").write_text(rows[: rows.index("\n", 90_000) + 1])

    def estimate(corpus):
        (made,) = plan(replace(recipe(timeline=(tiny.pretraining(),)), corpora={"texts": corpus}))["corpora"]
        return made["text_bytes"]

    plain, packed, short = (
        TextFiles(paths=(str(tmp_path / name),)) for name in ("plain.jsonl", "packed.jsonl.gz", "short.jsonl")
    )
    assert estimate(plain) == pytest.approx(size, rel=0.02)
    assert estimate(packed) == pytest.approx(size, rel=0.2)
    assert estimate(short) == sum(len(document.text.encode()) for document in short.documents()), "it is read whole"
    assert estimate(Concatenated(sources=(short, short))) == 2 * estimate(short)
    half = Filtered(source=plain, filters=(Length(at_most=900),))
    assert estimate(half) == pytest.approx(sum(len(each.text.encode()) for each in half.documents()), rel=0.2)
    assert estimate(Arithmetic(count=2_000)) == pytest.approx(2_000 * 185, rel=0.1)
    for unknown in (
        TextFiles(paths=("nowhere",)),
        HubText(dataset="a/b", license="mit", rows=9),
        Concatenated(sources=(TEXT,)),
    ):
        assert estimate(unknown) is None
    (tmp_path / "torn.jsonl").write_text(rows[: rows.index("\n") + 1] + "{")
    corpora = {"texts": TextFiles(paths=(str(tmp_path / "torn.jsonl"),))}
    made = plan(replace(recipe(timeline=(tiny.pretraining(),)), corpora=corpora))
    assert "torn.jsonl, record 2" in made["corpora"][0]["unknown"]
    assert "? The size of texts is not known: this is not JSON" in shown(made)


def test_what_is_encoded_is_known(recipe, tmp_path):
    """Until the texts, the tokenizer or the split are others."""
    mine = recipe(timeline=tiny.recipe(tmp_path).timeline[:5])
    with RunFolder(tmp_path / "run") as run:
        Preparation(run, mine, Terminal(file=StringIO())).everything()
    texts, chats = plan(mine, folder=tmp_path / "run")["corpora"]
    shards = tmp_path / "run" / "shards"
    for corpus in (texts, chats):
        on_disk = sum(file.stat().st_size for file in (shards / corpus["name"]).glob("*.bin"))
        assert corpus["there"] == corpus["token_file_bytes"] == on_disk and not corpus["estimated"]
    sides = json.loads((shards / "texts" / "index.json").read_text())["sides"]
    assert texts["passes"] == texts["tokens_read"] / sides["train"]["tokens"]
    assert texts["text_bytes"] == sides["train"]["bytes"] + sides["heldout"]["bytes"]
    rows = json.loads((shards / "chats" / "index.json").read_text())["sides"]["train"]["rows"]
    assert chats["passes"] == chats["tokens_read"] / (128 * rows) and chats["text_bytes"] is None
    assert "~" not in shown(plan(mine, folder=tmp_path / "run"))
    others = (
        replace(mine, split=Split(share=0.3)),
        replace(mine, tokenizer=BPE(vocab=290)),
        replace(mine, corpora=mine.corpora | {"texts": Filtered(source=mine.corpora["texts"], filters=())}),
    )
    for other in others:
        assert plan(other, folder=tmp_path / "run")["corpora"][0]["estimated"]
    Path(mine.corpora["texts"].paths[0]).touch()
    assert plan(mine, folder=tmp_path / "run")["corpora"][0]["estimated"], "the run would encode it again"
    Path(mine.corpora["texts"].paths[0]).unlink()
    assert not plan(mine, folder=tmp_path / "run")["corpora"][0]["estimated"], "the run would take it as it is"


CARDS = {
    "slm-10m": [9_968_640],
    "odinnext-138m": [138_449_696, 138_451_232],
    "mtlm1-200m": [109_529_856, 194_482_944],
    "mtlm1-152m": [88_296_192, 152_015_616],
}


@pytest.mark.parametrize("name", CARDS)
def test_the_recipes_of_the_cards_release_models_of_their_size(name):
    made = plan(load_recipe(name))
    assert [entry["parameters"]["total"] for entry in made["releases"]] == CARDS[name]


def test_names_with_brackets_are_no_markup(recipe):
    made = plan(recipe(timeline=(tiny.pretraining(),)))
    made["phases"][0]["name"] = "[red]x"
    assert "[red]x" in shown(made | {"not_implemented": ["timeline.x: Part, [bold]what"]})
    assert "[bold]what" in shown(made | {"not_implemented": ["timeline.x: Part, [bold]what"]})


def test_figures_read_well():
    assert [number(value) for value in (0, 999, 1_000, 999_999, 138_449_696, 25e9)] == (
        "0;999;1.0 k;1.0 M;138.4 M;25.0 B".split(";")
    )
    assert [size(value) for value in (0, 1_023, 3_145_728, 1_048_575)] == "0 B;1023 B;3.0 MiB;1.0 MiB".split(";")
    seconds = (0.0123, 0.9999, 59.94, 59.96, 3_599.7, 15_120, 86_399, 1e6)
    words = "12.3 ms;1.0 s;59.9 s;1 min 0 s;1 h 0 min;4 h 12 min;1 d 0 h;11 d 14 h"
    assert [duration(value) for value in seconds] == words.split(";")
    assert flops(1.84e18) == "1.84e18" and flops(0) == "0"
    assert (price(1234.5, "EUR"), price(0.00123, None)) == ("1,234.50 EUR", "0.0012")
