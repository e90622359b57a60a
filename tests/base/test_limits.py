"""Limits of what strangers give: their environment variables, and names that stay in their folder."""

import pytest

from lilliput.base.errors import LilliputError
from lilliput.base.limits import DEFAULTS, limit, plain_name, raising


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_limit_can_be_raised_as_its_hint_says(name, monkeypatch):
    assert limit(name) == DEFAULTS[name]
    variable, _, number = raising(name).rpartition("export ")[2].partition("=")
    monkeypatch.setenv(variable, number)
    assert limit(name) == int(number) > DEFAULTS[name]


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "1.5", "nan", "٣", "9" * 40])
def test_a_limit_that_is_no_number_is_refused(text, monkeypatch):
    monkeypatch.setenv("LILLIPUT_MAX_LINE_BYTES", text)
    with pytest.raises(LilliputError, match="LILLIPUT_MAX_LINE_BYTES") as caught:
        limit("line_bytes")
    assert caught.value.where == "the environment" and "unset" in caught.value.hint


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00002.safetensors", ".hidden", "Zahlen äöü 3"])
def test_plain_names_are_themselves(name):
    assert plain_name(name, where="here") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a/", "C:x", "x\0", "x\n", "\x1b[2J", "\ud800", "é" * 128, 3],
)
def test_names_that_lead_elsewhere_or_nowhere_are_refused(name):
    with pytest.raises(LilliputError, match="not a plain file name") as caught:
        plain_name(name, where="here")
    assert caught.value.where == "here" and caught.value.hint
