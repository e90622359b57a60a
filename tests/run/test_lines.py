"""The sweep of LiNeS: at its end the tuned model, at its beginning more of the pretrained one, in a table and JSON."""

import json

import pytest
import tiny
import tiny_commands
from rich.console import Console

from lilliput.base.errors import RecipeError, RunError
from lilliput.data.chat_rows import PackedChats
from lilliput.evals.answer_bits import answer_bits, bits_score
from lilliput.run import pipeline
from lilliput.run.lines import sweep_lines
from lilliput.run.trained import read_trained
from lilliput.train.machine import Machine

MACHINE = Machine(device="cpu", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines")
    pipeline.train(tiny.recipe(folder / "data"), folder / "run", MACHINE, Console(quiet=True))
    return folder


def test_the_last_point_is_the_tuned_model(desk):
    said = []
    growth, points = sweep_lines(desk / "run", alphas=(0.0, 1.0), device="cpu", report=said.append)
    assert (growth.phase, growth.weights) == ("pretrain", "average") and said == ["alpha 0", "alpha 1"]
    trained = read_trained(desk / "run").published
    talks = [messages for _, messages in PackedChats(desk / "run/shards/chats").heldout_conversations()]
    expected = bits_score("x", answer_bits(trained.model, trained.tokenizer, talks, context=trained.context))
    assert points[1].answers == pytest.approx(expected.value) and points[1].answers_stderr == expected.stderr
    assert points[0].answers > points[1].answers and points[0].texts["texts"] != points[1].texts["texts"]
    assert (points[0].alpha, points[0].beta) == (0.0, 1.0)


def test_the_command_prints_a_table_and_writes_it(desk):
    made = tiny_commands.lilliput(
        "lines", "run", "--alpha", "0,0.5,1", "--limit", "5", "--records", "l.json", "--device", "cpu", folder=desk
    )
    assert "answers" in made.out and "texts" in made.out and 'LiNeS(phase="pretrain"' in made.out
    found = json.loads((desk / "l.json").read_text())
    assert [one["alpha"] for one in found["lines"]] == [0.0, 0.5, 1.0] and found["weights"] == "average"
    tiny_commands.refused("lines", "run", "--alpha", "x", folder=desk, says="are no numbers")


def test_what_has_no_earlier_weights_is_refused(desk):
    with pytest.raises(RecipeError, match="there is no phase 'pre'"):
        sweep_lines(desk / "run", phase="pre", device="cpu")
    with pytest.raises(RunError, match="nothing is trained after 'sft'"):
        sweep_lines(desk / "run", phase="sft", device="cpu")
