"""The page about a run's tokenizer: bytes per token beside another one, unused ids, the longest tokens."""

import io

import browser
import pytest
import tiny
from rich.console import Console
from typer.testing import CliRunner

from lilliput.base.errors import DataError
from lilliput.cli.app import app
from lilliput.run import before_training
from lilliput.run.run_data import RunData
from lilliput.run.tokenizer_facts import KINDS, tokenizer_facts
from lilliput.tokenizer.bpe import BPE, save_tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    before_training.data(tiny.recipe(folder / "texts"), folder / "run", Console(file=io.StringIO()))
    return folder / "run"


def test_bytes_per_token_are_those_of_the_held_out_texts(run, tmp_path):
    bytes_alone = BPE(vocab=260, at_most=True).train([tiny.sentences(0)])
    save_tokenizer(bytes_alone, tmp_path / "bytes")
    data = RunData(run)
    facts = tokenizer_facts(data, [str(tmp_path / "bytes"), str(run)])
    assert facts.names == ["this run", str(tmp_path / "bytes"), str(run)]
    assert [one.name for one in facts.corpora] == ["texts", "chats"] and [one.name for one in facts.kinds] == list(
        KINDS
    )
    texts = facts.corpora[0]
    side = data.record("texts")["sides"]["heldout"]
    assert texts.bytes == side["bytes"] and texts.tokens[0] == side["tokens"] - side["documents"]  # end tokens aside
    assert texts.tokens[0] < texts.tokens[1] and texts.tokens[2] == texts.tokens[0]
    for name, pieces in facts.pieces.items():
        assert len(pieces) > 1, name
    assert [len(text) for text, _ in facts.longest] == sorted((len(text) for text, _ in facts.longest), reverse=True)
    # Of this text's letters all are used, of the 256 bytes most are not.
    assert 200 < facts.unused_bytes <= facts.unused < facts.vocabularies[0]


def test_what_is_no_tokenizer_is_refused(run, tmp_path):
    with pytest.raises(DataError, match="there is no folder 'nowhere'"):
        tokenizer_facts(RunData(run), ["nowhere"])
    with pytest.raises(DataError, match="there is no tokenizer"):
        tokenizer_facts(RunData(run), [str(tmp_path)])
    refused = CliRunner().invoke(app, ["tokenizer", str(run), "--beside", str(run)])
    assert refused.exit_code != 0


@pytest.mark.browser
def test_the_command_writes_a_page_that_a_browser_reads(run, tmp_path):
    told = CliRunner().invoke(app, ["tokenizer", str(run), "--report", "--beside", str(run)])
    assert told.exit_code == 0 and "occur in no training text" in told.output, told.output
    drawn = browser.dom(run / "tokenizer.html", tmp_path)
    assert drawn.count("<table>") == 3 and "longest tokens" in drawn
