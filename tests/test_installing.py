"""What the README says of installing is what the Makefile and the constraints have."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_target_of_make_in_the_readme_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    told = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.M))
    assert "install" in told <= targets


def test_the_readme_installs_the_pytorch_that_is_tested():
    assert re.search(r"^torch==[0-9.]+$", (ROOT / "constraints.txt").read_text(), flags=re.M)
    lines = README.splitlines()
    assert "pip install -c constraints.txt torch" in lines, "alone and first, at the version that is pinned"
    assert lines[lines.index("pip install -c constraints.txt torch") + 1] == "pip install -c constraints.txt ."
