"""Text of any origin is seen in the terminal, all of it, and makes nothing happen there."""

import json
import random
import unicodedata
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from tiny_releases import RELEASES, awake
from typer.testing import CliRunner

from lilliput.base.errors import LilliputError
from lilliput.base.terminal import Terminal, visible
from lilliput.cli import app
from lilliput.cli.app import complain
from lilliput.growth.add_tokens import resize_vocabulary
from lilliput.publish.export import Generation, export
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, CHATML, add_tokens
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.samples import Sample, Samples
from lilliput.train.validation import Measurement

CONTROLS = [chr(code) for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
TURNING = [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
NAME, SHOWN = "[/x]:smile:\x1b[2J\u202e", "[/x]:smile:\\x1b[2J\\u202e"
UNSEEN = [*"\xad\u200b\u2028\u2029\u2060\ufeff", "\U000e0041"]
NASTY = [*CONTROLS, *TURNING, *UNSEEN, "\ud800", "\udfff"]
COMMANDS = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x1b]8;;http://x\x1b\\", "\r\x1b[K", "\b\b"]
MARKUP = ["[red]", "[/x]", "[bold]", "[link=http://x]", ":smile:", "[", "]", "\\[", "[@click=f()]"]
PLAIN = [*"ab12 .,:;-_|<>\"'{}$", "é", "漢", "😀", "ש"]
TEXTS = [
    "".join(generator.choices([*NASTY, *COMMANDS, *MARKUP, *PLAIN], k=24))
    for generator in map(random.Random, range(60))
]


def acts(character):
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\n\t\u200c\u200d"


def shown(text):
    return "".join(c.encode("unicode_escape").decode() if acts(c) else c for c in text)


def screen(width=1000, **settings):
    return Terminal(file=StringIO(), width=width, **settings)


def test_every_character_that_acts_is_written_out_and_no_other():
    for text in TEXTS:
        assert visible(text) == shown(text) == visible(visible(text))
    assert visible("a\tb\nc é 漢 नमस्‍ते 👩‍🚀 می‌خواهم") == "a\tb\nc é 漢 नमस्‍ते 👩‍🚀 می‌خواهم"


@pytest.mark.parametrize("text", ["[red]a[/x]", ":smile:", "\x1b[31m", "a\r\nb", "\a\b\v\f\x7f\x9b"])
def test_what_a_line_says_is_what_it_was_given(text):
    console = screen()
    console.print(text)
    console.print(text, style="bold", soft_wrap=True)
    assert console.file.getvalue() == 2 * f"{shown(text)}\n"


@pytest.mark.parametrize("of_terminal", [False, True])
def test_nothing_acts_and_all_is_there(of_terminal):
    """Prints, cells, headings, titles, what rich makes of other things, and the line that changes."""
    for text in TEXTS:
        console = screen(force_terminal=of_terminal, color_system=None)
        table = Table(text, "b", title=text, caption=text)
        table.add_row(text, "1")
        console.print(text, 1, text)
        console.print(table)
        console.print(Text(text), Panel(text))
        console.print([text])
        out = console.file.getvalue()
        assert not [c for c in out if acts(c)], ascii(out)
        assert out.count(shown(text)) >= 6, ascii(text)
        with console.status(text) as status:
            status.update(f"{text}, later")
        out = console.file.getvalue()
        assert (f"{shown(text)}, later" in out) == of_terminal, ascii(out)
        ours = out.replace("\x1b[?25l", "").replace("\x1b[?25h", "").replace("\x1b[1A\x1b[2K", "").replace("\r", "")
        assert not [c for c in ours if acts(c)], ascii(out)


def test_escaped_cells_leave_a_table_straight():
    for text in TEXTS:
        console = screen(width=300)
        table = Table("a", "b", title=text)
        table.add_row(text, "1")
        table.add_row("c", text)
        console.print(table)
        framed = [line for line in console.file.getvalue().splitlines() if line[0] in "┏┃┡│└"]
        assert len(framed) >= 6 and len({cell_len(line) for line in framed}) == 1, console.file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A release whose vocabulary is full of commands to the terminal, and whose model writes them."""
    spec, layout = RELEASES["qwen3"]
    words = add_tokens(BPE(vocab=spec.vocab).train([" ".join(COMMANDS + TURNING)] * 3), CHATML)
    made = resize_vocabulary(awake(spec), words.get_vocab_size(), noise=0.1, seed=0)
    folder = tmp_path_factory.mktemp("model") / "nasty"
    folder.mkdir()
    settings = Generation(temperature=2.0, max_new_tokens=48)
    export(made, words, folder, layout=layout, dtype="F32", generation=settings, chat_template=CHAT_TEMPLATE)
    return folder


def said(*arguments, **how):
    finished = CliRunner().invoke(app, [*map(str, arguments)], **how)
    assert finished.exit_code == 0, finished.output
    return finished.output


def test_what_a_model_writes_is_seen(model):
    asked = ["generate", model, "--prompt", "a", "--seed", "2"]
    out, exact = (CliRunner().invoke(app, [*map(str, asked), *more]).stdout for more in ([], ["--json"]))
    text = json.loads(exact)["text"]
    assert {"\x1b", "\x9b"} & set(text) and any(map(acts, text)), "it should try"
    assert out == f"{shown(text)}\n"
    assert not [c for c in out + exact if acts(c)]


def test_so_it_is_in_a_conversation(model):
    out = said("chat", model, "--seed", "3", input="[/x] hello\nagain \x1b[2J\n\n")
    assert out.count("model ") == 2 and "\\x9b" in out and not [c for c in out if acts(c)], ascii(out)


def test_choices_are_shown_as_they_were_typed(model):
    choices = ["[red]", "[/x]", ":smile:", "\x1b[2J", "a|b"]
    out = said("score", model, "--context", "b", *(word for choice in choices for word in ("--choice", choice)))
    assert all(f"\n {shown(choice)} " in out for choice in choices) and not [c for c in out if acts(c)], out


def test_errors_say_what_is_wrong_in_full(capsys):
    with pytest.raises(SystemExit):
        complain(LilliputError(f"no {NAME}", where=NAME, hint=f"{NAME} ?"))
    assert capsys.readouterr().err == f"LilliputError: no {SHOWN}\n  where: {SHOWN}\n  hint: {SHOWN} ?\n"


def test_a_recipe_is_listed_as_it_is_written(tmp_path):
    file = tmp_path / "listed.py"
    file.write_text(f"from lilliput.recipes.quickstart import recipe  # {NAME}\n")
    assert said("recipe", "show", file) == f"from lilliput.recipes.quickstart import recipe  # {SHOWN}\n"


def test_a_phase_of_any_name_is_watched(tmp_path):
    for of_terminal in (False, True):
        console = screen(force_terminal=of_terminal, color_system=None)
        with MetricsLogger(tmp_path / f"{of_terminal}.jsonl", console, NAME, 1, 0, None) as watch:
            watch.log_step(1, 32, 32, {"cross_entropy": 2.0})
            samples = Samples(written=(Sample(corpus=NAME, prompt=NAME, text=NAME),), failure=NAME)
            watch.log_validation(1, 32, Measurement(heldout={NAME: 1.5}, samples=samples))
        assert f"  {SHOWN} step 1: {SHOWN} 1.5000" in console.file.getvalue()
        assert f"    {SHOWN} | {SHOWN}\n" in console.file.getvalue()
        assert f"  {SHOWN} step 1: no samples: {SHOWN}" in console.file.getvalue()
        assert NAME not in console.file.getvalue()


def test_a_long_line_goes_on_below_its_beginning_in_a_terminal_and_is_whole_in_a_file() -> None:
    for is_terminal, lines in ((True, 2), (False, 1)):
        console = Terminal(file=StringIO(), width=30, force_terminal=is_terminal)
        console.print("  a score: within two standard errors of chance; by a sum", soft_wrap=True)
        shown = console.file.getvalue().rstrip("\n").split("\n")
        assert len(shown) == lines and all(line.startswith("  ") for line in shown)
