"""The document of the web chat: its parts, that it needs nothing else, and what its policy allows."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from lilliput.serve.page import FOLDER, page, policy

PARTS = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in PARTS if path.suffix == ".js"]


def test_the_document_has_every_part_and_names_no_file():
    document = page().decode()
    for path in PARTS:
        if path.name != "index.html":
            assert path.read_text(encoding="utf-8") in document, path.name
    assert not re.search(r'\b(src|href|srcset|action)="(?!#)', document)
    assert "@import" not in document and "url(" not in document


def test_the_policy_allows_the_parts_and_the_server_alone():
    rules = dict(rule.split(" ", 1) for rule in policy().split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == rules["form-action"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    for name, directive in (("script", "script-src"), ("style", "style-src")):
        parts = re.findall(f"<{name}>(.*?)</{name}>", page().decode(), re.DOTALL)
        hashes = [f"'sha256-{b64encode(sha256(part.encode()).digest()).decode()}'" for part in parts]
        assert rules[directive].split() == hashes and hashes
    assert "unsafe" not in policy()


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.name)
def test_a_part_is_one_concept(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert 30 <= len(lines) <= 400
    assert path.suffix == ".html" or max(map(len, lines)) <= 120


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_parses_a_text_as_html_or_code(path: Path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"use strict";\n// ')
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|srcdoc|setHTML"
    assert not re.search(sinks, text)
