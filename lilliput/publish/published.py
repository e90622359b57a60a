"""A model with everything that it needs to write: what `load` makes of a folder."""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Tokenizer

from lilliput.model import LanguageModel
from lilliput.publish.export import Generation
from lilliput.publish.layouts.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Published:
    """Everything that a released model needs to write."""

    model: LanguageModel
    """In evaluation mode, on the CPU, its released weights in fp32."""
    tokenizer: Tokenizer
    layout: Layout
    generation: Generation
    chat_template: str | None
    """Jinja; None for a base model."""
    stop_ids: tuple[int, ...]
    """Ids that end a text."""
    end_id: int
    """The id that ends a document, and that a text is predicted from where there is nothing before it."""
    special_tokens: Mapping[str, str]
    """Special tokens by the names that chat templates use, such as `eos_token`."""
