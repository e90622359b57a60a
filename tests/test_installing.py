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
    pinned = re.search(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), flags=re.M)[0]
    assert f"pip install {pinned} --index-url" in README
