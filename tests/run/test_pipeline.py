"""A whole run: raw text to published releases, again without work, continued after kills, the same to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
import torch
from rich.console import Console

from lilliput.base.errors import RunError
from lilliput.base.files import read_json, sha256
from lilliput.base.run_folder import RunFolder
from lilliput.base.units import Tokens
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.plan import foreseen
from lilliput.publish.load import load
from lilliput.recipe import read_recipe, vocabulary_of
from lilliput.report.records import read_run
from lilliput.run.listing import remove, since
from lilliput.run.pipeline import run
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import render
from lilliput.train.machine import Machine

pytestmark = pytest.mark.slow

MACHINE = Machine(device="cpu", precision="fp32", threads=1)


def walk(recipe, folder, machine=MACHINE):
    screen = StringIO()
    return run(recipe, folder, machine, Console(file=screen, width=200)), screen.getvalue()


@pytest.fixture(scope="module", params=["gqa", "hgrn2"])
def done(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    recipe = tiny.recipe(folder / "data", tiny.SPECS[request.param])
    releases, screen = walk(recipe, folder / "run")
    return recipe, folder / "run", releases, screen


def test_releases_are_whole(done):
    _, folder, releases, screen = done
    assert [release.name for release in releases] == ["tiny-base", "tiny-instruct"]
    for release in releases:
        card = (release / "README.md").read_text()
        evaluation = read_json(folder / "evals" / f"{release.name}.json")
        assert card.startswith("---\n") and evaluation["weights"] == sha256(release / "model.safetensors")
        for score in evaluation["scores"]:
            assert score["task"] in card
        assert "Training began and ended on `cpu`" in card and "No step had to be taken back." in card
        assert (release / "loss.png").read_bytes().startswith(b"\x89PNG")
        assert sha256(release / "model.safetensors")[:12] in screen
    tasks = [score["metric"] for score in read_json(folder / "evals" / "tiny-instruct.json")["scores"]]
    assert tasks[:2] == ["bits_per_byte", "acc"] and len(tasks) == 4


def test_base_and_instruct_have_their_own_sizes(done):
    _, _, (base, instruct), _ = done
    assert load(base).model.spec.vocab == 300 and load(instruct).model.spec.vocab == 302
    assert load(base).chat_template is None and load(instruct).chat_template is not None


def test_the_published_weights_are_the_trained_ones(done):
    _, folder, (_, instruct), _ = done
    from safetensors.torch import load_file

    trained = load_file(folder / "phases" / "04-sft" / "final" / "weights.safetensors")
    for name, value in load(instruct).model.named_parameters():
        assert torch.equal(value, trained[name].bfloat16().float()), name


def test_a_second_run_has_nothing_to_do(done):
    recipe, folder, releases, _ = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    began = time.perf_counter()
    again, _ = walk(recipe, folder)
    assert again == releases and time.perf_counter() - began < 5
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


def test_a_simple_text_has_the_vocabulary_that_it_fills(tmp_path):
    """So has the model, in the plan before, on the card, and when the run is taken up again."""
    whole = tiny.recipe(tmp_path / "data", replace(tiny.GQA_SPEC, vocab=60_000))
    recipe = replace(whole, tokenizer=BPE(vocab=60_000, at_most=True), timeline=whole.timeline[:3])
    folder = tmp_path / "run"
    planned = foreseen(recipe, folder)
    (release,), _ = walk(recipe, folder)
    spec = load(release).model.spec
    assert spec.vocab == planned == vocabulary_of(RunFolder(folder)) < 5_000
    assert f"| Vocabulary | {spec.vocab:,} tokens |" in (release / "README.md").read_text()
    assert walk(read_recipe(folder), folder)[0] == [release]
    assert read_run(folder).phases[0].parameters == spec.skeleton().parameter_counts()["total"]
    assert recipe.filled(400).model == replace(tiny.GQA_SPEC, vocab=400) and whole.filled(400) == whole


def test_only_what_depends_on_a_change_is_done_again(done, tmp_path):
    """Training is given up by hand; what depends on it is then made again, and nothing else."""
    recipe, folder, _, _ = done
    shorter = replace(recipe.timeline[4], tokens=Tokens(3 * 4 * 128))
    changed = replace(recipe, timeline=(*recipe.timeline[:4], shorter, *recipe.timeline[5:]))
    copy = tmp_path / "run"
    subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)
    before = {path.relative_to(copy): path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")}
    with pytest.raises(RunError, match="phase.tokens.count was"):
        walk(changed, copy)
    remove(copy, since(copy, "phases/04-sft"))
    walk(changed, copy)
    after = {path.relative_to(copy): path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")}
    redone = {str(path) for path in after if before.get(path) != after[path]}
    assert redone and all("04-sft" in path or "tiny-instruct" in path for path in redone)


def test_a_run_goes_on_where_its_texts_are_not(done, tmp_path):
    """Token files travel; of a corpus that is not there, what was made of it is taken as it is."""
    recipe, folder, releases, _ = done
    copy, data = tmp_path / "run", folder.parent / "data"
    subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)
    remove(copy, since(copy, "phases/00-pretrain"))
    (copy / "parts" / "baselines.texts.json").unlink()
    data.rename(data.with_name("elsewhere"))
    try:
        again, screen = walk(recipe, copy)
    finally:
        data.with_name("elsewhere").rename(data)
    assert "out of reach" in screen
    for one, other in zip(releases, again, strict=True):
        assert sha256(one / "model.safetensors") == sha256(other / "model.safetensors")
        made, before = (read_json(place / "evals" / f"{one.name}.json") for place in (copy, folder))
        assert made["baselines"] == before["baselines"]


def test_what_is_gone_or_damaged_is_made_again(done, tmp_path):
    recipe, folder, releases, _ = done
    copy = tmp_path / "run"
    subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)
    weights = copy / "releases" / "tiny-base" / "model.safetensors"
    weights.unlink()
    final = copy / "phases" / "04-sft" / "final" / "weights.safetensors"
    data = bytearray(final.read_bytes())
    data[-1] ^= 1
    final.write_bytes(data)
    (copy / "shards" / "texts" / "index.json").unlink()
    walk(recipe, copy)
    assert sha256(weights) == sha256(releases[0] / "model.safetensors")
    assert sha256(final) == sha256(folder / "phases" / "04-sft" / "final" / "weights.safetensors")


def test_another_machine_is_refused(done):
    recipe, folder, _, _ = done
    with pytest.raises(RunError, match="resuming here would change the weights: machine.threads was 1, not 2"):
        walk(recipe, folder, replace(MACHINE, threads=2))
    assert walk(recipe, folder, None)[0], "without a machine it goes on as it began"


def test_hugging_face_writes_what_we_write_without_our_code(done):
    """The instruct release in a process that cannot import lilliput: the same greedy tokens, and sampling works."""
    recipe, _, (_, instruct), _ = done
    native = "gqa" if "GQA" in str(recipe.model.mixer) else "hgrn2"
    questions = ["What comes after models 1?", "What comes after text 8?"]
    script = f"""
import json, sys
sys.modules["lilliput"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
kind = dict(trust_remote_code=True) if {native == "hgrn2"} else {{}}
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], **kind).float()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], **kind)
written = []
for question in {questions!r}:
    chat = [{{"role": "user", "content": question}}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    greedy = model.generate(**inputs, do_sample=False, max_new_tokens=20, repetition_penalty=1.1)
    sampled = model.generate(**inputs, do_sample=True, max_new_tokens=20, repetition_penalty=1.3)
    written.append([greedy[0, inputs["input_ids"].shape[1]:].tolist(), len(sampled[0])])
print(json.dumps(written))
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(instruct.parent.parent / "modules")}
    finished = subprocess.run(
        [sys.executable, "-c", script, str(instruct)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=instruct.parent,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    published = load(instruct)
    sampling = replace(published.generation.sampling, greedy=True)
    for question, (theirs, length) in zip(questions, json.loads(finished.stdout), strict=True):
        prompt = published.tokenizer.encode(render([{"role": "user", "content": question}], generation_prompt=True)).ids
        ours = list(
            Engine(published.model).stream(
                Request(prompt=prompt, sampling=sampling, stop_token_ids=published.stop_ids, max_new_tokens=20)
            )
        )
        assert ours == theirs and length > len(prompt)


def test_greedy_sampling_settings_do_not_leak(done):
    _, _, (_, instruct), _ = done
    assert load(instruct).generation.sampling == Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.1)


KILLED = """
import sys
sys.path.insert(0, sys.argv[3])
from io import StringIO
from pathlib import Path
import tiny
from rich.console import Console
from lilliput.run.pipeline import run
from lilliput.train.machine import Machine
run(tiny.recipe(Path(sys.argv[1])), Path(sys.argv[2]), Machine(device="cpu", precision="fp32", threads=1),
    Console(file=StringIO()))
"""


def test_killed_at_random_it_ends_in_the_same_weights(tmp_path):
    """SIGKILL at random moments of the whole line, run again each time until it ends by itself."""
    data = tmp_path / "data"
    straight, _ = walk(tiny.recipe(data), tmp_path / "straight")
    moments = random.Random(7)
    command = [sys.executable, "-c", KILLED, str(data), str(tmp_path / "killed"), str(Path(__file__).parents[1])]
    kills = 0
    for _ in range(12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, errors = process.communicate(timeout=moments.uniform(2.5, 5.0))
            assert process.returncode == 0, errors.decode()[-2000:]
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    else:
        subprocess.run(command, check=True)
    assert kills >= 1
    for release in straight:
        weights = tmp_path / "killed" / "releases" / release.name / "model.safetensors"
        assert sha256(weights) == sha256(release / "model.safetensors")
