"""The commands as people type them: what they print, what they say when something is wrong."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_hub import hub
from typer.testing import CliRunner

from lilliput.cli import app
from lilliput.recipe import load_machine, load_recipe, names
from lilliput.recipes.slm_10m_hopper import TEXT

pytestmark = pytest.mark.slow

RECIPE = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from pathlib import Path
import tiny
recipe = tiny.recipe(Path({data!r}))
"""


def lilliput(*arguments, folder=None, expected=0, env=None):
    words = [sys.executable, "-m", "lilliput", *map(str, arguments)]
    finished = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=env)
    assert finished.returncode == expected, finished.stdout + finished.stderr
    return finished


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    recipe = folder / "mine.py"
    recipe.write_text(RECIPE.format(tests=str(Path(__file__).parents[1]), data=str(folder / "data")))
    machine = folder / "small.py"
    machine.write_text("from lilliput.train.machine import Machine\n\nmachine = Machine(device='cpu', threads=1)\n")
    finished = lilliput("run", recipe, "--machine", machine, "--set", "timeline.pretrain.tokens=2000", folder=folder)
    return folder, finished


def test_run_prints_where_the_models_are_their_scores_and_a_sample(run):
    folder, finished = run
    assert "runs/tiny/releases/tiny-instruct" in finished.stdout and "bits_per_byte" in finished.stdout
    assert "xz" in finished.stdout and "README.md" in finished.stdout
    assert not finished.stderr, "nothing but errors belongs there"
    recorded = json.loads((folder / "runs" / "tiny" / "recipe.json").read_text())
    assert recorded["timeline"][0]["tokens"]["count"] == 2000, "an override is recorded"


def test_generate_is_a_function_of_the_seed_and_answers_in_the_template(run):
    folder, _ = run
    model = folder / "runs" / "tiny"
    one, again, other = (
        lilliput(
            "generate", model, "--prompt", "What comes after text 3?", "--seed", seed, "--max-new-tokens", 12
        ).stdout
        for seed in (1, 1, 2)
    )
    assert one == again != other
    base = model / "releases" / "tiny-base"
    assert lilliput("generate", base, "--greedy", "--max-new-tokens", 5).stdout.strip() is not None


def test_chat_answers_until_the_input_ends_and_a_base_model_goes_on(run):
    folder, _ = run
    command = [sys.executable, "-m", "lilliput", "chat", "--max-new-tokens", "3", "--temperature", "0"]
    said = b"hello\n\xff\n/reset\nagain\n"  # of which the second is no UTF-8
    for model in (folder / "runs" / "tiny", folder / "runs" / "tiny" / "releases" / "tiny-base"):
        finished = subprocess.run([*command, str(model)], input=said, capture_output=True)
        assert finished.returncode == 0 and finished.stdout.count(b"model ") == 2 and b"you " not in finished.stdout, (
            finished.stderr
        )
        assert b"unpaired surrogate" in finished.stdout and b"Traceback" not in finished.stderr
        assert (b"base model" in finished.stdout) == ("base" in model.name)


def test_push_shows_what_it_would_upload_and_uploads_it_only_if_told_to(run, tmp_path):
    folder = run[0] / "runs" / "tiny" / "releases" / "tiny-base"
    words = ("publish", folder, "--push", "me/garden")
    with hub() as there:
        shown = lilliput(*words, env=there.environment(tmp_path)).stdout.splitlines()
        assert not there.requests, "a dry run asks the hub nothing"
        made = lilliput(*words, "--yes", env=there.environment(tmp_path)).stdout.splitlines()
    assert shown[-1] == "nothing was uploaded; --yes uploads it"
    assert made[-1] == f"uploaded: {there.address}/me/garden/commit/1" and made[:-1] == shown[:-1]
    listed = {line.split()[0] for line in shown if line.startswith("  ")}
    assert listed == set(there.files()) >= {"README.md", "record.json", "model.safetensors"}


CARDS = {
    "slm-10m": (9_968_640, [9_968_640]),
    "odinnext-138m": (138_449_696, [138_449_696, 138_451_232]),
    "odinnext-138m-best": (138_449_696, [138_449_696, 138_451_232]),
    "mtlm1-200m": (109_529_856, [109_529_856, 194_482_944]),
    "mtlm1-152m": (88_296_192, [88_296_192, 152_015_616]),
}


@pytest.mark.parametrize("name", names("lilliput.recipes"))
def test_every_recipe_can_be_planned(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turns = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]'
    text = '{"text": "A few words."}'
    kinds = {f"corpus/{kind}": text for kind in TEXT}
    for own, row in {"texts": text, "chats": f'{{"messages": {turns}}}', **kinds}.items():
        (tmp_path / own).mkdir(parents=True)
        (tmp_path / own / "a.jsonl").write_text(f"{row}\n")
    plan = json.loads(CliRunner().invoke(app, ["plan", name, "--json"]).stdout)
    assert plan["phases"] and all(phase["steps"] > 0 for phase in plan["phases"])
    if name in CARDS:
        first, sizes = CARDS[name]
        assert plan["model"]["parameters"]["total"] == first
        assert {release["parameters"]["total"] for release in plan["releases"]} <= set(sizes)
        assert plan["releases"][-1]["parameters"]["total"] == sizes[-1]
    if name == "odinnext-138m":
        base = plan["releases"][0]
        assert base["parameters"]["non_embedding"] == 113_283_872 and base["state_bytes"]["fp16"] == 3_145_728
        assert not plan["not_implemented"]
    assert "parameters" in CliRunner().invoke(app, ["plan", name]).stdout


def test_a_copied_recipe_has_the_name_of_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in names("lilliput.recipes"):
        copied = CliRunner().invoke(app, ["recipe", "copy", name])
        own = f"my_{name.replace('-', '_')}"
        assert copied.exit_code == 0 and f"runs/{own}" in copied.stdout
        text = (tmp_path / f"{own}.py").read_text()
        assert text.startswith(f'"""{own}, a copy of {name}.\n\n') and f"lilliput run {name} " not in text
        before = load_recipe(name)
        timeline = [
            replace(entry, name=own) if getattr(entry, "name", "") == name else entry for entry in before.timeline
        ]
        assert load_recipe(f"{own}.py") == replace(before, name=own, timeline=tuple(timeline))


def test_every_machine_loads():
    for name in names("lilliput.machines"):
        assert load_machine(name).held_out_rows(1) > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "runs/nothing"], "the folder does not exist"),
        (["plan", "own-text", "--source", "texts=nowhere"], "there is no file or folder 'nowhere'"),
        (["run", "quickstrat"], "nearest names: quickstart"),
        (["train", "copied"], "no folder of that name"),
        (["clean", "runs/nope"], "the folder does not exist"),
        (["compare", "runs/nope", "runs/nope"], "the folder does not exist"),
        (["generate", "runs/own-text"], "`lilliput run own-text` makes it"),
        (["run", "missing.py"], "does not exist"),
        (["run", "quickstart", "--machine", "cpuu"], "nearest names: cpu"),
        (["run", "quickstart", "--set", "seed"], "has no value"),
        (["plan", "quickstart", "--set", "modle.width=3"], "nearest names: model"),
        (["generate", "nowhere"], "hint:"),
    ],
)
def test_mistakes_get_an_answer(arguments, says, tmp_path):
    refused = lilliput(*arguments, folder=tmp_path, expected=1)
    assert says in refused.stderr and "where:" in refused.stderr and "Traceback" not in refused.stderr
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_a_file_without_a_recipe_says_so(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert "no Recipe named `recipe`" in lilliput("run", tmp_path / "empty.py", expected=1).stderr
    (tmp_path / "broken.py").write_text("recipe = 1 / 0\n")
    assert "ZeroDivisionError" in lilliput("run", tmp_path / "broken.py", expected=1).stderr


def test_the_two_quickstarts_differ_in_the_mixer_alone():
    one, other = load_recipe("quickstart"), load_recipe("quickstart-gqa")
    assert one.corpora == other.corpora and one.tokenizer == other.tokenizer
    assert [type(entry) for entry in one.timeline] == [type(entry) for entry in other.timeline]
