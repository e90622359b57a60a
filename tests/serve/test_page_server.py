"""The web chat in a real browser, against the real server with a tiny model."""

import json

import pytest
import tiny
import tiny_server
from browser_session import BrowserSession

from lilliput.serve.app import Access
from lilliput.serve.page import page, policy

pytestmark = pytest.mark.browser


def opened(chromium: BrowserSession, server: tiny_server.TinyServer) -> None:
    chromium.open(server.url)
    chromium.wait("document.body.matches('.chat, .base')")


def say(chromium: BrowserSession, text: str, turns: int) -> None:
    chromium.click("#message")
    chromium.write(text)
    chromium.press("Enter")
    done(chromium, turns)


def done(chromium: BrowserSession, turns: int) -> None:
    chromium.wait(
        f"!document.body.classList.contains('writing') && document.querySelectorAll('.turn').length === {turns}"
    )


def test_the_server_gives_the_page_with_its_policy():
    with tiny_server.running(tiny_server.published()) as server:
        status, said, headers = server.ask("GET", "/")
    assert (status, said) == (200, page().decode())
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["content-security-policy"] == policy() and headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("spec", [tiny.HGRN2_SPEC, tiny.GQA_SPEC], ids=["hgrn2", "gqa"])
def test_a_conversation_is_the_one_of_the_api_and_is_not_read_again(chromium, spec):
    with tiny_server.running(tiny_server.published(spec)) as server:
        opened(chromium, server)
        chromium.run("lasting.write('settings', {temperature: '0', max_tokens: '8'})")
        opened(chromium, server)
        say(chromium, "What is small?", 2)
        say(chromium, "And what is little?", 4)
        assert chromium.texts(".turn .error, .turn .trouble .error") == []
        stored = json.loads(chromium.run("sessionStorage.getItem('lilliput.conversation')"))
        messages = []
        while stored["branches"]:
            stored = stored["branches"][stored["chosen"]]
            messages.append({"role": stored["role"], "content": stored["text"]})
        for end in (1, 3):
            asked = {"model": "tiny", "messages": messages[:end], "temperature": 0, "max_tokens": 8}
            assert server.client.chat.completions.create(**asked).choices[0].message.content == messages[end]["content"]
        reused = next(text for text in chromium.texts("#meter span") if text.endswith(" reused"))
        assert int(reused.split()[0]) > 0
        assert any(text.startswith("state ") for text in chromium.texts("#meter span"))
        chromium.click("#tokens-button")
        tokens = chromium.run("document.querySelectorAll('.turn:last-child .token').length")
        assert tokens == 8
        chromium.hover(".turn:last-child .token:nth-child(3)")
        assert len(chromium.texts("#distribution .candidate")) == 5
        chromium.click("#tokens-button")


def test_stopping_frees_the_row(chromium):
    with tiny_server.running(tiny_server.published(context=100_000), rows=1) as server:
        opened(chromium, server)
        chromium.run("lasting.write('settings', {temperature: '0', max_tokens: '90000'})")
        opened(chromium, server)
        chromium.click("#message")
        chromium.write("Tell me everything")
        chromium.press("Enter")
        server.wait_for("rows_busy", 1)
        chromium.wait("document.querySelector('#meter span')")
        chromium.press("Escape")
        done(chromium, 2)
        assert chromium.text(".assistant .note") == "Stopped."
        server.wait_for("rows_busy", 0)


def test_an_error_of_the_server_says_what_to_do(chromium):
    with tiny_server.running(tiny_server.published()) as server:
        opened(chromium, server)
        say(chromium, "word " * 600, 2)
        assert "512" in chromium.text(".turn .error")


def test_the_key_of_the_server_opens_it(chromium):
    with tiny_server.running(tiny_server.published(), access=Access(key="0123456789abcdef")) as server:
        chromium.open(server.url)
        chromium.wait("document.getElementById('key-dialog').open")
        chromium.write("0123456789abcdef")
        chromium.press("Enter")
        chromium.wait("document.body.matches('.chat')")
        say(chromium, "Open?", 2)
        assert chromium.texts(".turn .error") == []


def test_a_base_model_continues_a_text(chromium):
    with tiny_server.running(tiny_server.published(chat=False)) as server:
        opened(chromium, server)
        chromium.click("#manuscript")
        chromium.write("small models")
        chromium.press("Control+Enter")
        done(chromium, 1)
        assert chromium.texts(".turn .error") == []
        assert chromium.run("document.querySelector('.turn .body').textContent.length") > 0
