"""The card in a browser: its tables are tables there, and nothing runs off the page."""

from pathlib import Path

import browser
import pytest
from browser_session import BrowserSession
from card_records import record_of, score
from markdown_it import MarkdownIt

from lilliput.publish.card.card import card

pytestmark = [pytest.mark.slow, pytest.mark.browser]

STYLE = """body { max-width: 900px; margin: 2rem auto; font: 15px/1.5 system-ui, sans-serif; }
body { overflow-wrap: break-word; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border: 1px solid #ddd; padding: 4px 9px; }
pre { background: #f6f6f6; padding: 10px; overflow-x: auto; } code { font-size: 13px; }"""
"""As GitHub lays Markdown out: tables and code scroll in themselves, and long words, such as hashes, are broken."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a release with peers and an absent task, as the hub would render it."""
    record = record_of(chat=True)
    record["release"]["suite"] = "mtlm"
    record["evaluation"]["scores"].append(score("WinoGrande", "acc", 640 / 1_267, 0.01405, 1_267, 0.5))
    record["evaluation"]["absent"] = {"Winograd (SuperGLUE WSC)": "wsc.validation.jsonl"}
    text = card(record).partition("\n---\n")[2]
    body = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    file = tmp_path_factory.mktemp("card") / "card.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}", encoding="utf-8")
    return file


def test_tables_are_whole_in_a_browser(page: Path, tmp_path: Path) -> None:
    text = browser.dom(page, tmp_path)
    tables = [one.partition("</table>")[0] for one in text.split("<table>")[1:]]
    assert len(tables) == 8
    for table in tables:
        rows = [row.count("<td") + row.count("<th") for row in table.split("<tr>")[1:]]
        assert len(set(rows)) == 1, table[:300]
    outside = "".join(one.rpartition("</table>")[2] for one in text.split("<table>"))
    assert "| --" not in outside and "|---" not in outside and "\n|" not in outside
    assert "not asked, file absent: wsc.validation.jsonl" in text
    assert "50.00% is no share of 1,267 questions" in text


@pytest.mark.parametrize("width", [1_000, 400])
def test_nothing_runs_off_the_page(page: Path, tmp_path: Path, width: int) -> None:
    session = BrowserSession(tmp_path, width=width)
    try:
        session.open(page.as_uri())
        root = "document.documentElement"
        assert session.run(f"{root}.clientWidth") == width
        wide = (
            f"[...document.querySelectorAll('code, a, img')].filter(one => one.getBoundingClientRect().right > {width})"
        )
        inside = "one => !one.closest('table, pre')"  # these scroll by themselves
        assert session.run(f"{wide}.filter({inside}).map(one => one.textContent.slice(0, 80))") == []
        assert session.run(f"{root}.scrollWidth <= {root}.clientWidth")
    finally:
        session.close()


def test_the_page_can_be_looked_at(page: Path, tmp_path: Path) -> None:
    assert browser.screenshot(page, tmp_path, 1_000, 3_400).stat().st_size > 100_000
