"""A model under evaluation that Lilliput itself has loaded: of a folder, or of a run that released nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from lilliput.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Native:
    """A model, with what the harness needs beside it."""

    name: str
    """Name shown to users: the folder."""
    model: LanguageModel
    tokenizer: Tokenizer
    special_tokens: Mapping[str, str]
    """Special tokens by the names that transformers has for them: `bos_token`, `eos_token`."""
    context: int
    """The window: what fits no window is cut."""
    tokenizer_folder: Path | None = None
    """The folder that transformers reads the tokenizer from, where it may make something else of its files; None where
    it takes them as they are."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end a text which the model writes."""
    repetition_penalty: float = 1.0
    """Penalty that transformers uses by default: that of `generation_config.json`."""

    def __str__(self) -> str:
        return self.name
