"""Who may ask: the key, the name of this machine, and pages of other sites."""

import openai
import pytest
import tiny_server
from typer.testing import CliRunner

from lilliput.base.errors import LilliputError
from lilliput.cli import app
from lilliput.serve.app import Access
from lilliput.serve.guard import LOCAL_NAMES, is_loopback

KEY = "a-key-of-some-length"
ASKED = {"prompt": "small", "max_tokens": 2}


@pytest.fixture(scope="module")
def locked():
    with tiny_server.running(tiny_server.published(), access=Access(key=KEY)) as one:
        yield one


@pytest.fixture(scope="module")
def local():
    access = Access(hosts=LOCAL_NAMES, origins=("https://friend.example",))
    with tiny_server.running(tiny_server.published(), access=access) as one:
        yield one


@pytest.mark.parametrize("given", [None, "", "Bearer", f"Bearer {KEY}x", KEY, f"Basic {KEY}", "Bearer \xff\xfe"])
def test_without_the_key_there_is_no_answer(locked, given):
    headers = {} if given is None else {"Authorization": given}
    for method, path, body in (
        ("POST", "/v1/completions", ASKED),
        ("GET", "/v1/models", None),
        ("GET", "/metrics", None),
    ):
        status, said, answered = locked.ask(method, path, body, **headers)
        assert (status, said["error"]["code"]) == (401, "invalid_api_key")
        assert answered["www-authenticate"] == "Bearer"
    assert locked.ask("GET", "/health", **headers)[0] == 200


def test_with_the_key_there_is_one(locked):
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key=KEY, max_retries=0) as client:
        assert client.completions.create(model="tiny", **ASKED).choices
    with (
        openai.OpenAI(base_url=f"{locked.url}/v1", api_key="other", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.completions.create(model="tiny", **ASKED)


@pytest.mark.parametrize(
    "host, status", [("localhost", 200), ("127.0.0.1:99", 200), ("[::1]:99", 200), ("LOCALHOST", 200)]
)
def test_names_of_this_machine_are_answered(local, host, status):
    assert local.ask("GET", "/health", Host=host)[0] == status


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]", "[localhost"]
)
def test_another_name_is_refused(local, host):
    status, said, _ = local.ask("GET", "/health", Host=host)
    assert (status, said["error"]["code"]) == (403, "wrong_host")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[", "http://localhost:1", "file://"])
def test_pages_of_other_sites_are_refused(local, origin):
    for method, path, body in (("POST", "/v1/completions", ASKED), ("OPTIONS", "/v1/completions", None)):
        status, said, headers = local.ask(method, path, body, Origin=origin, Access_Control_Request_Method="POST")
        assert (status, said["error"]["code"]) == (403, "wrong_origin")
        assert "access-control-allow-origin" not in headers


def test_the_page_of_the_server_and_of_a_friend_may_ask(local):
    own = local.ask("POST", "/v1/completions", ASKED, Origin=local.url)
    friend = {"Origin": "https://friend.example"}
    allowed = local.ask("OPTIONS", "/v1/completions", **friend, Access_Control_Request_Method="POST")
    asked = local.ask("POST", "/v1/completions", ASKED, **friend)
    assert [own[0], allowed[0], asked[0]] == [200, 204, 200]
    assert (
        asked[2]["access-control-allow-origin"] == "https://friend.example"
        and "access-control-allow-origin" not in own[2]
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.org", "127.0.0.1.example.org"])
def test_other_addresses_do(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--host", "0.0.0.0"], "a server that others can reach needs a key"),
        (["--host", "0.0.0.0", "--api-key-file", "missing.txt"], "it cannot be read"),
        (["--api-key-file", "short.txt"], "the key has 3 characters"),
        (["--keep-states", "many"], "'many' is no number of bytes"),
        (["--host", "192.0.2.1", "--api-key-file", "key.txt"], "the server cannot listen"),
    ],
)
def test_a_command_that_is_not_safe_or_not_possible_says_why(tmp_path, monkeypatch, options, said):
    (tmp_path / "short.txt").write_text("abc\n")
    (tmp_path / "key.txt").write_text(f"{KEY}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LILLIPUT_API_KEY", raising=False)
    error = CliRunner().invoke(app, ["serve", "nothing", *options]).exception
    assert isinstance(error, LilliputError) and said in error.what
    assert "--host" in error.hint or "listen" not in said


def test_a_port_in_use_is_told(local):
    error = CliRunner().invoke(app, ["serve", "nothing", "--port", str(local.port)]).exception
    assert isinstance(error, LilliputError) and "(Address already in use)" in error.what and "--port" in error.hint


def test_without_the_extra_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("lilliput.cli.serve.find_spec", lambda name: None if name == "uvicorn" else name)
    error = CliRunner().invoke(app, ["serve", "nothing"]).exception
    assert isinstance(error, LilliputError) and error.hint == "pip install 'lilliput[serve]'"
