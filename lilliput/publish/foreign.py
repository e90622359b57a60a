"""A Hugging Face folder that Lilliput did not release, as a native model: Llama and Qwen3."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError
from lilliput.base.files import read_json
from lilliput.publish.export import CHAT_TEMPLATE_FILE, GENERATION_FILE, Generation
from lilliput.publish.published import Published
from lilliput.publish.start import CONFIG_FILE, read_architecture
from lilliput.publish.weights import read_weights
from lilliput.tokenizer.bpe import load_tokenizer
from lilliput.tokenizer.specials import id_of, read_specials

TOP_K = 50
"""What transformers takes where a folder samples and says nothing of it."""


def load_foreign(folder: Path) -> Published:
    """Read a folder of config, weights and tokenizer, with generation settings and chat template where it has them.

    Raises:
        RunError: a file is missing or damaged, or the architecture is not one of ours.
        DataError: there is no tokenizer that can be read, or nothing says which token ends a document.
    """
    architecture = read_architecture(folder)
    tokenizer = load_tokenizer(folder)
    specials = read_specials(folder, tokenizer)
    end = id_of(tokenizer, specials.end, where=str(folder))
    settings = _read(folder / GENERATION_FILE)
    said = settings.get("eos_token_id", _read(folder / CONFIG_FILE).get("eos_token_id"))
    stops = said if isinstance(said, list) else [end if said is None else said]
    return Published(
        model=read_weights(folder, architecture.shape, architecture.layout).eval(),
        tokenizer=tokenizer,
        layout=architecture.layout,
        generation=_generation(settings, tokenizer.id_to_token(stops[0])),
        chat_template=_chat_template(folder),
        stop_ids=tuple(dict.fromkeys((*stops, end))),
        end_id=end,
        special_tokens=specials.names(),
    )


def _generation(settings: Mapping[str, Any], stop: str | None) -> Generation:
    """The settings under our names; transformers takes the likeliest token unless a folder says otherwise."""
    sampled = bool(settings.get("do_sample"))
    names = ["repetition_penalty", "max_new_tokens", *(["temperature", "top_p", "top_k"] if sampled else [])]
    given: dict[str, Any] = {"top_k": TOP_K} if sampled else {}
    given |= {name: settings[name] for name in names if settings.get(name) is not None}
    return Generation(do_sample=sampled, stop=stop, **given)


def _chat_template(folder: Path) -> str | None:
    """Jinja, from a file of its own or from the tokenizer's config, which may hold several by name."""
    file = folder / CHAT_TEMPLATE_FILE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = _read(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        template = {each["name"]: each["template"] for each in template}.get("default")
    return template


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path) if path.is_file() else {}
    except ValueError as error:
        raise RunError(f"{path.name} cannot be read ({error})", where=str(path), hint="fetch it again") from error
