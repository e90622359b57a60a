"""The Modelfile: Ollama renders a conversation as the release's template does, and samples with its settings."""

import re

import pytest

from lilliput.publish.export import Generation
from lilliput.publish.gguf.modelfile import CHATML_TEMPLATE, modelfile
from lilliput.tokenizer.chatml import render

SETTINGS = Generation(temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.1, max_new_tokens=128)


def made(generation=SETTINGS, is_chat=True, license="mit"):
    stops = ["<|im_end|>", "<|endoftext|>"] if is_chat else ["<|endoftext|>"]
    return modelfile("tiny-F16.gguf", generation=generation, context=512, stops=stops, is_chat=is_chat, license=license)


def parsed(text):
    """A Modelfile as Ollama reads it: a command, and a value in one line or between three quotation marks."""
    pattern = r'^(FROM|TEMPLATE|PARAMETER|LICENSE|SYSTEM) (?:"""(.*?)"""|([^\n]*))\n'
    commands = [(one[1], one[2] if one[2] is not None else one[3]) for one in re.finditer(pattern, text, re.M | re.S)]
    assert "".join(f'{name} """{value}"""\n' if f'"""{value}"""' in text else f"{name} {value}\n"
                   for name, value in commands) == text  # fmt: skip
    return commands


def rendered(template, messages):
    """As much of Go's text/template as the template uses: a range, and fields of its items."""
    head, body, tail = re.fullmatch(r"(.*?)\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*)", template, re.S).groups()
    items = [body.replace("{{ .Role }}", one["role"]).replace("{{ .Content }}", one["content"]) for one in messages]
    text = head + "".join(items) + tail
    assert "{{" not in text
    return text


def test_ollama_renders_as_our_template_does():
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Two\nlines "},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "And?"},
    ]
    for messages in (conversation, conversation[1:2]):
        assert rendered(dict(parsed(made()))["TEMPLATE"], messages) == render(messages, generation_prompt=True)


def test_every_setting_of_the_release_is_said():
    commands = parsed(made())
    parameters = [value for name, value in commands if name == "PARAMETER"]
    assert commands[0] == ("FROM", "./tiny-F16.gguf") and commands[-1] == ("LICENSE", "mit")
    assert parameters == [
        *("temperature 0.7", "top_k 40", "top_p 0.9", "min_p 0", "repeat_penalty 1.1", "repeat_last_n -1"),
        *("num_predict 128", "num_ctx 512", 'stop "<|im_end|>"', 'stop "<|endoftext|>"'),
    ]


@pytest.mark.parametrize(("generation", "temperature"), [(Generation(do_sample=False), "0"), (Generation(), "1")])
def test_defaults_of_ollama_are_overruled(generation, temperature):
    text = made(generation)
    assert f"PARAMETER temperature {temperature}\n" in text and "PARAMETER top_k 0\n" in text
    assert "PARAMETER repeat_penalty 1\n" in text and "repeat_last_n" not in text


def test_a_base_model_reads_the_prompt_as_it_is():
    commands = parsed(made(is_chat=False, license=None))
    assert dict(commands)["TEMPLATE"] == "{{ .Prompt }}" and "LICENSE" not in dict(commands)
    assert CHATML_TEMPLATE not in made(is_chat=False)
