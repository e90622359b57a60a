"""A Hugging Face folder that Lilliput did not write, as a native model: Llama, Qwen3, and our HGRN2 saved again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lilliput.base.errors import RecipeError, RunError, reading
from lilliput.base.untrusted import read_object, shown
from lilliput.publish.export import CHAT_TEMPLATE_FILE, GENERATION_FILE, Generation
from lilliput.publish.loaded_model import LoadedModel, check_ids
from lilliput.publish.pretrained import CONFIG_FILE, read_architecture
from lilliput.publish.weights import check_header, read_weights
from lilliput.tokenizer.bpe import load_tokenizer
from lilliput.tokenizer.specials import id_of, read_specials
from lilliput.tokenizer.template import check_template, read_template

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TOP_K = 50
"""Default top-k of transformers for folders that sample."""
_NUMBERS = {"repetition_penalty": float, "max_new_tokens": int, "temperature": float, "top_p": float, "top_k": int}
_HINT = "fetch the folder again"


def load_hf(folder: Path) -> LoadedModel:
    """Read a folder of config, weights and tokenizer, with generation settings and chat template where it has them.

    What is small is read first, and compared with what the files of weights say of themselves.

    Raises:
        RunError: a file is missing or damaged, or the architecture is not one of ours.
        DataError: there is no tokenizer that can be read, or nothing says which token ends a document.
    """
    with reading(str(folder), _HINT):
        architecture = read_architecture(folder)
        check_header(folder, architecture.shape, architecture.layout)
        tokenizer = load_tokenizer(folder)
        specials = read_specials(folder, tokenizer)
        end = id_of(tokenizer, specials.end, where=str(folder))
        settings = _read(folder / GENERATION_FILE)
        said = settings.get("eos_token_id", _read(folder / CONFIG_FILE).get("eos_token_id"))
        named = said if isinstance(said, list) else [end if said is None else said]
        stops = check_ids(tokenizer, [*named, end], architecture.shape.vocab, where=str(folder))
        generation = _generation(settings, tokenizer.id_to_token(stops[0]), str(folder / GENERATION_FILE))
        return LoadedModel(
            chat_template=_chat_template(folder),
            model=read_weights(folder, architecture.shape, architecture.layout).eval(),
            tokenizer=tokenizer,
            context=architecture.layout.context,
            layout=architecture.layout,
            generation=generation,
            stop_ids=stops,
            end_id=end,
            special_tokens=specials.names(),
        )


def _generation(settings: Mapping[str, Any], stop: str | None, where: str) -> Generation:
    """The settings under our names; transformers takes the likeliest token unless a folder says otherwise."""
    sampled = settings.get("do_sample") or False
    if not isinstance(sampled, bool):
        raise RunError(f"do_sample is {shown(sampled)}", where=where, hint="give true or false")
    names = ["repetition_penalty", "max_new_tokens", *(["temperature", "top_p", "top_k"] if sampled else [])]
    given: dict[str, Any] = {"top_k": TOP_K} if sampled else {}
    for name in names:
        value = settings.get(name)
        if type(value) in (int, _NUMBERS[name]):  # true is an int to isinstance, too
            given[name] = _NUMBERS[name](value)
        elif value is not None:
            raise RunError(f"{name} is {shown(value)}", where=where, hint="give a number or null")
    try:
        return Generation(do_sample=sampled, stop=stop, **given)
    except RecipeError as error:
        raise RunError(error.what, where=where, hint=error.hint) from error


def _chat_template(folder: Path) -> str | None:
    """Jinja, from a file of its own or from the tokenizer's config, which may hold several by name."""
    file = folder / CHAT_TEMPLATE_FILE
    if file.is_file():
        return read_template(file)
    where = folder / TOKENIZER_CONFIG_FILE
    template = _read(where).get("chat_template")
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return None if template is None else check_template(template, str(where))


def _read(path: Path) -> Mapping[str, Any]:
    return read_object(path, _HINT) if path.is_file() else {}
