"""Everything except the recipe and the data that affects a run's exact weights. Recorded when training starts, checked
on resume.

    machine     device, precision, threads, micro-batch, compilation, workers     `Machine`, resolved
    made_with   versions of PyTorch and Lilliput, the kind of processor; on a GPU also Triton, CUDA and its name, and
                the tiles of kernels where they are tuned ones

`run.json` has both; where the machine finds micro-batches from memory, `checkpoints/rows.json` of a phase has which.
While neither changes, a run that was stopped and continued ends in the weights of one that was
not, bit for bit. A change ends that promise, so it has to be asked for, and is noted with the phase that went on after
it. A phase keeps its identity through a change: its inputs name the machine that the run began on.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lilliput.base.errors import RunError
from lilliput.base.run_folder import RunFolder, differences
from lilliput.base.spec import from_plain, to_plain
from lilliput.base.untrusted import shown
from lilliput.ops import tile_cache
from lilliput.train.machine import Machine


def resolve_machine(
    run: RunFolder, machine: Machine | None, *, named: str | None = None, allow_change: bool = False
) -> Machine:
    """The machine of a run: what is asked for where none is frozen yet, else the one that it went on with last.

    Args:
        run: open.
        machine: what is asked for, if anything is.
        named: as it was asked for, for cards.
        allow_change: whether it may be another one than before; it is frozen by `check_unchanged`.

    Raises:
        RunError: another machine than before.
    """
    record = run.read("run.json")
    assert record is not None
    if record["machine"] is None:
        resolved = (machine or Machine()).resolved()
        run.write_with_checksum("run.json", record | {"machine": to_plain(resolved), "machine_name": named})
        return resolved
    before = from_plain(_last(record)["machine"], where="run.json")
    if not isinstance(before, Machine):
        raise RunError(
            f"the machine of the run is not a machine: {shown(before)}",
            where=str(run.path / "run.json"),
            hint=run.hint("run.json"),
        )
    if machine is None or machine.resolved() == before:
        return before.resolved()
    if not allow_change:
        raise _changed(run, differences({"machine": to_plain(before)}, {"machine": to_plain(machine.resolved())}))
    return machine.resolved()


def check_unchanged(run: RunFolder, machine: Machine, phase: str, *, allow_change: bool = False) -> list[str]:
    """Before a phase trains here: freeze what is not frozen yet, compare what is.

    Args:
        run: open, with its machine resolved.
        machine: that it trains on now.
        phase: which, as a part of the run.
        allow_change: whether it may go on although something differs.

    Returns:
        what differs and is noted from now on, as texts.

    Raises:
        RunError: something differs and may not.
    """
    record = run.read("run.json")
    assert record is not None
    now = {"machine": to_plain(machine), "made_with": software_versions(machine)}
    if "made_with" not in record:
        record |= {"made_with": now["made_with"]}
        run.write_with_checksum("run.json", record)
    changed = differences(_last(record), now)
    if changed and not allow_change:
        raise _changed(run, changed)
    if changed:
        note = {"phase": phase, "changed": changed} | now
        run.write_with_checksum("run.json", record | {"changes": [*record.get("changes", []), note]})
    return changed


def check_code_unchanged(run: RunFolder, phase: str, code: dict[str, str], *, allow_change: bool = False) -> None:
    """Compare the code of a recipe's own parts with what a phase was trained by.

    Args:
        run: open.
        phase: that has begun, as a part of the run.
        code: the hash of each part of the recipe's own that the phase is trained by.
        allow_change: whether it may be another one; that is noted, and the phase keeps its identity.

    Raises:
        RunError: it is another one, and may not be.
    """
    record, begun = run.read("run.json"), run.record(phase)["from"].get("code")
    assert record is not None
    noted = [change["code"] for change in record.get("changes", []) if change["phase"] == phase and "code" in change]
    before = [begun, *noted][-1]
    changed = differences({"code": before or code}, {"code": code})
    if changed and not allow_change:
        raise RunError(
            f"{phase} was trained with other code: {'; '.join(changed[:4])}",
            where=str(run.path),
            hint="undo the changes in these parts, start another run with --out, or resume with `lilliput train` "
            "--allow-change, which records the change",
        )
    if changed:
        note = {"phase": phase, "changed": changed, "code": code} | _last(record)
        run.write_with_checksum("run.json", record | {"changes": [*record.get("changes", []), note]})


def software_versions(machine: Machine) -> dict[str, Any]:
    """Return what decides how this (resolved) machine rounds, by name; it is prepared for."""
    from lilliput.base import __version__

    found: dict[str, Any] = {"lilliput": __version__, "torch": torch.__version__}
    if machine.tiles is not None:
        found["tiles"] = tile_cache.active()
    if machine.device.startswith("cuda"):
        return found | {
            "triton": _version("triton"),
            "cuda": torch.version.cuda or torch.version.hip,
            "processor": torch.cuda.get_device_name(machine.device),
        }
    return found | {"processor": torch.backends.cpu.get_cpu_capability()}


def began_on(run: RunFolder) -> Any:
    """The machine that a run began on, as a JSON value."""
    record = run.read("run.json")
    assert record is not None
    return record["machine"]


def untrained(what: str, folder: Path) -> RunError:
    """The error of what should be trained and is not."""
    return RunError(
        f"{what} has not been trained as the recipe says",
        where=str(folder),
        hint=f"train it first, publish never trains: lilliput train {folder}",
    )


def _last(record: dict[str, Any]) -> dict[str, Any]:
    """Machine and versions that the run went on with last."""
    last = (record.get("changes") or [record])[-1]
    return {"machine": last["machine"], "made_with": last.get("made_with")}


def _changed(run: RunFolder, changed: list[str]) -> RunError:
    return RunError(
        f"resuming here would change the weights: {'; '.join(changed[:4])}",
        where=str(run.path),
        hint="resume as it started (without --machine, with those versions), start another run with --out, or add "
        "--allow-change: the change is recorded, and the weights differ from those of an uninterrupted run",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
