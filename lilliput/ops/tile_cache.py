"""Cuts of kernels' work that were measured on the device at hand, for machines that ask for them.

Kernels come with cuts for classes of devices (their `triton_tiles.py`), so that nothing is tried out on first use. On
another device others may be faster: `lilliput bench scan_grid --keep` and `lilliput bench attention --grid --keep` try
some, check what comes of each, and keep the fastest in a file of the user's cache, by device and version of Triton.
`Machine(tiles="tuned")` takes them. Sums may then be made in another order, so a run records which they were.
"""

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from lilliput.base.errors import MachineError
from lilliput.base.files import read_json, write_json

Tiles = TypeVar("Tiles", bound=NamedTuple)
"""A tile, itself a named tuple, for each of some kernels; and numbers that they share."""
TileConfigs = dict[str, dict[str, list[int | None]]]
"""By a name for kernels that belong together, the numbers of each one's tile."""

_used: TileConfigs = {}


def activate(cuts: TileConfigs) -> None:
    """Use these tile configs for the rest of the process, and the shipped ones where they lack one."""
    _used.clear()
    _used.update(cuts)


def active() -> TileConfigs:
    """Return those in use."""
    return dict(_used)


def tile_configs(name: str, shipped: Tiles) -> Tiles:
    """Return each kernel's tile in use, else the shipped one."""
    found = _used.get(name, {})
    return shipped._replace(**{kernel: type(getattr(shipped, kernel))(*tile) for kernel, tile in found.items()})


def save(name: str, measured: Any, device: str) -> Path:
    """Keep tiles, in place of older ones of the same kernels, device and Triton.

    Only tiles are kept: the length of a scan's chunk is a number, and stays as shipped, because sizes of tensors depend
    on it, and with them what was compiled before.

    Returns:
        the file that has them.
    """
    cut = {kernel: list(tile) for kernel, tile in measured._asdict().items() if isinstance(tile, tuple)}
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = _read(file)
    whole.setdefault(_key(device), {})[name] = cut
    write_json(file, whole)
    return file


def load(device: str) -> TileConfigs:
    """Return what was kept for a device.

    Raises:
        MachineError: nothing was, or it cannot be read.
    """
    file = _file()
    found = _read(file).get(_key(device))
    if not found:
        raise MachineError(
            f'tiles="tuned", but nothing was measured for {_key(device)}',
            where=str(file),
            hint="measure with `lilliput bench scan_grid --keep`, or leave `tiles` out of the machine",
        )
    return found


def _read(file: Path) -> dict[str, TileConfigs]:
    if not file.exists():
        return {}
    try:
        whole = read_json(file)
        assert isinstance(whole, dict) and all(isinstance(cuts, dict) for cuts in whole.values())
    except (AssertionError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MachineError(
            f"measured tiles cannot be read: {error or 'not a table of tables'}",
            where=str(file),
            hint="remove the file and measure again: `lilliput bench scan_grid --keep`",
        ) from error
    return whole


def _file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "lilliput" / "tiles.json"


def _key(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    try:
        return f"{name}, Triton {version('triton')}"
    except PackageNotFoundError:
        return f"{name}, no Triton"
