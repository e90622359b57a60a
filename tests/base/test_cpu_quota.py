"""Quotas of control groups, from trees of files as the kernel shows them in containers and outside."""

from math import inf

import pytest

from lilliput.base.cpu_quota import cpu_quota


def tree(root, groups, files):
    """The files below `sys/fs/cgroup`, and what `proc/self/cgroup` says."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys" / "fs" / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


V1 = "5:memory:/a\n4:cpuset:/a\n3:cpuacct,cpu:/docker/7f\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, inf),
        ("0::/\n", {}, inf),
        ("0::/a/b\n", {"cpu.max": "800000 100000\n", "a/cpu.max": "150000 50000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a\n", {"a/cpu.max": "100000 100000\n", "b/cpu.max": "50000 100000\n"}, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        (V1, {"cpu/docker/7f/cpu.cfs_quota_us": "50000\n", "cpu/docker/7f/cpu.cfs_period_us": "100000\n"}, 0.5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, inf),
    ],
)
def test_the_least_quota_of_the_groups_that_hold_a_process_counts(tmp_path, groups, files, cores):
    assert cpu_quota(tree(tmp_path, groups, files)) == cores


def test_there_is_no_quota_where_there_are_no_control_groups(tmp_path):
    assert cpu_quota(tmp_path) == inf
