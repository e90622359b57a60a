"""Records the environment of a measurement: versions, hardware, commit."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from lilliput.base.cpu_quota import cpu_quota

GIVEN = dict(os.environ)
"""The environment before the command line changes it: what `lilliput bench` hands on."""
PACKAGES = ("torch", "triton", "numpy", "tokenizers", "safetensors", "transformers", "lm_eval", "datasets")


def environment() -> dict[str, Any]:
    """Versions of Python and the packages that decide numbers, the hardware, and the git commit if there is one."""
    import torch

    from lilliput.base import __version__

    return {
        "lilliput": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def usable_cores() -> int:
    """Return the cores that this process may use; containers and batch systems give fewer than there are.

    Of a quota of 2.5 cores, two: where a third thread is stopped for a part of each period, the others wait for it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cpu_quota())))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout that the package lies in; of a copy without `.git`, what LILLIPUT_COMMIT says, or None."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return os.environ.get("LILLIPUT_COMMIT") or None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:  # a checkout without git
        return None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
