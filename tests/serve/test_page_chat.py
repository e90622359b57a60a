"""The web chat in a real browser, against a server that answers as a test wants."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_session import BrowserSession
from scripted_server import Answer, ScriptedServer, serving

pytestmark = pytest.mark.browser
HELLO = Answer(pieces=("Hello", " **there**", "."))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as server:
        yield server


@pytest.fixture
def page(chromium, server) -> BrowserSession:
    """The page as a stranger to it has it: nothing stored, a wide window, a light system."""
    chromium.resize(1100, 800)
    chromium.prefer(color_scheme="light")
    opened(chromium, server)
    return chromium


def opened(chromium: BrowserSession, server: ScriptedServer) -> None:
    chromium.open(server.url)
    chromium.wait("document.body.matches('.chat, .base')")


def done(page: BrowserSession, turns: int) -> None:
    """Wait for the end of an answer."""
    page.wait(
        f"!document.body.classList.contains('writing') && document.querySelectorAll('.turn').length === {turns}"
        " && !document.querySelector('.turn.writing')"
    )


def say(page: BrowserSession, text: str) -> None:
    page.click("#message")
    page.write(text)
    page.press("Enter")


def asked(page: BrowserSession, server: ScriptedServer, *answers: Answer) -> None:
    """A conversation of as many questions as answers."""
    server.answers = list(answers)
    for number in range(len(answers)):
        say(page, f"Question {number + 1}")
        done(page, 2 * number + 2)


def bodies(page: BrowserSession) -> list[str]:
    return page.texts(".turn .body")


def test_a_message_is_sent_and_its_answer_streams_in(page, server):
    hold = threading.Event()
    server.answers = [Answer(pieces=("Hello", " **there**"), hold=hold, cached=96, pause=0.05)]
    say(page, "Who is there?")
    page.wait("document.querySelector('.assistant strong')")
    assert bodies(page) == ["Who is there?", "Hello there"]
    assert page.run("document.querySelector('.assistant').getAttribute('aria-busy')") == "true"
    assert page.run("document.getElementById('announcements').textContent") == ""
    hold.set()
    done(page, 2)
    assert page.run("document.getElementById('announcements').textContent").strip() == "Hello **there**"
    (request,) = server.requests
    assert request["messages"] == [{"role": "user", "content": "Who is there?"}]
    assert request["stream"] and request["stream_options"] == {"include_usage": True}
    assert request["logprobs"] is True and request["top_logprobs"] == 5
    assert set(request) == {"model", "messages", "stream", "stream_options", "logprobs", "top_logprobs"}
    figures = page.texts("#meter span")
    assert figures[0].endswith(" tokens/s") and figures[1].endswith(" s to the first")
    assert figures[2:] == ["24 tokens read", "96 reused", "state 6.0 MiB"]
    assert page.run("document.activeElement.id") == "message" and page.run("document.activeElement.value") == ""
    assert page.complaints == []


def test_a_growing_state_is_shown_at_its_size(page, server):
    server.model |= {"states_grow": True, "state_bytes": 81920, "context": 8192}
    opened(page, server)
    asked(page, server, HELLO)
    assert page.texts("#meter span")[-1] == "state 1.2 KiB"  # 123 tokens of 8192
    assert "up to 80.0 KiB" in page.text("header .facts")


@pytest.mark.parametrize("way", ["button", "key"])
def test_an_answer_is_stopped_and_kept(page, server, way):
    hold = threading.Event()
    server.answers = [Answer(pieces=("Half an", " answer"), hold=hold), HELLO]
    say(page, "Tell me everything")
    page.wait("document.querySelector('.assistant .body').innerText === 'Half an answer'")
    page.write("next")
    page.press("Enter")  # nothing is sent while an answer is being written, and nothing is lost
    if way == "button":
        page.click("#stop")
    else:
        page.press("Escape")
    done(page, 2)
    assert server.left.wait(60)
    hold.set()
    assert page.text(".assistant .note") == "Stopped."
    assert page.run("document.getElementById('message').value") == "next"
    page.click("#message")
    page.press("Enter")
    done(page, 4)
    assert [message["content"] for message in server.requests[1]["messages"]] == [
        "Tell me everything",
        "Half an answer",
        "next",
    ]


def test_another_answer_stands_beside_the_first(page, server):
    asked(page, server, HELLO)
    server.answers = [Answer(pieces=("Welcome",))]
    page.click(".assistant button[aria-label='Try again']")
    done(page, 2)
    assert bodies(page) == ["Question 1", "Welcome"]
    assert server.requests[0]["messages"] == server.requests[1]["messages"]
    assert page.text(".assistant .branches") == "2 of 2"
    page.click("button[aria-label='Earlier version']")
    assert bodies(page) == ["Question 1", "Hello there."]
    page.click("button[aria-label='Later version']")
    assert bodies(page) == ["Question 1", "Welcome"]


def test_an_edited_message_branches_the_conversation(page, server):
    asked(page, server, HELLO, Answer(pieces=("Second",)))
    server.answers = [Answer(pieces=("Otherwise",))]
    page.click(".user button[aria-label=Edit]")
    page.press("Escape")
    assert bodies(page)[0] == "Question 1"
    page.click(".user button[aria-label=Edit]")
    page.write("Question 1, ")
    page.run("document.activeElement.value = 'Another question'")
    page.press("Enter")
    done(page, 2)
    assert bodies(page) == ["Another question", "Otherwise"]
    assert server.requests[-1]["messages"] == [{"role": "user", "content": "Another question"}]
    page.click("button[aria-label='Earlier version']")
    assert bodies(page) == ["Question 1", "Hello there.", "Question 2", "Second"]


def test_settings_are_sent_checked_remembered_and_reset(page, server):
    page.click("#settings-button")
    for name, value in {"system": "Be brief.", "temperature": "0.5", "max_tokens": "12", "seed": "7"}.items():
        page.click(f"#{name}")
        page.write(value)
    page.press("Escape")
    assert page.run("document.activeElement.id") == "settings-button"
    asked(page, server, HELLO)
    request = server.requests[0]
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {name: request[name] for name in ("temperature", "max_tokens", "seed")} == {
        "temperature": 0.5,
        "max_tokens": 12,
        "seed": 7,
    }
    assert "top_p" not in request
    opened(page, server)
    assert page.run("document.getElementById('temperature').value") == "0.5"
    page.click("#settings-button")
    page.run("document.getElementById('temperature').value = '-1'")
    say(page, "Not sent")
    assert page.run("document.activeElement.id") == "temperature"
    assert page.run("document.getElementById('message').value") == "Not sent"
    page.click("#settings button[type=reset]")
    page.wait("localStorage.getItem('lilliput.settings') === null")
    assert page.run("document.getElementById('system').value") == ""


def test_a_reload_loses_nothing_and_a_new_conversation_begins_empty(page, server):
    asked(page, server, HELLO)
    page.click("#message")
    page.write("half typed")
    opened(page, server)
    assert bodies(page) == ["Question 1", "Hello there."]
    assert page.run("document.getElementById('message').value") == "half typed"
    page.click("#new-button")
    assert bodies(page) == [] and not page.run("document.getElementById('welcome').hidden")
    opened(page, server)
    assert bodies(page) == []


def test_a_reload_keeps_what_was_written_of_an_answer(page, server):
    hold = threading.Event()
    server.answers = [Answer(pieces=("Half an", " answer"), hold=hold), HELLO]
    say(page, "Tell me everything")
    page.wait("document.querySelector('.assistant .body')?.innerText === 'Half an answer'")
    opened(page, server)
    hold.set()
    assert bodies(page) == ["Tell me everything", "Half an answer"]
    say(page, "And now?")
    done(page, 4)
    assert [one["content"] for one in server.requests[-1]["messages"]] == [
        "Tell me everything",
        "Half an answer",
        "And now?",
    ]


def test_a_conversation_is_downloaded_as_a_row(page, server, tmp_path):
    page.run("lasting.write('settings', {system: 'Be brief.'})")
    opened(page, server)
    asked(page, server, HELLO)
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#download-button")
    path = tmp_path / "conversation.jsonl"
    wait_for(page, path)
    assert json.loads(path.read_text()) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Question 1"},
            {"role": "assistant", "content": "Hello **there**."},
        ]
    }


def wait_for(page: BrowserSession, path: Path) -> None:
    for _ in range(500):
        if path.exists() and path.read_text().endswith("\n"):
            return
        page.run("new Promise(settle => setTimeout(settle, 20))")
    pytest.fail(f"nothing was written to {path}")


def test_the_theme_follows_the_system_until_it_is_switched(page, server):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    page.prefer(color_scheme="dark")
    dark = page.run(ground)
    assert light != dark
    page.click("#theme-button")
    assert page.run(ground) == light
    opened(page, server)
    assert page.run(ground) == light
    page.click("#theme-button")
    assert page.run(ground) == dark
    page.prefer(color_scheme="light")
    assert page.run(ground) == light


def test_nothing_is_wider_than_a_phone(page, server):
    wide = (
        "word" * 60 + "\n\n| " + " | ".join(["column"] * 12) + " |\n|" + "---|" * 12 + "\n\n```\n" + "x" * 300 + "\n```"
    )
    asked(page, server, Answer(pieces=(wide,)), Answer(status=400, message="y" * 200))
    page.resize(400, 800)
    fits = "document.scrollingElement.scrollWidth <= innerWidth"
    assert page.run(fits)
    page.click("#settings-button")
    assert page.run(fits)
    page.press("Escape")
    page.click("#tokens-button")
    assert page.run(fits)
    page.click(".user button[aria-label=Edit]")
    assert page.run(fits)
    page.hover(".token")
    box = page.run(
        "(({left, right}) => [left, right])(document.getElementById('distribution').getBoundingClientRect())"
    )
    assert box[0] >= 0 and box[1] <= 400
    server.model["chat"] = False
    opened(page, server)
    assert page.run(fits)


def test_tokens_show_what_else_was_likely_to_pointer_and_keys(page, server):
    asked(page, server, HELLO)
    assert page.texts(".token") == []
    page.click("#tokens-button")
    assert page.run("document.getElementById('tokens-button').getAttribute('aria-pressed')") == "true"
    assert page.run("[...document.querySelectorAll('.token')].map(each => each.textContent)") == list(HELLO.pieces)
    page.hover(".token:nth-child(2)")
    rows = page.texts("#distribution .candidate")
    assert [row.split("\n")[0] for row in rows] == ["·**there**", "·other1", "·other2", "·other3", "·other4"]
    assert rows[0].endswith("78.0 %") and rows[1].endswith("28.7 %")
    page.run("document.querySelector('.token').focus()")
    page.press("ArrowRight")
    page.press("End")
    assert page.run("document.activeElement.textContent") == "."
    assert page.run("document.activeElement.getAttribute('aria-describedby')") == "distribution"
    assert page.texts("#distribution .candidate.written")[0].split("\n")[0] == "."
    page.press("Escape")
    assert page.run("document.getElementById('distribution').hidden")
    page.click("#tokens-button")
    assert bodies(page)[1] == "Hello there."


def test_the_page_is_used_by_keys_alone(page, server):
    server.answers = [HELLO, HELLO]
    page.run("document.activeElement.blur()")
    page.press("Tab")
    assert page.text(":focus") == "To the text field"
    reached = []
    while (where := page.run("document.activeElement.id")) != "message":
        reached.append(where)
        page.press("Tab")
        assert page.run("document.activeElement.matches(':focus-visible')")
    assert reached[1:] == "new-button download-button tokens-button settings-button theme-button".split()
    page.write("One")
    page.press("Shift+Enter")
    page.write("two")
    page.press("Enter")
    done(page, 2)
    assert server.requests[0]["messages"][0]["content"] == "One\ntwo"
    page.press("Shift+Tab")  # the actions of the answer come before the field
    assert page.text(":focus") == "Copy"
    page.press("Shift+Tab")
    page.press("Enter")
    done(page, 2)
    assert page.text(".branches") == "2 of 2"


@pytest.mark.parametrize(
    ("answer", "message", "advice"),
    [
        (Answer(status=429, message="too many requests", headers={"Retry-After": "4"}), "Too many", "in 4 seconds"),
        (Answer(status=400, message="the prompt has 9,000 tokens"), "The prompt has 9,000 tokens.", "settings"),
        (Answer(status=500), "", "Try again"),
        (Answer(pieces=("Half", " a"), cut_off=True), "The connection was lost", "What was written so far is kept."),
    ],
)
def test_an_error_is_told_beside_the_message_and_nothing_is_lost(page, server, answer, message, advice):
    server.answers = [answer, HELLO]
    say(page, "A long question")
    done(page, 2)
    assert bodies(page)[0] == "A long question" and bodies(page)[1] == "".join(answer.pieces)
    told = page.text(".assistant .error p")
    assert told.startswith(message) and advice in told
    page.click(".assistant .error button")
    done(page, 2)
    assert bodies(page) == ["A long question", "Hello there."]
    assert page.texts(".turn .error") == []
    assert page.texts(".branches") == ([] if not answer.pieces else ["2 of 2"])


def test_a_server_that_is_gone_is_told_and_asked_again(page, server):
    page.connect(False)
    server.answers = [HELLO]
    say(page, "Anybody?")
    page.wait("document.querySelector('.turn .error')")
    assert page.text(".turn .error p").startswith("The server cannot be reached.")
    page.connect(True)
    page.click(".turn .error button")
    done(page, 2)
    assert bodies(page) == ["Anybody?", "Hello there."]


def test_a_key_is_asked_for_and_forgotten_with_the_tab(page, server):
    server.key = "secret"
    page.open(server.url)
    page.wait("document.getElementById('key-dialog').open")
    page.write("wrong")
    page.press("Enter")
    page.wait("document.getElementById('key-dialog').open && !document.getElementById('key-refused').hidden")
    page.write("secret")
    page.press("Enter")
    page.wait("document.body.matches('.chat')")
    asked(page, server, HELLO)
    assert page.run("JSON.stringify(Object.values(localStorage))").find("secret") < 0
    assert page.run("sessionStorage.getItem('lilliput.key')") == '"secret"'
    server.key = "another"
    server.answers = [HELLO]
    say(page, "Still there?")
    page.wait("document.getElementById('key-dialog').open")
    page.press("Escape")
    page.wait("document.querySelector('.turn .error')")
    assert page.text(".turn .error p") == "The server wants a key. Try again and give it one."
    page.click(".turn .error button")
    page.wait("document.getElementById('key-dialog').open")
    page.write("another")
    page.press("Enter")
    done(page, 4)
    assert bodies(page)[2:] == ["Still there?", "Hello there."]


def test_a_base_model_continues_a_text(page, server, tmp_path):
    server.model["chat"] = False
    server.answers = [Answer(pieces=(" upon", " a")), Answer(pieces=(" <b>time", "\n"))]
    opened(page, server)
    page.click("#manuscript")
    page.write("Once")
    page.press("Control+Enter")
    done(page, 1)
    assert page.run("document.querySelector('.turn .body').textContent") == " upon a"
    assert server.requests[0]["prompt"] == "Once" and server.requests[0]["logprobs"] == 5
    page.click("#send")
    done(page, 1)
    assert server.requests[1]["prompt"] == "Once upon a"
    assert page.run("document.querySelector('.turn .body').textContent") == " <b>time\n"
    page.click("#tokens-button")
    assert page.run("[...document.querySelectorAll('.token')].map(each => each.textContent)") == [" <b>time", "↵\n"]
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#download-button")
    wait_for(page, tmp_path / "text.jsonl")
    assert json.loads((tmp_path / "text.jsonl").read_text()) == {"text": "Once upon a <b>time\n"}
    opened(page, server)
    assert page.run("document.getElementById('manuscript').value") == "Once upon a"


def test_what_model_and_user_write_runs_nothing(page, server):
    hostile = "<img src=x onerror='owned = true'><script>owned = true</script>[a](javascript:owned=true)"
    server.model["id"] = hostile
    server.answers = [Answer(pieces=(hostile, hostile)), Answer(status=400, message=hostile)]
    page.click("#tokens-button")
    say(page, hostile)
    done(page, 2)
    page.hover(".token")
    page.click("#tokens-button")
    say(page, hostile)
    done(page, 4)
    opened(page, server)
    assert bodies(page)[0] == hostile
    assert page.run("globalThis.owned") is None
    assert page.run("document.querySelectorAll('img, .turn script, a[href^=javascript]').length") == 0


def test_the_policy_stops_a_script_that_got_in(page, server):
    script = """(() => {
        try { TRIED; return "done"; } catch (error) { return error.name; }
    })()"""
    element = "document.createElement('script')"
    for tried in (
        "document.body.innerHTML = '<p>'",
        "document.body.setAttribute('onclick', 'x')",
        f"{element}.text = 'x'",
    ):
        assert page.run(script.replace("TRIED", tried)) == "TypeError", tried
    assert page.run(script.replace("TRIED", "eval('1')")) == "EvalError"
    page.run(f"document.body.append((each => (each.append('owned = true'), each))({element}))")
    assert page.run("globalThis.owned") is None
    assert page.run("fetch('http://localhost:9/').then(() => 'sent', error => error.name)") == "TypeError"
    assert any("Content Security Policy" in each for each in page.complaints)


def test_a_reader_who_asks_for_less_motion_gets_none(page, server):
    page.prefer(reduced_motion="reduce")
    hold = threading.Event()
    server.answers = [Answer(hold=hold)]
    say(page, "Slowly")
    page.wait("document.querySelector('.waiting')")
    assert page.run("getComputedStyle(document.querySelector('.waiting .body'), '::after').animationName") == "none"
    hold.set()
    done(page, 2)
