"""A native model under evaluation, such as one with a mixer of its own that no Hugging Face architecture has."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from lilliput.base.files import read_json, write_json
from lilliput.model import LanguageModel
from lilliput.tokenizer.bpe import save_tokenizer
from lilliput.tokenizer.specials import Specials


@dataclass(frozen=True, kw_only=True)
class Native:
    """A model that no folder holds, with what the harness needs beside it."""

    name: str
    """Name shown to users: the run folder."""
    model: LanguageModel
    tokenizer: Tokenizer
    specials: Specials
    context: int
    """The window: what fits no window is cut."""

    def __str__(self) -> str:
        return self.name

    def write_tokenizer(self, folder: Path) -> Path:
        """Write the files that transformers reads the tokenizer from, as those of a release; returns their folder."""
        save_tokenizer(self.tokenizer, folder, self.specials)
        file = folder / "tokenizer_config.json"
        write_json(file, read_json(file) | {"model_max_length": self.context, "padding_side": "left"})
        return folder
