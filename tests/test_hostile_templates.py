"""Chat templates of strangers: they render as they would anywhere, but neither for ever nor without end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lilliput.base.errors import LilliputError
from lilliput.tokenizer import template as module
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, render
from lilliput.tokenizer.template import render_template

MESSAGES = [{"role": "user", "content": "Hi {{ 1 }} 🙂"}, {"role": "assistant", "content": "\n é "}]
FOR_EVER = (
    "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}"
)


def rendered(template: str, messages=MESSAGES, **tokens: str) -> str:
    return render_template(template, messages, tokens=tokens, where="a model")


def process() -> subprocess.Popen[str]:
    return module._running[os.getpid()]


def test_ours_and_the_same_from_elsewhere_render_alike():
    assert (
        rendered(CHAT_TEMPLATE) == rendered(CHAT_TEMPLATE + "{# theirs #}") == render(MESSAGES, generation_prompt=True)
    )
    assert rendered("{{ bos_token }}\n{%- if true %}\n  x\n{% endif %}", bos_token="<s>") == "<s>  x\n"


@pytest.mark.parametrize(
    "template",
    [
        CHAT_TEMPLATE,
        "{% for m in messages %}{% generation %}\n  {{ loop.index }} {{ m.content }}\n{% endgeneration %}{% endfor %}",
        "{%- set x = 1 -%}{%- generation -%}{%- set x = 2 -%}{{ x }}{%- endgeneration -%}{{ x }}",
        "{% for m in messages %}{{ m | tojson }}{{ '<&é>' | tojson(ensure_ascii=True) }}{% break %}{% endfor %}",
        "{{ strftime_now('%%') }}",
    ],
)
def test_templates_render_as_in_transformers(template):
    from transformers.utils.chat_template_utils import render_jinja_template

    (theirs,), _ = render_jinja_template([MESSAGES], chat_template=template, add_generation_prompt=True)
    assert rendered(template) == theirs


def test_a_thousand_prompts_take_one_process():
    rendered("{{ 1 }}")
    first, began = process().pid, time.perf_counter()
    for number in range(1_000):
        assert rendered("{{ messages[0].content }}", [{"role": "user", "content": str(number)}]) == str(number)
    assert process().pid == first and time.perf_counter() - began < 10


def test_a_loop_is_ended_after_its_time(monkeypatch):
    monkeypatch.setenv("LILLIPUT_MAX_TEMPLATE_SECONDS", "1")
    with pytest.raises(LilliputError, match="takes more than 1 seconds") as caught:
        rendered(FOR_EVER)
    assert caught.value.where == "a model" and "LILLIPUT_MAX_TEMPLATE_SECONDS=2" in caught.value.hint
    assert rendered("{{ 1 }}") == "1", "the next one has a process of its own"


@pytest.mark.parametrize(
    ("template", "most"),
    [
        (
            "{% set n = namespace(x='x') %}{% for _ in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
            "bytes",
        ),
        ("{{ 'x' * 10**10 }}", "bytes"),
        ("{{ ['x'] * 10**10 }}", "bytes"),
        ("{{ '%10000000000d' % 1 }}", "bytes"),
        ("{{ '{:10000000000}'.format(1) }}", "bytes"),
        ("{{ 'x' | center(10**10) }}", "bytes"),
        ("{% for _ in range(99999) %}some more characters{% endfor %}", "characters"),
        ("x" * 1_000_001, "characters"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is not limited")
def test_templates_that_write_without_end_are_refused(template, most):
    with pytest.raises(LilliputError, match=f" more than [0-9,]+ {most}") as caught:
        rendered(template)
    assert f"LILLIPUT_MAX_TEMPLATE_{most.upper()}" in caught.value.hint


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('no system prompt') }}", "refuses these messages: no system prompt"),
        ("{{ messages[0].nothing.x }}", "no attribute 'nothing'"),
        ("{% if %}", "refuses these messages: Expected an expression"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ 1 // 0 }}", "fails .ZeroDivisionError"),
        ("{{ messages + 1 }}", "fails .TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails .RecursionError"),
        ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "fails .RecursionError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|no attribute"),
    ],
)
def test_templates_that_fail_say_how(template, says):
    with pytest.raises(LilliputError, match=says) as caught:
        rendered(template)
    assert caught.value.where == "a model" and caught.value.hint
    assert rendered("{{ 1 }}") == "1"


@pytest.mark.parametrize(
    "messages", [[{"role": "user", "content": object()}], ["Hi"], [{"role": "user"}], [{"role": 3}]]
)
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, "{{ messages[0]['content'] + messages[0]['role'] }}"])
def test_messages_that_are_none_are_refused(template, messages):
    with pytest.raises(LilliputError, match="chat template"):
        rendered(template, messages)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="interrupts with a timer")
def test_an_interrupted_answer_is_not_given_to_the_next_question():
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            rendered(FOR_EVER)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert rendered("{{ 2 }}") == "2"


PARENT = """
import os
from lilliput.tokenizer import template
template.render_template("{{ 1 }}", [], tokens={}, where="")
print(template._running[os.getpid()].pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes as Linux shows them")
def test_the_process_ends_with_its_parent():
    parent = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True)
    about = Path("/proc", parent.stdout.strip())
    for _ in range(100):
        if not about.exists() or about.joinpath("stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it still runs")
