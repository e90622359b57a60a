"""Modelfile: how Ollama runs a GGUF file, with the chat format and the settings of the release.

The template is in Go's language, and renders a conversation as the release's Jinja template does. Ollama has its own
default for every setting (temperature 0.8, the 40 likeliest tokens), so each is said.
"""

from collections.abc import Sequence

from lilliput.publish.export import Generation
from lilliput.tokenizer.chatml import ASSISTANT, MESSAGE_END, MESSAGE_START

MODELFILE = "Modelfile"
CHATML_TEMPLATE = (
    f"{{{{ range .Messages }}}}{MESSAGE_START}{{{{ .Role }}}}\n"
    f"{{{{ .Content }}}}{MESSAGE_END}\n"
    f"{{{{ end }}}}{MESSAGE_START}{ASSISTANT}\n"
)
"""ChatML in Go's template language; the system prompt is one of Ollama's messages."""
PLAIN_TEMPLATE = "{{ .Prompt }}"
"""A base model continues the prompt as it is."""


def modelfile(
    file: str, *, generation: Generation, context: int, stops: Sequence[str], is_chat: bool, license: str | None
) -> str:
    """Return the text of a Modelfile.

    Args:
        file: name of the GGUF file beside it.
        generation: default settings of the release.
        context: tokens that the model was trained to read at once.
        stops: texts of the tokens that end a text.
        is_chat: whether the model answers messages.
        license: of the weights; None if none is named.
    """
    template = CHATML_TEMPLATE if is_chat else PLAIN_TEMPLATE
    parameters = [f"{name} {value:g}" for name, value in _settings(generation).items()]
    parameters += [f"num_predict {generation.max_new_tokens}", f"num_ctx {context}"]
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{template}"""',
        *(f"PARAMETER {parameter}" for parameter in parameters),
        *(f'PARAMETER stop "{stop}"' for stop in stops),
        *([f'LICENSE """{license}"""'] if license else []),
    ]
    return "\n".join(lines) + "\n"


def _settings(generation: Generation) -> dict[str, float]:
    """Return the settings by Ollama's names; a penalty counts the whole text, as ours does."""
    penalty = generation.repetition_penalty
    return {
        "temperature": generation.temperature if generation.do_sample else 0,
        "top_k": generation.top_k,
        "top_p": generation.top_p,
        "min_p": 0,
        "repeat_penalty": penalty,
        **({} if penalty == 1 else {"repeat_last_n": -1}),
    }
