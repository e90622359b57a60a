"""A conversation through a chat template, with the names that Hugging Face templates expect."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lilliput.base.errors import LilliputError


def render_template(
    template: str, messages: Sequence[Mapping[str, str]], *, tokens: Mapping[str, str], where: str
) -> str:
    """The text of a conversation, ending in the header of the assistant's next message.

    Args:
        template: Jinja. It may come from anywhere, so it runs in a sandbox.
        messages: each with a role and a content.
        tokens: special tokens by the names that templates use, such as `bos_token`.
        where: the model, for the error.

    Raises:
        LilliputError: the template refuses the conversation.
    """
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    try:
        values: dict[str, Any] = {"messages": [dict(message) for message in messages], "add_generation_prompt": True}
        return environment.from_string(template).render(**values, **tokens)
    except (TemplateError, KeyError) as error:
        raise LilliputError(
            f"the chat template refuses these messages: {error}",
            where=where,
            hint='give a list of {"role": "user" or "assistant", "content": "..."}, the last one a user\'s',
        ) from error


def _refuse(says: str) -> NoReturn:
    raise TemplateError(says)
