"""A published folder as a native model again: what a release was made from is in its `lilliput.json`."""

from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError, reading
from lilliput.base.field_types import check_kinds
from lilliput.base.files import sha256, verify_checksum
from lilliput.base.limits import plain_name
from lilliput.base.safetensors_headers import HINT, WEIGHTS_FILE
from lilliput.base.spec import from_plain
from lilliput.base.untrusted import read_object, shown
from lilliput.model import ModelSpec
from lilliput.publish.earlier_names import with_present_names
from lilliput.publish.export import CHAT_TEMPLATE_FILE, RELEASE_FILE, RELEASE_FORMAT, RELEASE_VERSION, Generation
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.publish.int8.read import INT8_FILE, read_int8
from lilliput.publish.load_hf import load_hf
from lilliput.publish.loaded_model import LoadedModel, check_ids
from lilliput.publish.pretrained import CONFIG_FILE
from lilliput.publish.weights import check_header, read_weights
from lilliput.tokenizer.bpe import END, load_tokenizer, tokenizer_hash
from lilliput.tokenizer.specials import Specials, id_of
from lilliput.tokenizer.template import read_template

_FIRST_SPECIALS = Specials(end=END, begin=END, pad=END)
"""Special tokens of the first releases, which do not name them."""
_WEIGHTS = (".safetensors", ".gguf")
"""Suffixes of files of weights, each of which has all of them."""
CHANGED = (
    f"if it was saved again (by save_pretrained or a trainer), remove {RELEASE_FILE} to read the folder as it is now; "
    f"if nobody meant to change it, {HINT}"
)


def load(folder: Path, *, int8: bool = False) -> LoadedModel:
    """Read a folder that `export` wrote, or one of a Llama, a Qwen3 or a released HGRN2 that transformers saved.

    Args:
        folder: the folder.
        int8: read the release's file of 8-bit weights and no others, if it has one.

    Raises:
        RunError: a file is missing, changed or damaged, or the folder is of another format or architecture.
        RecipeError: a spec in it is of a type that is not installed.
        DataError: the tokenizer of a folder that is not ours cannot be read.
    """
    with reading(str(folder), HINT):
        if not (folder / RELEASE_FILE).is_file() and (folder / CONFIG_FILE).is_file():
            return load_hf(folder)
        return _load(folder, int8=int8)


def _load(folder: Path, *, int8: bool) -> LoadedModel:
    reads_int8 = int8 and INT8_FILE in _release(folder)["files"]
    release = verified(folder, weights=INT8_FILE if reads_int8 else None)
    where = str(folder / RELEASE_FILE)
    plain = {key: with_present_names(release[key]) for key in ("layout", "model", "generation")}
    layout, spec, generation = (from_plain(value, where=where) for value in plain.values())
    specials = from_plain(release["specials"], where=where) if "specials" in release else _FIRST_SPECIALS
    for part, value, kind in (
        ("layout", layout, HFFormat),
        ("model", spec, ModelSpec),
        ("generation", generation, Generation),
        ("specials", specials, Specials),
    ):
        check_kinds(value, kind, where=f"{part} in {where}")
    if not reads_int8:
        check_header(folder, spec, layout)
    tokenizer = load_tokenizer(folder)
    if tokenizer_hash(tokenizer) != release["tokenizer"]:
        raise RunError("the tokenizer is not the one that was released", where=str(folder), hint=HINT)
    chat_template = read_template(folder / CHAT_TEMPLATE_FILE) if CHAT_TEMPLATE_FILE in release["files"] else None
    ends = generation.stop_ids(tokenizer, chat_template, specials.end)
    stops = check_ids(tokenizer, ends, spec.vocab, where=str(folder))
    return LoadedModel(
        model=read_int8(folder, spec) if reads_int8 else read_weights(folder, spec, layout).eval(),
        tokenizer=tokenizer,
        context=layout.context,
        layout=layout,
        generation=generation,
        chat_template=chat_template,
        stop_ids=stops,
        end_id=id_of(tokenizer, specials.end, where=where),
        special_tokens=specials.names() | {"eos_token": tokenizer.id_to_token(stops[0]) or specials.end},
    )


def verified(folder: Path, *, weights: str | None = None) -> dict[str, Any]:
    """Return what a release was made from, its `lilliput.json`, once every file that this names was found as it was
    written.

    Args:
        folder: the release.
        weights: the only file of weights that is needed, as others are not read; None for all of them.

    Raises:
        RunError: one is missing, changed or damaged, or the folder is of another format.
        LilliputError: it names a file that lies elsewhere.
    """
    with reading(str(folder), HINT):
        release = _release(folder)
        for name, expected in release["files"].items():
            if weights not in (None, name) and name.endswith(_WEIGHTS):
                continue
            _verify(folder / plain_name(name, where=str(folder / RELEASE_FILE)), expected)
        return release


def _release(folder: Path) -> dict[str, Any]:
    path = folder / RELEASE_FILE
    if not path.is_file():
        raise RunError(
            f"there is no {RELEASE_FILE}" + ("" if folder.is_dir() else ", and no such folder"),
            where=str(folder),
            hint="give the folder of a model that Lilliput released, or of a Llama or Qwen3 with its config.json",
        )
    release = read_object(path, HINT)
    kind = (release.get("format"), release.get("version"))
    if kind != (RELEASE_FORMAT, RELEASE_VERSION):
        raise RunError(
            f"the folder is of the format {shown(kind)}, not {(RELEASE_FORMAT, RELEASE_VERSION)}",
            where=str(path),
            hint="read it with the version of Lilliput that wrote it",
        )
    try:
        release = verify_checksum(release)
    except ValueError as error:
        raise RunError(f"{RELEASE_FILE} is damaged ({error})", where=str(path), hint=HINT) from error
    missing = {"layout", "model", "generation", "tokenizer", "files"} - release.keys()
    if missing:
        raise RunError(f"{RELEASE_FILE} lacks {sorted(missing)}", where=str(path), hint=HINT)
    if not isinstance(release["files"], dict):
        raise RunError(f"its files are {shown(release['files'])}", where=str(path), hint=HINT)
    return release


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        only_int8 = path.name == WEIGHTS_FILE and (path.parent / INT8_FILE).is_file()
        hint = 'fetch it, too, or use the 8-bit weights: dtype="int8" (--dtype int8)' if only_int8 else HINT
        raise RunError(f"{path.name} is missing", where=str(path.parent), hint=hint)
    if sha256(path) != expected:
        what = f"{path.name} is not the file that was released: its hash differs"
        raise RunError(what, where=str(path), hint=CHANGED)
