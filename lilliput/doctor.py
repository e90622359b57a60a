"""Examines this machine: what it has, what it lacks, and what to do about it.

Looking (`_seen...`) is kept apart from judging (`judge_...`), so that what is said about machines that are not here can
be tested.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from rich.table import Table
from rich.text import Text

from lilliput.base.environment import usable_cores
from lilliput.base.terminal import Terminal, visible
from lilliput.train.machine import Machine

GIB = 2**30
LITTLE_MEMORY = 4 * GIB
LITTLE_DISK = 2 * GIB
TESTED_PYTHONS = ((3, 11), (3, 13))

OTHER_TORCH = (
    "install the build of PyTorch for it into a Python of yours, as https://pytorch.org/get-started/locally says, "
    "then: make quickstart TORCH=existing PYTHON=<that Python>"
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found out."""

    topic: str
    state: Literal["ok", "note", "problem"]
    """`problem`: something here will fail; `note`: it works, but not as well or as surely as it could."""
    says: str
    do: str = ""
    """Remedy; empty if nothing is to be done."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A graphics processor as PyTorch sees it."""

    name: str
    memory: int
    """Bytes."""
    bf16: bool
    architecture: str
    """`sm_90`, `gfx1151`."""
    failure: str = ""
    """Why a product of two small matrices did not run on it."""


@dataclass(frozen=True, kw_only=True)
class Graphics:
    """The build of PyTorch, and the graphics processors that it and the operating system see."""

    build: Literal["CPU", "CUDA", "ROCm"]
    devices: tuple[Device, ...] = ()
    failure: str = ""
    """Why PyTorch sees none, where it says so."""
    nvidia_driver: bool = False
    amd_driver: bool = False
    mps: bool = False


def examine() -> list[Finding]:
    """Look at the machine, the installation and the current folder. A few seconds at most; nothing is changed."""
    folder = Path.cwd()
    return [
        judge_python(tuple(sys.version_info[:3])),
        judge_platform(platform.system(), platform.platform()),
        judge_memory(usable_cores(), _memory()),
        *judge_packages(_required(), _installed()),
        *judge_pins(_pins(), _installed()),
        Finding(topic="PyTorch", state="ok", says=f"{torch.__version__}, {_build()} build"),
        *judge_graphics(_graphics(), os.environ),
        _machine(),
        _folder(folder),
        judge_disk(shutil.disk_usage(folder).free),
    ]


def devices() -> list[str]:
    """Return what PyTorch can train on here, the best one first."""
    best = Machine().resolved().device
    return [best] if best == "cpu" else [best, "cpu"]


def described(device: str) -> str:
    """One of them in words: `2 cores, 15.6 GiB of memory`, or the name of a GPU and its memory."""
    if device.startswith("cuda"):
        return _judge_device(_device(torch.device(device).index or 0)).says
    return judge_memory(usable_cores(), _memory()).says if device == "cpu" else "Apple MPS"


def show(console: Terminal, findings: list[Finding]) -> None:
    """Print findings as a table, then how many are problems."""
    colours = {"ok": "green", "note": "yellow", "problem": "bold red"}
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        says = Text(visible(finding.says))
        if finding.do:
            says.append(f"\n-> {visible(finding.do)}", style="cyan")
        table.add_row(Text(finding.state, style=colours[finding.state]), finding.topic, says)
    console.print(table)
    problems = sum(finding.state == "problem" for finding in findings)
    console.print(f"{problems} problem{'' if problems == 1 else 's'} found" if problems else "no problems found")


def judge_python(version: tuple[int, ...]) -> Finding:
    """Python (major, minor, micro): 3.11 or later, tested up to a point."""
    shown = ".".join(str(part) for part in version)
    low, high = ("{}.{}".format(*end) for end in TESTED_PYTHONS)
    if version < TESTED_PYTHONS[0]:
        return Finding(
            topic="Python",
            state="problem",
            says=f"{shown}, but Lilliput needs {low} or later",
            do="install a later Python, then: make quickstart PYTHON=/path/to/it",
        )
    if version[:2] > TESTED_PYTHONS[1]:
        return Finding(topic="Python", state="note", says=f"{shown}; constraints.txt is for {low} to {high}")
    return Finding(topic="Python", state="ok", says=shown)


def judge_platform(system: str, shown: str) -> Finding:
    """The operating system, and what is supported."""
    supported = "Linux with CPU or CUDA: tested; ROCm, MPS, Windows: by construction, untested"
    return Finding(topic="platform", state="ok" if system == "Linux" else "note", says=f"{shown} ({supported})")


def judge_memory(cores: int, memory: int | None) -> Finding:
    """Processor cores that may be used, and bytes of main memory (None where the system does not tell)."""
    says = f"{cores} cores" + (f", {memory / GIB:.1f} GiB of memory" if memory else "")
    if memory and memory < LITTLE_MEMORY:
        do = "if a run is killed, close other programs or lower the machine's `positions`"
        return Finding(topic="processor", state="note", says=says, do=do)
    return Finding(topic="processor", state="ok", says=says)


def judge_packages(required: Iterable[Requirement], installed: Mapping[str, str]) -> list[Finding]:
    """Requirements of the package against installed versions (by canonical name): a finding for each that is unmet."""
    required = list(required)
    unmet = []
    for need in required:
        version = installed.get(canonicalize_name(need.name))
        if version is None or not need.specifier.contains(version, prereleases=True):
            unmet.append(
                Finding(
                    topic="packages",
                    state="problem",
                    says=f"{need.name} is {version or 'missing'}, but {need.name}{need.specifier} is needed",
                    do=f'python -m pip install "{need.name}{need.specifier}"',
                )
            )
    if unmet:
        return unmet
    if not required:
        says = "the package is not installed, only on the path, so its requirements are unknown"
        return [Finding(topic="packages", state="note", says=says, do="python -m pip install -e .")]
    return [Finding(topic="packages", state="ok", says=f"all {len(required)} required packages are there")]


def judge_pins(pins: Mapping[str, str], installed: Mapping[str, str]) -> list[Finding]:
    """Installed versions against those of constraints.txt (by canonical name); without pins nothing is said."""
    different = [
        f"{name} {installed[name]} ({version})"
        for name, version in sorted(pins.items())
        if name in installed and _public(installed[name]) != _public(version)
    ]
    if not pins:
        return []
    if not different:
        return [Finding(topic="versions", state="ok", says="as pinned in constraints.txt")]
    return [
        Finding(
            topic="versions",
            state="note",
            says=f"not as pinned, so runs differ from published ones: {', '.join(different)}",
            do="python -m pip install -c constraints.txt -e .",
        )
    ]


def judge_graphics(seen: Graphics, environment: Mapping[str, str]) -> list[Finding]:
    """Graphics processors, drivers that this PyTorch does not use, and settings (of the environment) worth making."""
    findings = [_judge_device(device) for device in seen.devices]
    if seen.build == "ROCm" and seen.devices:
        findings.append(Finding(topic="ROCm", state="note", says="supported by construction, untested"))
        if "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL" not in environment and any(
            device.architecture.startswith("gfx115") for device in seen.devices
        ):
            says = "fused attention is off by default on this architecture, and attention is slow without"
            do = "export TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1"
            findings.append(Finding(topic="ROCm", state="note", says=says, do=do))
    if seen.mps:
        findings.append(Finding(topic="graphics", state="note", says="Apple MPS; supported by construction, untested"))
    if findings:
        return findings
    for has_driver, maker, build in ((seen.nvidia_driver, "NVIDIA", "CUDA"), (seen.amd_driver, "AMD", "ROCm")):
        if has_driver and seen.build != build:
            says = f"there is an {maker} driver, but this is a {seen.build} build of PyTorch; the CPU is used"
            return [Finding(topic="graphics", state="note", says=says, do=OTHER_TORCH)]
        if has_driver:
            says = f"there is an {maker} driver, but PyTorch finds no device: {seen.failure or 'it does not say why'}"
            do = f"update the driver, or {OTHER_TORCH}; in a container, pass the device in"
            return [Finding(topic="graphics", state="problem", says=says, do=do)]
    return [Finding(topic="graphics", state="ok", says="none; the CPU is used")]


def judge_disk(free: int) -> Finding:
    """Free bytes of the current folder's file system."""
    says = f"{free / GIB:.1f} GiB free here"
    if free < LITTLE_DISK:
        return Finding(topic="disk", state="note", says=says, do="free some, or give another place with --out")
    return Finding(topic="disk", state="ok", says=says)


def _public(version: str) -> str:
    """A version without what a build adds to it; one of no known form as it is."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _judge_device(device: Device) -> Finding:
    says = f"{device.name}, {device.memory / GIB:.0f} GiB, {device.architecture}"
    if device.failure:
        says, do = f"{says}: does not compute, {device.failure}", OTHER_TORCH
        return Finding(topic="graphics", state="problem", says=says, do=do)
    return Finding(topic="graphics", state="ok", says=f"{says}, {'with' if device.bf16 else 'without'} bf16")


def _machine() -> Finding:
    """Return what a run would settle on where no --machine is given."""
    machine = Machine().resolved()
    says = f"device {machine.device}, matrix products in {machine.precision}, {machine.threads} threads"
    if machine.device == "cpu" and machine.precision == "fp32":
        says += "; this processor has no bf16 products"
    return Finding(topic="default", state="ok", says=says)


def _folder(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding(topic="folder", state="ok", says=f"{folder} can be written to")
    except OSError as error:
        do = "change into another folder, or give one with --out"
        return Finding(topic="folder", state="problem", says=f"{folder} cannot be written to: {error.strerror}", do=do)


def _build() -> Literal["CPU", "CUDA", "ROCm"]:
    if torch.version.hip:
        return "ROCm"
    return "CUDA" if torch.version.cuda else "CPU"


def _graphics() -> Graphics:
    with warnings.catch_warnings(record=True) as said:  # of drivers too old, above all
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        devices = tuple(_device(index) for index in range(count))
    return Graphics(
        build=_build(),
        devices=devices,
        failure=_first_line(said[0].message) if said else "",
        nvidia_driver=Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None,
        amd_driver=Path("/dev/kfd").exists(),
        mps=torch.backends.mps.is_available(),
    )


def _device(index: int) -> Device:
    about = torch.cuda.get_device_properties(index)
    try:
        with torch.cuda.device(index):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            ones = torch.ones(16, 16, device="cuda")
            failure = "" if (ones @ ones).sum().item() == 16**3 else "a product of matrices of ones is wrong"
    except Exception as error:  # whatever a driver raises is what there is to report
        bf16, failure = False, _first_line(error)
    architecture = about.gcnArchName.partition(":")[0] if torch.version.hip else f"sm_{about.major}{about.minor}"
    return Device(name=about.name, memory=about.total_memory, bf16=bf16, architecture=architecture, failure=failure)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _required() -> list[Requirement]:
    try:
        lines = importlib.metadata.requires("lilliput") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]


def _installed() -> dict[str, str]:
    """Versions by canonical name; of two installations of a package the one that is imported, the first."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:  # remains of a broken installation have none
            found.setdefault(canonicalize_name(name), version)
    return found


def _pins() -> dict[str, str]:
    """The pins of the checkout that the package lies in; none for an installed one."""
    path = Path(__file__).parents[1] / "constraints.txt"
    return read_pins(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_pins(text: str) -> dict[str, str]:
    """The `name==version` lines of a constraints file, by canonical name."""
    lines = (line.partition("#")[0].strip().partition("==") for line in text.splitlines())
    return {canonicalize_name(name): version for name, _, version in lines if version}
