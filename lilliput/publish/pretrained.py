"""Starting from a model that is there: a Llama, a Qwen3 or an HGRN2 that Lilliput released, local or on the hub.

model=PretrainedModel(checkpoint="HuggingFaceTB/SmolLM2-135M"),
tokenizer=PretrainedTokenizer(checkpoint="HuggingFaceTB/SmolLM2-135M"),
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lilliput.base.errors import RunError, reading
from lilliput.base.files import sha256
from lilliput.base.hub import hub_trouble, may_ask_hub
from lilliput.base.safetensors_headers import WEIGHTS_INDEX, weight_files
from lilliput.base.spec import to_plain
from lilliput.base.untrusted import read_object
from lilliput.model import LanguageModel, ModelSpec
from lilliput.publish.hf_config import Architecture, architecture_of
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.publish.weights import read_weights
from lilliput.tokenizer.bpe import TOKENIZER_FILE, load_tokenizer, tokenizer_hash
from lilliput.tokenizer.specials import Specials, read_specials, vocabulary_size

CONFIG_FILE = "config.json"
_TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", CONFIG_FILE)


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """The weights of a checkpoint, where a recipe could also write the shape of a new model."""

    checkpoint: str
    """A folder with `config.json` and safetensors files, or "owner/name" on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""

    @property
    def shape(self) -> ModelSpec:
        """The shape of the model, from the config alone."""
        return self._architecture.shape

    @property
    def layout(self) -> HFFormat:
        """The layout that the checkpoint is in, with its context: a release may use the same."""
        return self._architecture.layout

    @property
    def hub_name(self) -> str | None:
        """The name of the checkpoint on the hub; None for a folder."""
        return None if Path(self.checkpoint).expanduser().is_dir() else self.checkpoint

    def identity(self) -> Any:
        """Return what decides the weights: the spec and the hash of every file of weights."""
        return to_plain(self) | {"weights": [sha256(path) for path in weight_files(self._folder)]}

    def build(self, seed: int) -> LanguageModel:
        """The model in fp32 on the CPU; nothing is left for the seed to decide."""
        return read_weights(self._folder, self.shape, self.layout)

    def tokenizer_hash(self) -> str:
        """Return the hash of the tokenizer beside it."""
        return tokenizer_hash(load_tokenizer(fetch(self.checkpoint, self.revision, _TOKENIZER_FILES)))

    @property
    def _architecture(self) -> Architecture:
        return read_architecture(fetch(self.checkpoint, self.revision, (CONFIG_FILE,)))

    @property
    def _folder(self) -> Path:
        return fetch(self.checkpoint, self.revision, (CONFIG_FILE, "model*.safetensors", WEIGHTS_INDEX))


@dataclass(frozen=True, kw_only=True)
class PretrainedTokenizer:
    """The tokenizer of a checkpoint, where a recipe could also have a new one learned."""

    checkpoint: str
    """A folder with `tokenizer.json`, or "owner/name" on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    end: str | None = None
    """The token that ends a document; None for the checkpoint's eos token."""

    @property
    def vocab(self) -> int:
        """Number of ids; the embedding may have more rows."""
        return vocabulary_size(self._tokenizer)

    @property
    def specials(self) -> Specials:
        """The tokens that end a document, begin a text and fill up rows."""
        return read_specials(self._folder, self._tokenizer, self.end)

    def identity(self) -> Any:
        """Return what decides the tokenizer: the spec and its hash."""
        return to_plain(self) | {"sha256": tokenizer_hash(self._tokenizer)}

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer as it is; no text is read."""
        return self._tokenizer

    @property
    def _folder(self) -> Path:
        return fetch(self.checkpoint, self.revision, _TOKENIZER_FILES)

    @property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._folder)


def read_architecture(folder: Path) -> Architecture:
    """Return what the `config.json` of a folder says.

    Raises:
        RunError: there is none, or it says something that no model of ours has.
    """
    hint = "give the folder of a Llama, a Qwen3 or a released HGRN2 that transformers saved"
    with reading(str(folder), hint):
        if not (folder / CONFIG_FILE).is_file():
            raise RunError(f"there is no {CONFIG_FILE}", where=str(folder), hint=hint)
        return architecture_of(read_object(folder / CONFIG_FILE, hint), str(folder))


def fetch(checkpoint: str, revision: str | None, files: tuple[str, ...]) -> Path:
    """The folder of a checkpoint: a local one as it is, one of the hub with these files (names or patterns) in it.

    Raises:
        RunError: there is neither a folder nor such a model on the hub, or the hub is out of reach.
    """
    folder = Path(checkpoint).expanduser()
    return folder if folder.is_dir() else _from_hub(checkpoint, revision, files, local=not may_ask_hub())


@cache
def _from_hub(name: str, revision: str | None, files: tuple[str, ...], *, local: bool) -> Path:
    """The snapshot in the hub's own cache; the same all through a process."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, revision=revision, allow_patterns=list(files), local_files_only=local)
        return Path(found)
    except Exception as error:  # the library raises what its own libraries do
        if local:
            raise RunError(
                f"the model {name!r} is not on this machine, and looking at a recipe asks no network",
                where=f"the checkpoint {name!r}",
                hint=f"fetch it first: hf download {name} {CONFIG_FILE}",
            ) from error
        trouble = hub_trouble(error, "model", name)
        what, hint = trouble or (f"the model {name!r} cannot be fetched ({error})", "try again later")
        raise RunError(what, where=f"the checkpoint {name!r}", hint=f"{hint}, or give a local folder") from error
