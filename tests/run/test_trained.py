"""What a run has trained is asked without a release: a mixer of one's own writes, scores and is evaluated."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file
from tiny_commands import lilliput, refused, workshop
from tiny_releases import RELEASES, awake, tokenizer

import lilliput as package
from lilliput.base.errors import RecipeError, RunError
from lilliput.base.terminal import Terminal
from lilliput.evals.native_model import Native
from lilliput.evals.question_files import Hub
from lilliput.evals.run_suite import evaluate_by_name
from lilliput.publish.export import Generation, export
from lilliput.recipe import load_recipe
from lilliput.run.pipeline import train
from lilliput.run.trained import read_trained
from lilliput.tokenizer.bpe import OURS
from lilliput.train.machine import Machine

MINE = """
from dataclasses import dataclass
from lilliput.nn.hgrn2 import HGRN2

@dataclass(frozen=True, kw_only=True)
class {name}(HGRN2):
    "A mixer that no layout knows."

recipe = replace(
    recipe, name="own", model=replace(recipe.model, mixer={name}(heads=4)), timeline=recipe.timeline[:{entries}]
)
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Runs of a mixer of one's own, with the average taken over after training, and of one that is ours."""
    folder = workshop(tmp_path_factory.mktemp("trained"), entries=2)
    plain = (folder / "mine.py").read_text()
    (folder / "own.py").write_text(plain + MINE.format(name="Mine", entries=2))
    (folder / "released.py").write_text(plain.replace("[:2]", "[:3]") + MINE.format(name="Other", entries=3))
    lilliput("train", "own.py", "--machine", "small.py", "--out", "own", "--set", "seed=3", folder=folder)
    lilliput("train", "mine.py", "--machine", "small.py", "--out", "ours", folder=folder)
    return folder


@pytest.mark.slow
def test_it_is_asked_with_the_recipe_file_alone(desk):
    words = ("--prompt", "small models", "--max-new-tokens", 8)
    told = lilliput("generate", "own.py", "--out", "own", *words, folder=desk)
    assert told.out.strip() and "own has released nothing: these are its weights after pretrain" in told.err
    refused("generate", "own", *words, folder=desk, says="its own (own:Mine)", where="own/code/")
    lilliput("generate", "own", *words, "--trust-code", folder=desk)
    scored = lilliput("score", "own.py", "--out", "own", "--choice", "models", "--choice", "qq", "--json", folder=desk)
    assert json.loads(scored.out)["choices"][0]["choice"] == "models"
    ours = lilliput("generate", "ours", *words, "--json", folder=desk)
    assert json.loads(ours.out)["model"] == "ours", "and types of ours need no file"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["own.py"], "lilliput train own.py --out runs/own"),
        (["own", "--out", "own"], "own is a folder itself"),
        (["ownn"], "nearest names: own"),
        (["own.py", "--out", "texts"], "give the run's folder with --out"),
    ],
)
def test_a_wrong_run_is_told(desk, words, says):
    refused("generate", *words, folder=desk, says=says)


@pytest.mark.slow
def test_it_is_evaluated_as_any_model(desk):
    words = ("--out", "own", "--suite", "quickstart", "--limit", 12, "--json")
    found = json.loads(lilliput("eval", "own.py", *words, folder=desk).out)
    scores = {score["task"]: score for score in found["scores"]}
    assert scores["held-out text, bits per byte"]["value"] < 3.5 and scores["held-out text, bits per byte"]["stderr"]
    assert scores["arithmark2-synthetic"]["chance"] == 0.25
    assert found["model_code"] == "lilliput"
    code = ("--model-code", "transformers")
    refused("eval", "own.py", "--out", "own", *code, folder=desk, says="leave it out", where="--model-code")


def test_a_layout_says_what_still_works(desk):
    err = refused("plan", "released.py", folder=desk, says="cannot express mixer=Other")
    assert "lilliput generate" in err


def test_the_weights_are_those_of_the_end_with_what_comes_after(desk, tmp_path):
    with pytest.raises(RecipeError, match="own:Mine"):
        package.load_trained("quickstart", desk / "own")
    run = desk / "ours"
    model = package.load_trained(str(desk / "mine.py"), run, device="cpu")
    average = load_file(run / "phases/00-pretrain/final/average.safetensors")
    assert torch.equal(model.module.embedding.weight, average["embedding.weight"]), "UseEma comes after the phase"
    assert model.context == 32 and model.generate("small", max_new_tokens=4, seed=1)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    weights = copy / "phases/00-pretrain/final/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="is not the file that was trained"):
        read_trained(copy)
    shutil.rmtree(copy / "phases")
    with pytest.raises(RunError, match="missing"):
        read_trained(copy)
    (copy / "parts/phases.00-pretrain.json").unlink()
    with pytest.raises(RunError, match="nothing is trained yet") as untrained:
        read_trained(copy)
    assert untrained.value.hint == f"train it: lilliput train {copy}"


def test_a_run_that_is_on_its_way_is_as_a_release_there_would_be(tmp_path):
    """Chat tokens of a phase that is not trained are not there; the average of the release before it is."""
    folder = workshop(tmp_path, entries=6)
    recipe, quiet = load_recipe(str((folder / "mine.py").rename(folder / "two_phases.py"))), Terminal(quiet=True)
    train(recipe, folder / "run", Machine(device="cpu", precision="fp32", threads=1), quiet, until="pretrain")
    trained = read_trained(folder / "run")
    assert (trained.phase.name, trained.left) == ("pretrain", ("sft",)) and trained.published.chat_template is None
    assert trained.published.model.spec.vocab == tiny.VOCAB and trained.published.context == 512
    average = load_file(folder / "run/phases/00-pretrain/final/average.safetensors")
    assert torch.equal(trained.published.model.embedding.weight, average["embedding.weight"])


def test_a_native_model_scores_as_its_export_does(tmp_path):
    spec, layout = RELEASES["llama"]
    model, long = awake(spec), replace(layout, context=256)
    native = Native(name="here", model=model, tokenizer=tokenizer(), special_tokens=OURS.names(), context=256)
    export(model, tokenizer(), tmp_path, layout=long, dtype="F32", generation=Generation(), chat_template=None)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": tiny.sentences(number) * 3}) + "\n" for number in range(4)))
    one, other = (
        evaluate_by_name(subject, "quickstart", Hub(), heldout=texts, limit=12) for subject in (native, tmp_path)
    )
    for mine, theirs in zip(one.scores, other.scores, strict=True):
        assert mine.value == pytest.approx(theirs.value, rel=1e-5) and mine.stderr == pytest.approx(
            theirs.stderr, rel=1e-4
        )
    assert len(one.scores) == 2
