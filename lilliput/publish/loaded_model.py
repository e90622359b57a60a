"""A model with everything that it needs to write: what `load` makes of a folder, and `load_trained` of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from lilliput.base.errors import RunError
from lilliput.base.untrusted import shown
from lilliput.model import LanguageModel
from lilliput.publish.export import Generation
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.tokenizer.specials import vocabulary_size


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """Everything that a model needs to write."""

    model: LanguageModel
    """Model in evaluation mode, on the CPU, with fp32 weights; or the 8-bit ones of the release's file alone."""
    tokenizer: Tokenizer
    context: int
    """Tokens the model was trained to read at once."""
    layout: HFFormat | None
    """The architecture that it was read from; None where it comes from a run."""
    generation: Generation
    chat_template: str | None
    """Jinja; None for a base model."""
    stop_ids: tuple[int, ...]
    """Ids that end a text."""
    end_id: int
    """The id that ends a document, and that a text is predicted from where there is nothing before it."""
    special_tokens: Mapping[str, str]
    """Special tokens by the names that chat templates use, such as `eos_token`."""


def check_ids(tokenizer: Tokenizer, stops: Sequence[Any], vocab: int, *, where: str) -> tuple[int, ...]:
    """The ids that end a text, each once; refuse ids that the embedding has no rows for, before a model looks one up.

    Args:
        tokenizer: whose texts the model reads.
        stops: the ids that end a text.
        vocab: rows of the embedding.
        where: the folder.

    Raises:
        RunError: an id is none of them.
    """
    if vocabulary_size(tokenizer) > vocab:
        raise RunError(
            f"the tokenizer has ids up to {vocabulary_size(tokenizer) - 1:,}, the model {vocab:,} of them",
            where=where,
            hint="use the tokenizer that the model was trained with: tokens were added to this one",
        )
    for stop in stops:
        if type(stop) is not int or not 0 <= stop < vocab:
            raise RunError(
                f"eos_token_id is {shown(stop)}, the model has {vocab:,} ids",
                where=where,
                hint="give the id of the token that ends a text, or a list of such ids",
            )
    return tuple(dict.fromkeys(stops))
