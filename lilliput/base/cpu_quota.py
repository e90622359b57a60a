"""Cores' worth of time that Linux control groups let a process use: containers are limited so, and see all cores."""

from collections.abc import Iterator
from math import inf
from pathlib import Path


def cpu_quota(root: Path = Path("/")) -> float:
    """Return how many cores' worth of time the control groups of this process allow, infinity where none sets a limit.

    A group's limit holds for all groups inside of it. In a container its own group is the root of those it sees.

    Args:
        root: above `proc` and `sys`.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (`cpu.max`) and, of version 1,
    https://docs.kernel.org/scheduler/sched-bwc.html (`cpu.cfs_quota_us`).
    """
    return min(_limits(root), default=inf)


def _limits(root: Path) -> Iterator[float]:
    groups = root / "proc" / "self" / "cgroup"
    mounted = root / "sys" / "fs" / "cgroup"
    for line in (_read(groups) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mounted / "cpu" if controllers else mounted
        group = top / path.lstrip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
            if controllers:
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            else:
                quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
            if quota and period and quota.strip() not in ("max", "-1"):
                yield int(quota) / int(period)


def _read(file: Path) -> str | None:
    """Return a file's text; None where it cannot be read, which is not where limits are set."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return None
