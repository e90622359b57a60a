"""A model as a Hugging Face folder: config, weights, tokenizer, ids of special tokens, code where it needs its own.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  generation_config.json  lilliput.json
    [chat_template.jinja]  [README.md]  [configuration_*.py  modeling_*.py]
    [<name>-F16.gguf  ...  Modelfile]  [int8.safetensors]

`lilliput.json` says what the folder was made from, so that `load` can read it back as a native model. How the model
writes is there and on the card: `generation_config.json` names tokens alone, for whatever else it said would rule over
what evaluation tools ask for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor

from lilliput.base import __version__
from lilliput.base.errors import ExportError, RecipeError
from lilliput.base.files import read_json, sha256, verify_checksum, with_checksum, write_bytes, write_json, write_text
from lilliput.base.safetensors_headers import WEIGHTS_FILE
from lilliput.base.spec import to_plain
from lilliput.generate.sampling import Sampling
from lilliput.model import LanguageModel
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.tokenizer.bpe import OURS, save_tokenizer, tokenizer_hash
from lilliput.tokenizer.chatml import MESSAGE_END
from lilliput.tokenizer.specials import Specials, vocabulary_size

RELEASE_FORMAT = "lilliput-release"
RELEASE_VERSION = 1
RELEASE_FILE = "lilliput.json"
CARD_FILE = "README.md"
"""Name of the model card, which users may edit."""
CHAT_TEMPLATE_FILE = "chat_template.jinja"
GENERATION_FILE = "generation_config.json"

Dtype = Literal["F32", "BF16", "F16"]
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Default generation settings of a released model in Lilliput; elsewhere its card shows them."""

    do_sample: bool = True
    """False takes the likeliest token; temperature, top_p and top_k then have no say."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 for all tokens."""
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop: str | None = None
    """The token that ends a text; None is `<|im_end|>` with a chat template and the end of a document without."""

    def __post_init__(self) -> None:
        _ = self.sampling  # which refuses impossible settings
        if self.do_sample and not self.temperature:
            raise RecipeError("temperature 0 samples nothing", where="Generation", hint="give do_sample=False")
        if self.max_new_tokens < 1:
            raise RecipeError(
                f"max_new_tokens cannot be {self.max_new_tokens}", where="Generation", hint="give at least 1"
            )

    @property
    def sampling(self) -> Sampling:
        """The same for our own decoder."""
        return Sampling(
            greedy=not self.do_sample,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
        )

    def stop_ids(self, tokenizer: Tokenizer, chat_template: str | None, end: str) -> tuple[int, ...]:
        """The ids that end a text, the stop token first; the end of a document always ends one too.

        Raises:
            ExportError: the tokenizer does not have the stop token.
        """
        stop = self.stop or (end if chat_template is None else MESSAGE_END)
        ids = []
        for token in dict.fromkeys((stop, end)):
            identity = tokenizer.token_to_id(token)
            if identity is None:
                raise ExportError(
                    f"the tokenizer has no {token!r}",
                    where="the stop token of a release",
                    hint="add the token before the release, or stop at another one",
                )
            ids.append(identity)
        return tuple(ids)


def export(
    model: LanguageModel,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    layout: HFFormat,
    dtype: Dtype,
    generation: Generation,
    chat_template: str | None,
    readme: str | None = None,
    specials: Specials = OURS,
) -> None:
    """Write a released model into an existing folder, which is not read yet.

    Args:
        model: on any device, in training or not; left as it is.
        tokenizer: with at most as many ids as the model has.
        folder: where; the caller makes it whole or absent (`base.files.new_folder`).
        layout: the architecture.
        dtype: what the weights are rounded to.
        generation: how the model writes.
        chat_template: Jinja; None for a base model.
        readme: the model card.
        specials: the tokenizer's special tokens.

    Raises:
        ExportError: the layout cannot express the model, the tokenizer does not belong to it, or a weight is not
            finite in `dtype`.
    """
    spec = model.spec
    layout.check_supported(spec)
    if vocabulary_size(tokenizer) > spec.vocab:
        raise ExportError(
            f"the tokenizer has {vocabulary_size(tokenizer):,} ids, the model {spec.vocab:,}",
            where="the tokenizer of a release",
            hint="release the model with the tokenizer it was trained with",
        )
    stops = generation.stop_ids(tokenizer, chat_template, specials.end)
    weights = rounded_weights(model, dtype)
    names = layout.names(spec)
    assert names.keys() == weights.keys() and len(set(names.values())) == len(names), "a layout's names are a bijection"
    weights |= {name: weights[name][order] for name, order in layout.row_permutations(spec).items()}
    exported = {names[name]: weights[name] for name in sorted(names, key=names.__getitem__)}

    begin, pad = (tokenizer.token_to_id(token) for token in (specials.begin, specials.pad))
    ids = {"bos_token_id": begin, "eos_token_id": stops[0], "pad_token_id": pad}
    config = layout.config(spec) | ids | {"dtype": str(DTYPES[dtype]).removeprefix("torch.")}
    write_json(folder / "config.json", dict(sorted(config.items())))
    write_bytes(folder / WEIGHTS_FILE, save(exported, metadata={"format": "pt"}))
    for file in layout.remote_files:
        write_bytes(folder / file.name, file.read_bytes())
    _write_tokenizer(tokenizer, folder, specials, stops[0], layout.context, chat_template)
    write_json(folder / GENERATION_FILE, ids | {"eos_token_id": _one(stops)})
    if readme is not None:
        write_text(folder / CARD_FILE, readme)
    release = {
        "format": RELEASE_FORMAT,
        "version": RELEASE_VERSION,
        "lilliput": __version__,
        "dtype": dtype,
        "layout": to_plain(layout),
        "model": to_plain(spec),
        "generation": to_plain(generation),
        "tokenizer": tokenizer_hash(tokenizer),
        "specials": to_plain(specials),
        "files": {
            path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != CARD_FILE
        },
    }
    write_json(folder / RELEASE_FILE, with_checksum(release))


def record_files(folder: Path, names: Iterable[str]) -> None:
    """Record the hashes of more files of a release, which are in its folder by now."""
    release = verify_checksum(read_json(folder / RELEASE_FILE))
    files = release["files"] | {name: sha256(folder / name) for name in names}
    write_json(folder / RELEASE_FILE, with_checksum(release | {"files": dict(sorted(files.items()))}))


def rounded_weights(model: LanguageModel, dtype: Dtype) -> dict[str, Tensor]:
    """The model's weights as a release stores them: on the CPU, contiguous, in `dtype`, tied ones once.

    Raises:
        ExportError: a weight is not finite in `dtype`.
    """
    weights = {}
    for name, weight in model.state_dict().items():
        rounded = weight.detach().to("cpu", DTYPES[dtype]).contiguous()
        if not rounded.isfinite().all():
            raise ExportError(
                f"{int((~rounded.isfinite()).sum()):,} of {rounded.numel():,} numbers are not finite in {dtype}",
                where=f"the weight {name}",
                hint="release an earlier checkpoint if the training diverged, or use BF16 or F32 if F16 overflows",
            )
        weights[name] = rounded
    return weights


def _write_tokenizer(
    tokenizer: Tokenizer, folder: Path, specials: Specials, stop: int, context: int, chat_template: str | None
) -> None:
    """Write what AutoTokenizer loads; transformers 5 keeps the chat template in a file of its own."""
    save_tokenizer(tokenizer, folder, specials)
    config = read_json(folder / "tokenizer_config.json")
    config.pop("chat_template", None)
    config |= {
        "eos_token": tokenizer.id_to_token(stop),
        "model_max_length": context,
        "padding_side": "left",  # the only side on which a batch can go on writing
    }
    write_json(folder / "tokenizer_config.json", config)
    if chat_template is not None:
        write_text(folder / CHAT_TEMPLATE_FILE, chat_template)


def _one(stops: tuple[int, ...]) -> int | list[int]:
    return stops[0] if len(stops) == 1 else list(stops)
