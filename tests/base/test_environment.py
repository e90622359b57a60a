"""What a measurement says of its commit."""

import shutil
import subprocess
import sys
from pathlib import Path

import lilliput


def test_a_copy_without_git_has_the_commit_that_it_is_told(tmp_path, monkeypatch):
    copy = tmp_path / "lilliput"
    for name in ("__init__.py", "base/__init__.py", "base/environment.py", "base/cpu_quota.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(lilliput.__file__).parent / name, copy / name)
    (copy / "__init__.py").write_text("")
    program = "from lilliput.base.environment import _commit; print(_commit())"

    def told():
        return subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, text=True).strip()

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("LILLIPUT_COMMIT", raising=False)
    assert told() == "None"
    monkeypatch.setenv("LILLIPUT_COMMIT", "3f2a1bc")
    assert told() == "3f2a1bc"
