"""Markdown in a real browser: what it becomes, and that hostile texts stay texts."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser_session import BrowserSession
from scripted_server import serving

pytestmark = pytest.mark.browser
OWNED = "globalThis.owned = true"
BLOCKS = "BLOCKQUOTE DIV FIGCAPTION FIGURE H3 H4 H5 H6 HR LI OL P PRE TABLE TBODY TD TH THEAD TR UL"
ALLOWED = {*BLOCKS.split(), *"A BUTTON CODE DEL EM SPAN STRONG".split()}
ATTRIBUTES = set("aria-label class href rel role start tabindex target type".split())


@pytest.fixture(scope="module")
def chromium(chromium: BrowserSession) -> Iterator[BrowserSession]:
    """The browser with the page open."""
    with serving() as server:
        chromium.open(server.url)
        chromium.wait("document.body.classList.contains('chat')")
        yield chromium


def rendered(chromium: BrowserSession, text: str) -> str:
    """The HTML that a text becomes."""
    return chromium.run(
        f"""(() => {{
            const shown = element("div", {{class: "body"}});
            document.getElementById("turns").replaceChildren(shown);
            renderMarkdown(shown, {json.dumps(text)});
            return shown.innerHTML;
        }})()"""
    )


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "<p>plain</p>"),
        ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
        ("# A *b* #", "<h3>A <em>b</em></h3>"),
        ("**a** __b__ *c*", "<p><strong>a</strong> <strong>b</strong> <em>c</em></p>"),
        ("_d_ ~~e~~ **f", "<p><em>d</em> <del>e</del> **f</p>"),
        ("***a***", "<p><strong><em>a</em></strong></p>"),
        ("snake_case_name 2 * 3 * 4 ~5", "<p>snake_case_name 2 * 3 * 4 ~5</p>"),
        ("`a*b*` ``c`d``", "<p><code>a*b*</code> <code>c`d</code></p>"),
        ("a ` b", "<p>a ` b</p>"),
        (r"\*a\* \`b\` \\`c`", r"<p>*a* `b` \<code>c</code></p>"),
        ("---", "<hr>"),
        ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
        ("- a\n- b", '<ul><li><p class="tight">a</p></li><li><p class="tight">b</p></li></ul>'),
        ("So:\n3) a", "<p>So:\n3) a</p>"),
        ("3. a\n4. b", '<ol start="3"><li><p class="tight">a</p></li><li><p class="tight">b</p></li></ol>'),
        (
            "1. a\n   - b\n     c\n2. d",
            '<ol start="1"><li><p class="tight">a</p><ul><li><p class="tight">b\nc</p></li></ul></li>'
            '<li><p class="tight">d</p></li></ol>',
        ),
        ("- a\n\n  b\n\nc", "<ul><li><p>a</p><p>b</p></li></ul><p>c</p>"),
        ("[a](b) [c][d] ![e](f)", "<p>[a](b) [c][d] ![e](f)</p>"),
    ],
)
def test_markdown_becomes_elements(chromium, text, html):
    assert rendered(chromium, text) == html


def test_code_is_shown_as_it_is_with_a_button_that_copies_it(chromium):
    html = rendered(chromium, "Look:\n```py\nif a < b:\n    *c*\n\n```\nafter")
    assert '<pre tabindex="0" role="region" aria-label="py code"><code>if a &lt; b:\n    *c*\n</code></pre>' in html
    assert html.startswith("<p>Look:</p>") and html.endswith("<p>after</p>")
    chromium.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    chromium.click("figcaption button")
    chromium.wait("document.querySelector('figcaption button').textContent === 'Copied'")
    assert chromium.run("navigator.clipboard.readText()") == "if a < b:\n    *c*\n"


def test_a_table_has_its_columns_to_their_sides(chromium):
    html = rendered(chromium, "| a | b |\n|---|:-:|\n| 1 | `x` \\| y |\n| 2 |\nafter")
    assert '<th class="left">a</th><th class="center">b</th>' in html
    assert '<td class="left">1</td><td class="center"><code>x</code> | y</td>' in html
    assert html.endswith("<p>after</p>")


@pytest.mark.parametrize(
    ("text", "address", "label"),
    [
        ("[a *b*](https://example.com/x_(y)?q=1)", "https://example.com/x_(y)?q=1", "a b"),
        ("see https://example.com/a_b.", "https://example.com/a_b", "https://example.com/a_b"),
        ("![picture](http://example.com/p.png)", "http://example.com/p.png", "picture"),
    ],
)
def test_a_link_goes_to_the_web_alone_and_says_nothing_of_the_page(chromium, text, address, label):
    rendered(chromium, text)
    link: dict[str, Any] = chromium.run(
        "(({href, rel, target, textContent}) => ({href, rel, target, textContent}))(document.querySelector('.body a'))"
    )
    assert link == {"href": address, "rel": "noopener noreferrer nofollow", "target": "_blank", "textContent": label}


HOSTILE = {
    "script": f"<script>{OWNED}</script>",
    "image": f"<img src=x onerror='{OWNED}'> <svg/onload='{OWNED}'>",
    "frame": f'<iframe srcdoc="<script>{OWNED}</script>"></iframe>',
    "javascript": f"[a](javascript:{OWNED}) [b](JaVaScRiPt:{OWNED}) [c](\tjavascript:{OWNED})",
    "line end": f"[a](java\nscript:{OWNED}) [b](\x01javascript:{OWNED}) [c](java\tscript:{OWNED})",
    "encoded": f"[a](javascript&#58;{OWNED}) [b](%6aavascript:{OWNED}) [c](&#x6A;avascript:{OWNED})",
    "data": f"[a](data:text/html,<script>{OWNED}</script>) [b](vbscript:x) [c](file:///etc/passwd) [d](blob:x)",
    "attribute": f'[a](https://x/"onmouseover="{OWNED}) ![" onerror="{OWNED}](https://x/"onerror="{OWNED})',
    "language": f'```"><script>{OWNED}</script>\n</code></pre><script>{OWNED}</script>\n```',
    "table": f"| <script>{OWNED}</script> | b |\n|---|---|\n| <img src=x onerror={OWNED}> | [x](javascript:{OWNED}) |",
    "prototype": "[__proto__](https://x/) `constructor` **__proto__**",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_stays_a_text(chromium, name):
    chromium.complaints.clear()
    rendered(chromium, HOSTILE[name])
    chromium.run("document.querySelectorAll('#turns a, #turns pre').forEach(each => each.focus())")
    found = chromium.run(
        """[...document.querySelectorAll("#turns .body *")].map(each => ({
            name: each.tagName,
            attributes: each.getAttributeNames(),
            address: each.getAttribute("href"),
        }))"""
    )
    for each in found:
        assert each["name"] in ALLOWED
        assert set(each["attributes"]) <= ATTRIBUTES
        assert each["address"] is None or each["address"].startswith(("https://", "http://"))
    assert chromium.run("globalThis.owned") is None
    assert chromium.complaints == []


LARGE = 100_000
"""As long as a text that is still read as Markdown."""
MADE = {
    "quotes": lambda length: ">" * length,
    "brackets": lambda length: "[" * length,
    "links": lambda length: "[](" * (length // 3),
    "closing": lambda length: "](" * (length // 2),
    "stars": lambda length: "*" * length,
    "openers": lambda length: "*a " * (length // 3),
    "strong": lambda length: "**a *b ~~c __d " * (length // 15),
    "underlines": lambda length: "_a" * (length // 2),
    "ticks": lambda length: " ".join("`" * size for size in range(1, int((2 * length) ** 0.5) - 2)),
    "fences": lambda length: "```\n~~~\n" * (length // 8),
    "lists": lambda length: "".join(" " * (2 * depth) + "- a\n" for depth in range(int(length**0.5) - 4)),
    "items": lambda length: "- " * (length // 2),
    "bullets": lambda length: "-\n" * (length // 2),
    "pipes": lambda length: "|" * length,
    "tables": lambda length: "a|b\n-|-\n" + "|\n" * (length // 2 - 8),
    "spaces": lambda length: "# a" + " " * (length - 4) + "b",
    "hashes": lambda length: "# " + "#" * (length - 3) + "b",
    "dots": lambda length: "http://" + "." * (length - 8) + "x",
    "rules": lambda length: "* " * (length // 2 - 1) + "x",
    "lines": lambda length: "\n" * length,
}


@pytest.mark.parametrize("name", MADE)
def test_no_text_keeps_the_page_busy_or_makes_it_deep(chromium, name):
    text = MADE[name](LARGE)
    assert len(text) <= LARGE
    rendered(chromium, text)
    depth = chromium.run(
        """(() => {
            let deepest = 0;
            const walk = (node, depth) => {
                deepest = Math.max(deepest, depth);
                for (const child of node.children) walk(child, depth + 1);
            };
            walk(document.getElementById("turns"), 0);
            return deepest;
        })()"""
    )
    assert depth < 40


def test_a_megabyte_is_shown_as_it_is(chromium):
    text = f"<script>{OWNED}</script> **a**\n" * 30_000
    assert len(text) > 1 << 20
    assert rendered(chromium, text).startswith('<div class="plain">&lt;script&gt;')
    assert chromium.run("document.querySelector('#turns .body').textContent.length") == len(text)
    assert chromium.run("globalThis.owned") is None


def test_a_growing_text_keeps_the_blocks_that_stand(chromium):
    rendered(chromium, "one\n\n- a")
    kept = chromium.run(
        """(() => {
            const shown = document.querySelector("#turns .body"), first = shown.firstChild;
            renderMarkdown(shown, "one\\n\\n- a\\n- b");
            return shown.firstChild === first && shown.querySelectorAll("li").length;
        })()"""
    )
    assert kept == 2
