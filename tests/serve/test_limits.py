"""Hostile and unlucky requests: each gets a clear status, and the server answers the next one."""

import json
import re
import socket
import struct
from contextlib import suppress
from http.client import HTTPResponse
from time import monotonic, sleep

import openai
import pytest
import tiny
import tiny_server

from lilliput.generate.engine import Engine
from lilliput.serve import protocol
from lilliput.serve.served_model import ServedModel

TEXT = "/v1/completions"
CHAT = "/v1/chat/completions"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def server():
    with tiny_server.running(tiny_server.published(), rows=2, queue=3) as one:
        yield one
        assert one.ask("POST", TEXT, {"prompt": "small", "max_tokens": 2})[0] == 200, "it is alive after all of it"
        assert "Traceback" not in "".join(one.log)


@pytest.fixture(scope="module")
def attentive():
    with tiny_server.running(tiny_server.published(tiny.GQA_SPEC), rows=2) as one:
        yield one


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nothing",
        b'{"prompt": "a"} and more',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": NaN}',
        b'{"prompt": "a", "temperature": Infinity}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda body: f"{body[:20]!r}{len(body)}",
)
def test_what_is_no_json_is_refused(server, body):
    status, said, _ = server.ask("POST", TEXT, body)
    assert (status, said["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"text"', b"[[[]]]"])
def test_what_is_no_object_is_refused(server, body):
    status, said, _ = server.ask("POST", TEXT, body)
    assert (status, said["error"]["code"]) == (400, "invalid_body")


@pytest.mark.parametrize(
    "path, field, value",
    [
        *((TEXT, "temperature", value) for value in (-1, 1e9, "hot", True, [], 10**400)),
        *((TEXT, "top_p", value) for value in (0, 1.01, -0.5)),
        *((TEXT, "top_k", value) for value in (-1, 0.5, 10**20)),
        *((TEXT, "max_tokens", value) for value in (0, -5, 1.5, 2**31, 10**400)),
        *((TEXT, "n", value) for value in (0, 129, "2")),
        *((TEXT, "seed", value) for value in (2**63, -(2**63) - 1, 0.5)),
        *((TEXT, "stop", value) for value in ("", [""], ["a"] * 17, [3], {"a": 1})),
        *((TEXT, "prompt", value) for value in ([], [[]], [3.5], ["a", 3], [-1], [10**9], {}, 7, "\ud800")),
        *((TEXT, "logprobs", value) for value in (-1, 21, True)),
        *((TEXT, "stream", value) for value in ("yes", 1)),
        *((TEXT, "stream_options", value) for value in ({"a": 1}, {"include_usage": 3}, {"include_usage": True})),
        *((TEXT, "logit_bias", value) for value in ({"5": 1}, [])),
        *((TEXT, name, value) for name, value in (("echo", True), ("suffix", "z"), ("best_of", 4), ("what", 1))),
        *((CHAT, "messages", value) for value in ([], "hi", [3], [{}], [{"role": "user"}])),
        (CHAT, "messages", [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]),
        (CHAT, "messages", [{"role": "nobody", "content": "hi"}]),
        (CHAT, "messages", [{"role": "user", "content": "\udfff"}]),
        (CHAT, "top_logprobs", 3),
        (CHAT, "tools", [{"type": "function"}]),
        (CHAT, "response_format", {"type": "json_object"}),
        (CHAT, "store", True),
    ],
)
def test_a_wrong_field_is_named(server, path, field, value):
    good = {"prompt": "small"} if path == TEXT else {"messages": [{"role": "user", "content": "hi"}]}
    status, said, _ = server.ask("POST", path, good | {field: value})
    assert status == 400 and said["error"]["type"] == "invalid_request_error"
    assert said["error"]["param"].startswith(field) and said["error"]["message"]


def test_a_name_that_is_no_text_is_named_as_json_spells_it(server):
    for path, asked, named in (
        (TEXT, {"prompt": "small", "\ud800": 1}, "\\ud800"),
        (CHAT, {"messages": [{"role": "user", "content": "hi", "\ud800": 1}]}, "messages[0].\\ud800"),
    ):
        status, said, _ = server.ask("POST", path, asked)
        assert (status, said["error"]["param"]) == (400, named)


def test_a_part_of_a_message_that_is_no_text_is_told_by_its_type(server):
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    _, said, _ = server.ask("POST", CHAT, {"messages": [{"role": "user", "content": [part]}]})
    assert said["error"]["param"] == "messages[0].content[0].type" and "image_url" in said["error"]["message"]


def test_many_prompts_with_many_answers_are_refused_before_they_are_made(server):
    status, said, _ = server.ask("POST", TEXT, {"prompt": ["small"] * 100, "n": 128})
    assert status == 400 and "more than 2048" in said["error"]["message"]


def test_fields_that_change_nothing_are_taken(server):
    ignored = {
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "tools": [],
        "logit_bias": {},
    }
    ignored |= {
        "stream_options": None,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "top_logprobs": None,
    }
    asked = {"messages": [{"role": "developer", "content": [{"type": "text", "text": "hi"}]}], "max_tokens": 2}
    assert server.ask("POST", CHAT, asked | ignored)[0] == 200


def test_a_prompt_of_ten_contexts_is_refused(attentive, server):
    for one in (attentive, server):
        status, said, _ = one.ask("POST", CHAT, {"messages": [{"role": "user", "content": "small models " * 2000}]})
        assert (status, said["error"]["code"]) == (400, "context_length_exceeded")


def test_a_body_of_100_megabytes_is_refused_and_not_held(server):
    connection = server.raw(HEAD + b"Content-Length: 100000000\r\n\r\n")
    before = _memory()
    for _ in range(100):
        connection.sendall(b" " * 1_000_000)
    assert _answer(connection).startswith(b"HTTP/1.1 413")
    assert _memory() - before < 30e6


def test_a_body_that_waits_for_leave_is_refused_before_it_comes(server):
    connection = server.raw(HEAD + b"Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n")
    assert _answer(connection).startswith(b"HTTP/1.1 413")


def test_a_body_in_chunks_without_end_is_refused(server):
    connection = server.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(30):
        connection.sendall(b"%x\r\n" % 100_000 + b" " * 100_000 + b"\r\n")
    connection.sendall(b"0\r\n\r\n")
    assert _answer(connection).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000,
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    ],
    ids=lambda data: f"{data[:12]!r}",
)
def test_what_is_no_http_is_refused(server, data):
    connection = server.raw(b"")
    try:
        connection.sendall(data)
        said = _answer(connection)
    except ConnectionError:  # closed while it was sent
        return
    assert said == b"" or said.startswith(b"HTTP/1.1 400")


def test_other_kinds_of_bodies_paths_and_methods_are_refused(server):
    assert server.ask("POST", TEXT, {"prompt": "a"}, Content_Type="text/plain")[0] == 415
    assert server.ask("GET", "/v1/nothing")[0] == 404
    status, said, headers = server.ask("GET", TEXT)
    assert status == 405 and headers["allow"] == "POST" and said["error"]["code"] == "method_not_allowed"


def test_heads_bodies_and_readers_that_are_slow_are_cut(monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "TAKE_SECONDS", 0.2)
    with tiny_server.running(tiny_server.published(), rows=2, body_seconds=0.2) as server:
        assert _answer(server.raw(b"")) == b""
        assert _answer(server.raw(HEAD[:30])) == b""
        assert _answer(server.raw(HEAD + b"Content-Length: 50\r\n\r\n{")).startswith(b"HTTP/1.1 408")
        after_one = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _status(after_one) == 200
        after_one.sendall(b"GET /hea")
        assert b"HTTP/1.1" not in _answer(after_one)
        body = json.dumps({"prompt": ["small"] * 60, "max_tokens": 10**6, "stream": True, "logprobs": 20}).encode()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        end = monotonic() + tiny_server.SECONDS
        while not any(" out" in line for line in server.log) and monotonic() < end:
            sleep(0.01)
        assert server.gauge("completion_tokens_total") < 60 * 500, "it was not written to its end"
        deaf.close()


def test_idle_connections_make_room_for_others(monkeypatch):
    monkeypatch.setattr("lilliput.serve.server.CONNECTIONS", 4)
    monkeypatch.setattr(protocol, "IDLE_SECONDS", 0.0)
    with tiny_server.running(tiny_server.published(), rows=1, queue=0) as server:
        answered = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _status(answered) == 200
        idle = [server.raw(b"") for _ in range(50)]
        assert server.ask("GET", "/health")[0] == 200
        assert server.ask("GET", "/health")[0] == 200
        assert _answer(answered) == b"", "it was idle longest"
        idle[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert _answer(idle[-1]).startswith(b"HTTP/1.1 200"), "the newest are still open"
        for connection in idle:
            connection.close()


def test_where_no_connection_is_idle_a_further_one_is_told(monkeypatch):
    monkeypatch.setattr("lilliput.serve.server.CONNECTIONS", 4)
    monkeypatch.setattr("lilliput.serve.server.REFUSED", 3)
    monkeypatch.setattr(protocol, "REFUSED", 3)
    with tiny_server.running(tiny_server.published(), rows=1, queue=0) as server:
        sending = [server.raw(HEAD + b"Content-Length: 50\r\n\r\n{") for _ in range(5)]
        for _ in range(3):
            status, said, headers = server.ask("GET", "/health")
            assert (status, said["error"]["code"]) == (503, "too_many_connections")
            assert headers["retry-after"] == "1"
        sending += [server.raw(HEAD + b"Content-Length: 50\r\n\r\n{") for _ in range(3)]
        for connection in sending:
            connection.close()
        _wait_for_room(server)
        server.wait_for("rows_busy", 0)


def test_a_client_that_closes_its_sending_half_has_gone():
    body = json.dumps({"prompt": "small", "max_tokens": 10**6}).encode()
    with tiny_server.running(tiny_server.published(context=1 << 20), rows=1) as server:
        connection = server.raw(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        server.wait_for("rows_busy", 1)
        connection.shutdown(socket.SHUT_WR)
        assert _answer(connection) == b""
        server.wait_for("rows_busy", 0)


def test_beyond_the_queue_requests_are_told_to_come_again():
    with tiny_server.running(tiny_server.published(context=1 << 20), rows=2, queue=3) as server:
        asked = dict(model="tiny", prompt=[5], max_tokens=10**6, stream=True, temperature=0)
        stream = server.client.completions.create(**asked, n=2)
        with pytest.raises(openai.RateLimitError) as caught:
            server.client.completions.create(**asked, n=4)
        assert caught.value.response.headers["retry-after"] == "1"
        stream.close()
        server.wait_for("rows_busy", 0)
        status, said, _ = server.ask("POST", TEXT, {"prompt": "small", "n": 6})
        assert status == 400 and "takes 5" in said["error"]["message"]


def test_time_ends_a_text_and_says_so():
    with tiny_server.running(tiny_server.published(context=1 << 20), rows=1, seconds=1.0) as server:
        asked = {"prompt": [5], "max_tokens": 10**6, "temperature": 0}
        status, said, _ = server.ask("POST", TEXT, asked)
        assert status == 200 and said["choices"][0]["finish_reason"] == "timeout" and said["choices"][0]["text"]
        pieces = [*server.client.completions.create(model="tiny", stream=True, **asked)]
        assert pieces[-1].choices[0].finish_reason == "timeout"
        server.wait_for("rows_busy", 0)


def test_a_request_that_is_not_begun_in_time_is_told(monkeypatch):
    monkeypatch.setattr(Engine, "step", lambda engine: sleep(0.01) or [])
    with tiny_server.running(tiny_server.published(), rows=1, seconds=0.2) as server:
        for stream in (False, True):
            status, said, _ = server.ask("POST", TEXT, {"prompt": "small", "stream": stream})
            assert (status, said["error"]["code"]) == (504, "timeout")


def test_a_step_that_fails_is_told_and_the_next_request_answered(monkeypatch, capfd):
    with tiny_server.running(tiny_server.published(), rows=2) as server:
        with monkeypatch.context() as during:
            during.setattr(Engine, "step", lambda engine: (_ for _ in ()).throw(RuntimeError("out of memory")))
            status, said, _ = server.ask("POST", TEXT, {"prompt": "a secret", "n": 2})
            assert (status, said["error"]["type"]) == (500, "server_error")
        assert server.ask("POST", TEXT, {"prompt": "small", "max_tokens": 2})[0] == 200
    said = capfd.readouterr().err
    assert "out of memory" in said and "secret" not in said


def test_a_mistake_of_the_server_is_told_in_the_form_of_all_errors(monkeypatch, capfd):
    with tiny_server.running(tiny_server.published(), rows=1) as server:
        with monkeypatch.context() as during:
            during.setattr(ServedModel, "text_prompt", lambda *_: 1 / 0)
            status, said, _ = server.ask("POST", TEXT, {"prompt": "a secret"})
        assert (status, said["error"]["type"]) == (500, "server_error")
        assert server.ask("POST", TEXT, {"prompt": "small", "max_tokens": 2})[0] == 200
    said = capfd.readouterr().err
    assert "ZeroDivisionError" in said and "secret" not in said


def test_clients_that_go_free_their_rows(server):
    body = json.dumps({"prompt": "small", "max_tokens": 10**6}).encode()
    for stream in (False, True):
        body = json.dumps({"prompt": "small", "max_tokens": 10**6, "stream": stream}).encode()
        connection = server.raw(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        server.wait_for("rows_busy", 0)


def test_a_request_leaves_one_line_without_what_it_said(server):
    server.ask("POST", TEXT, {"prompt": "a secret", "max_tokens": 2, "user": "nobody"})
    server.ask("GET", "/v1/models?key=secret")
    server.wait_for("rows_busy", 0)
    lines = "\n".join(server.log)
    assert re.search(r"^POST /v1/completions 200 \d+\.\d{3} s \d+ tokens in, [12] out$", lines, flags=re.M)
    assert re.search(r"^GET /v1/models 200 \d+\.\d{3} s$", lines, flags=re.M) and "secret" not in lines


def _status(connection):
    """The status of one response that is read whole: its head and its body come apart on a busy machine."""
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def _wait_for_room(server):
    """Ask until the server has noticed that connections were closed: until then it refuses others, or resets them."""
    end = monotonic() + tiny_server.SECONDS
    while monotonic() < end:
        with suppress(ConnectionError):
            if server.ask("GET", "/health")[0] == 200:
                return
    raise AssertionError("connections were closed and are still counted")


def _answer(connection):
    """What the server says until it closes the connection; nothing where it aborts it."""
    said = b""
    try:
        while chunk := connection.recv(100_000):
            said += chunk
    except ConnectionError:
        pass
    connection.close()
    return said


def _memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
