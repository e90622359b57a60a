"""Checkpoints: a folder of safetensors and a manifest with their hashes, whole or absent, the last ones kept.

step-000120/
  weights.safetensors  objectives.safetensors  average.safetensors  optimizer.safetensors  precision.safetensors
  guard.safetensors  exchange.safetensors (of ranks that take outer steps)
  optimizer-1.safetensors ...  what does not fit in a file of `SHARD` bytes
  manifest.json        format, step, cursor, tokens, steps before, sha256 of each file and of itself

They are written beside the training, which waits for a copy to the host's memory, never for a disk.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lilliput.base import files
from lilliput.base.errors import RunError
from lilliput.base.files import new_folder, read_json, sha256, verify_checksum, with_checksum, write_json
from lilliput.data.batch import Cursor

FORMAT = 1
EXCHANGE = "exchange"
"""Kind of tensors of an exchange that has a state."""
KEPT = 2
"""Checkpoints on disk: the last one, and the one to fall back on should it be damaged."""

SHARD = 2**29
"""Bytes of a file at most, unless one tensor is larger: what is copied on the way to the disk stays small."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a phase."""

    step: int = 0
    cursor: Cursor = Cursor()
    tokens: int = 0
    """Text tokens read."""
    before: int = 0
    """Steps that the weights had taken before the phase, in those that it goes on from."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a phase needs to go on as if it had never stopped."""

    progress: Progress
    tensors: Mapping[str, Mapping[str, Tensor]]
    """`weights`, `objectives`, `average`, `optimizer`, `precision`, `guard` and maybe `exchange`, each by name."""


def save(folder: Path, checkpoint: Checkpoint, kept: int | None = KEPT) -> None:
    """Write `folder`/step-N and drop older ones beyond `kept`; None drops none."""
    path = at_step(folder, checkpoint.progress.step)
    with new_folder(path) as partial:
        for name, tensors in checkpoint.tensors.items():
            for number, shard in enumerate(_shards(tensors)):
                write_tensors(partial / (f"{name}-{number}.safetensors" if number else f"{name}.safetensors"), shard)
        manifest = {
            "format": FORMAT,
            "step": checkpoint.progress.step,
            "cursor": checkpoint.progress.cursor.to_plain(),
            "tokens": checkpoint.progress.tokens,
            "before": checkpoint.progress.before,
            "files": {file.name: sha256(file) for file in sorted(partial.iterdir())},
        }
        write_json(partial / "manifest.json", with_checksum(manifest))
    for old in _steps(folder)[:-kept] if kept else ():
        remove(old)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any device into a safetensors file.

    Raises:
        RunError: the disk is full, or refuses for another reason.
    """
    files.boundary("write", path)
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:  # not an OSError, whatever the disk said
        raise RunError(
            f"the checkpoint cannot be written ({error})",
            where=str(path),
            hint="free space there; earlier checkpoints are intact, and the same command resumes from them",
        ) from error


def newest(folder: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint, or None without any; damaged ones are reported by name and skipped.

    Raises:
        RunError: there are checkpoints and every one is damaged.
    """
    paths = _steps(folder)
    for path in reversed(paths):
        try:
            return load(path)
        except RunError as error:
            report(str(error))
    if paths:
        raise RunError(
            f"all {len(paths)} checkpoints are damaged",
            where=str(folder),
            hint="remove that folder to train the phase again from the start",
        )
    return None


def back_to(folder: Path, step: int) -> Checkpoint:
    """Return the checkpoint of a step, and remove later ones: training resumes from it, and makes them again.

    Raises:
        RunError: it is damaged, or not there.
    """
    found = load(at_step(folder, step))
    for later in (one for one in steps_in(folder) if one > step):
        remove(at_step(folder, later))
    return found


def resumable(
    folder: Path, choose: Callable[[Sequence[int]], int | None], report: Callable[[str], None]
) -> Checkpoint | None:
    """Return the checkpoint to resume from: of the step that is chosen among those there are, else the newest one.

    Args:
        folder: of checkpoints.
        choose: returns a step, or None for the newest checkpoint that is whole.
        report: called with a line for each damaged one.

    Raises:
        RunError: what is chosen, or everything, is damaged.
    """
    step = choose(steps_in(folder))
    return newest(folder, report) if step is None else back_to(folder, step)


def has_any(folder: Path) -> bool:
    """Return whether a folder has checkpoints, damaged or not."""
    return bool(_steps(folder))


def remove(path: Path) -> None:
    """Remove a checkpoint; interrupted, it leaves one without a manifest, which counts as none."""
    files.boundary("remove", path)
    (path / "manifest.json").unlink(missing_ok=True)
    files.boundary("remove", path)
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


def _steps(folder: Path) -> list[Path]:
    """The checkpoints of a folder by step, as numbers: as text `step-1000000` comes before `step-999999`."""
    found = (path.parent for path in folder.glob("step-*/manifest.json"))
    numbered = ((path.name.removeprefix("step-"), path) for path in found)
    return [path for _, path in sorted((int(step), path) for step, path in numbered if step.isdecimal())]


def at_step(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies in a folder of checkpoints."""
    return folder / f"step-{step:06d}"


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the checkpoints of a folder, damaged or not, in order."""
    return [int(path.name.removeprefix("step-")) for path in _steps(folder)]


def load(path: Path) -> Checkpoint:
    """A checkpoint, every file of it compared with its hash.

    Raises:
        RunError: it is damaged, or not there.
    """
    try:
        manifest = _manifest(path)
        for name, expected in manifest["files"].items():
            if sha256(path / name) != expected:
                raise _damaged(path / name, "its bytes are not those that were written")
        return Checkpoint(
            progress=_progress(manifest),
            tensors=_joined(path, manifest["files"]),
        )
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from error


def read_progress(path: Path) -> Progress:
    """The progress of the phase at a checkpoint, whose tensors are not read.

    Raises:
        RunError: it is damaged, or not there.
    """
    try:
        return _progress(_manifest(path))
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from error


def _manifest(path: Path) -> dict[str, Any]:
    return verify_checksum(read_json(path / "manifest.json"))


def _progress(manifest: dict[str, Any]) -> Progress:
    return Progress(
        step=manifest["step"],
        cursor=Cursor.from_plain(manifest["cursor"]),
        tokens=manifest["tokens"],
        before=manifest.get("before", 0),
    )


def _shards(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Split tensors into files in order, as many to a file as fit; one file if there are none."""
    shard: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if shard and sum(other.nbytes for other in shard.values()) + value.nbytes > SHARD:
            yield shard
            shard = {}
        shard[name] = value
    yield shard


def _joined(path: Path, names: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """The tensors of all files of a kind together."""
    tensors: dict[str, dict[str, Tensor]] = {}
    for name in names:
        tensors.setdefault(Path(name).stem.partition("-")[0], {}).update(load_file(path / name))
    return tensors


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"a damaged checkpoint: {why}", where=str(path), hint="an older checkpoint is used if there is one")


class AsyncCheckpointWriter:
    """Writes one checkpoint at a time; a context manager that ends when the last one is written.

    A kill while one is written leaves the one before it. What goes wrong on the disk is raised by the next call.
    """

    def __init__(self, folder: Path, *, writes: bool = True):
        """Into a folder; one that does not write does nothing, beside a worker that does."""
        self._folder, self._writes = folder, writes
        self._writing: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "AsyncCheckpointWriter":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.wait()
        elif self._writing is not None:
            self._writing.join()  # the error that is on its way tells more than another one

    def save(self, checkpoint: Checkpoint, folder: Path | None = None) -> None:
        """Copy this checkpoint and begin to write it, once the one before it is written.

        Args:
            checkpoint: what to save.
            folder: where it stays for good; None among those that rotate.

        Raises:
            RunError, OSError: that one could not be written.
        """
        if not self._writes:
            return
        self.wait()
        tensors = {
            kind: {name: _on_host(value) for name, value in its.items()} for kind, its in checkpoint.tensors.items()
        }
        copied = Checkpoint(progress=checkpoint.progress, tensors=tensors)
        # A daemon: a process that is told twice to leave does not wait for it.
        self._writing = threading.Thread(
            target=self._write, args=(folder or self._folder, copied), name="checkpoint", daemon=True
        )
        self._writing.start()

    def check(self) -> None:
        """Raise what went wrong, if the disk has said so by now; waits for nothing."""
        if self._writing is not None and not self._writing.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until everything is on the disk.

        Raises:
            RunError, OSError: it cannot be written.
        """
        if self._writing is not None:
            self._writing.join()
        self._writing, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _write(self, folder: Path, checkpoint: Checkpoint) -> None:
        try:
            save(folder, checkpoint, KEPT if folder == self._folder else None)
        except BaseException as error:
            self._error = error


def _on_host(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)
