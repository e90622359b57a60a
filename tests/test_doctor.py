"""What `lilliput doctor` says about this machine, and about machines that are not here."""

import os
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lilliput import doctor
from lilliput.base.terminal import Terminal
from lilliput.doctor import GIB, Device, Finding, Graphics

H200 = Device(name="NVIDIA H200", memory=141 * GIB, bf16=True, architecture="sm_90")
STRIX = Device(name="AMD Radeon", memory=96 * GIB, bf16=True, architecture="gfx1151")


def test_examination_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    findings = doctor.examine()
    by_topic = {finding.topic: finding for finding in findings}
    assert {"Python", "platform", "processor", "packages", "PyTorch", "default", "folder", "disk"} <= set(by_topic)
    assert by_topic["folder"].state == "ok"
    assert re.search(r"device (cpu|cuda|mps), matrix products in (bf16|fp32), \d+ threads", by_topic["default"].says)
    assert list(tmp_path.iterdir()) == []


def test_every_problem_comes_with_something_to_do():
    need = [Requirement("numpy>=3")]
    findings = [
        doctor.judge_python((3, 10, 2)),
        *doctor.judge_packages(need, {}),
        *doctor.judge_graphics(Graphics(build="CUDA", nvidia_driver=True), {}),
        *doctor.judge_graphics(Graphics(build="CUDA", devices=(replace(H200, failure="no kernel image"),)), {}),
    ]
    assert [finding.state for finding in findings] == ["problem"] * 4
    assert all(finding.do for finding in findings)


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 10, 13), "problem"), ((3, 11, 0), "ok"), ((3, 13, 9), "ok"), ((3, 14, 0), "note")],
)
def test_python(version: tuple[int, ...], state: str):
    assert doctor.judge_python(version).state == state


@pytest.mark.parametrize(("system", "state"), [("Linux", "ok"), ("Darwin", "note"), ("Windows", "note")])
def test_platform(system: str, state: str):
    finding = doctor.judge_platform(system, "a platform")
    assert finding.state == state and "Linux with CPU or CUDA: tested" in finding.says


def test_memory_and_disk():
    assert doctor.judge_memory(8, None) == Finding(topic="processor", state="ok", says="8 cores")
    assert doctor.judge_memory(2, 16 * GIB).says == "2 cores, 16.0 GiB of memory"
    assert doctor.judge_memory(2, 2 * GIB).state == "note"
    assert doctor.judge_disk(100 * GIB).state == "ok"
    assert doctor.judge_disk(GIB).state == "note"


def test_packages():
    needs = [Requirement("torch>=2.9"), Requirement("lm-eval>=0.4.13")]
    (ok,) = doctor.judge_packages(needs, {"torch": "2.13.0+cpu", "lm-eval": "0.4.13"})
    assert ok.state == "ok" and "all 2" in ok.says
    old, missing = doctor.judge_packages(needs, {"torch": "2.8.0+cu128"})
    assert old.says == "torch is 2.8.0+cu128, but torch>=2.9 is needed"
    assert missing.do == 'python -m pip install "lm-eval>=0.4.13"'
    (unknown,) = doctor.judge_packages([], {})
    assert unknown.state == "note"


def test_pins():
    pins = doctor.read_pins("# exact\ntorch==2.13.0\nHuggingFace_Hub==2.4.0  # why\n\n")
    assert pins == {"torch": "2.13.0", "huggingface-hub": "2.4.0"}
    (same,) = doctor.judge_pins(pins, {"torch": "2.13.0+cpu"})
    assert same.state == "ok"
    (other,) = doctor.judge_pins(pins, {"torch": "2.13.0+cpu", "huggingface-hub": "2.5.1"})
    assert other.state == "note" and "huggingface-hub 2.5.1 (2.4.0)" in other.says and "torch" not in other.says
    assert doctor.judge_pins({}, {"torch": "2.9.0"}) == []
    (odd,) = doctor.judge_pins(pins, {"torch": "mine, of Tuesday"})
    assert odd.state == "note" and "torch mine, of Tuesday" in odd.says


def test_graphics_that_work():
    (finding,) = doctor.judge_graphics(Graphics(build="CUDA", devices=(H200,), nvidia_driver=True), {})
    assert finding == Finding(topic="graphics", state="ok", says="NVIDIA H200, 141 GiB, sm_90, with bf16")
    (finding,) = doctor.judge_graphics(Graphics(build="CPU"), {})
    assert finding.state == "ok" and "CPU" in finding.says
    (finding,) = doctor.judge_graphics(Graphics(build="CPU", mps=True), {})
    assert finding.state == "note" and "untested" in finding.says


def test_rocm_is_untested_and_wants_its_attention_switched_on():
    seen = Graphics(build="ROCm", devices=(STRIX,), amd_driver=True)
    device, untested, attention = doctor.judge_graphics(seen, {})
    assert device.state == "ok" and "untested" in untested.says
    assert attention.do == "export TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1"
    assert len(doctor.judge_graphics(seen, {"TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL": "1"})) == 2
    instinct = replace(seen, devices=(replace(STRIX, architecture="gfx942"),))
    assert len(doctor.judge_graphics(instinct, {})) == 2


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (Graphics(build="CPU", nvidia_driver=True), "note", "NVIDIA driver, but this is a CPU build"),
        (Graphics(build="CPU", amd_driver=True), "note", "AMD driver, but this is a CPU build"),
        (Graphics(build="CUDA", nvidia_driver=True, failure="driver too old"), "problem", "driver too old"),
        (Graphics(build="CUDA", nvidia_driver=True), "problem", "does not say why"),
        (Graphics(build="ROCm", amd_driver=True), "problem", "finds no device"),
    ],
)
def test_drivers_that_are_not_used(seen: Graphics, state: str, words: str):
    (finding,) = doctor.judge_graphics(seen, {})
    assert finding.state == state and words in finding.says and "TORCH=existing" in finding.do


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind here")
def test_folder_without_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o500)
    assert {finding.topic: finding.state for finding in doctor.examine()}["folder"] == "problem"


def test_show_says_everything_and_counts_problems():
    findings = [
        Finding(topic="Python", state="ok", says="3.12.1"),
        Finding(topic="graphics", state="problem", says="[bold] is text here", do="update the driver"),
    ]
    shown = _shown(findings)
    assert "3.12.1" in shown and "[bold] is text here" in shown and "-> update the driver" in shown
    assert shown.endswith("1 problem found\n")
    assert _shown(findings[:1]).endswith("no problems found\n")


def _shown(findings: list[Finding]) -> str:
    console = Terminal(file=StringIO(), width=100)
    doctor.show(console, findings)
    return console.file.getvalue()
