"""The gate before a model folder's own code runs: only code that Lilliput itself would write there, byte for byte.

transformers runs Python files of a folder when it is told `trust_remote_code=True`: those that `auto_map` names in
`config.json` and `tokenizer_config.json`, and `custom_generate/generate.py` unasked.
"""

from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError, reading
from lilliput.base.files import read_json
from lilliput.publish.export import RELEASE_FILE
from lilliput.publish.hf_formats.hgrn2 import AUTO_MAP, REMOTE_FILES
from lilliput.publish.load import verified

HINT = "fetch or publish the folder again"
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")
"""Entries of a config that may name a repository of kernels."""


def check_code(folder: Path, *, trusted: bool = False) -> bool:
    """Return the `trust_remote_code` to load a model folder with.

    Hashes first: a folder that Lilliput released is compared with its `lilliput.json` before anything else.

    Args:
        folder: of a model.
        trusted: whether the user said that its code may run, whatever it is.

    Raises:
        RunError: it has code that is not that of this version of Lilliput and is not trusted; or a released file has
            changed.
    """
    if (folder / RELEASE_FILE).is_file():
        verified(folder)
    foreign = foreign_code(folder)
    if foreign and not trusted:
        raise RunError(
            f"the model brings code that is not Lilliput's: {', '.join(foreign[:4])}",
            where=str(folder),
            hint="read it, then add --trust-remote-code to let it run; or use the version that released the model",
        )
    return bool(_files(folder)) or any(_auto_maps(folder).values())


def foreign_code(folder: Path) -> list[str]:
    """Return what a model folder brings of code that is not Lilliput's: its Python files, and entries of its configs.

    Raises:
        RunError: a config cannot be read.
    """
    foreign = [name for name, path in _files(folder).items() if not _is_installed(name, path)]
    foreign += [
        f"{name}: auto_map" for name, auto_map in _auto_maps(folder).items() if auto_map not in (None, AUTO_MAP)
    ]
    foreign += [f"config.json: {key}" for key in KERNELS if "/" in str(_read(folder / "config.json").get(key, ""))]
    return foreign


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.py"))}


def _auto_maps(folder: Path) -> dict[str, Any]:
    return {name: _read(folder / name).get("auto_map") for name in ("config.json", "tokenizer_config.json")}


def _is_installed(name: str, path: Path) -> bool:
    ours = next((file for file in REMOTE_FILES if file.name == name), None)
    return ours is not None and path.is_file() and path.read_bytes() == ours.read_bytes()


def _read(path: Path) -> dict[str, Any]:
    with reading(path, HINT):
        plain = read_json(path) if path.is_file() else {}
        if not isinstance(plain, dict):
            raise RunError(f"{path.name} is not a JSON object", where=str(path), hint=HINT)
        return plain
