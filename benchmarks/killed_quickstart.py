"""Does a quickstart that is killed at random moments end in the weights of one that is not?

    python benchmarks/killed_quickstart.py [--recipe NAME] [--kills 5] [--seed 0] [--work FOLDER] [--out FILE.json]

Runs the recipe once straight, then in another folder with SIGKILL at random moments after each start, running it again
each time, at last until it ends by itself; compares the hashes.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from lilliput.base.environment import environment
from lilliput.base.files import sha256, write_json


def hashes(run: Path) -> dict[str, str]:
    """SHA-256 of every release's weights."""
    return {file.parent.name: sha256(file) for file in sorted(run.glob("releases/*/model.safetensors"))}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--recipe", default="quickstart")
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--work", type=Path)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with TemporaryDirectory() as temporary:
        result = compare(given.recipe, given.kills, given.seed, given.work or Path(temporary))
    show(result)
    if given.out:
        write_json(given.out, result)
    sys.exit(0 if result["equal"] else 1)


def compare(recipe: str, kills: int, seed: int, work: Path) -> dict:
    """Run straight and killed; a straight run that is done already is taken as it is."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "lilliput", "run", recipe, "--out"]
    subprocess.run([*command, str(work / "straight")], check=True, stdout=subprocess.DEVNULL)
    straight = time.perf_counter() - began
    draw = random.Random(seed)
    moments = []
    while len(moments) < kills:
        moment = draw.uniform(5.0, 60.0)  # of a few minutes, so that all kills come before the end
        process = subprocess.Popen([*command, str(work / "killed")], stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=moment)
            break  # it ended before its time
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            moments.append(round(moment, 1))
    subprocess.run([*command, str(work / "killed")], check=True, stdout=subprocess.DEVNULL)
    expected, found = hashes(work / "straight"), hashes(work / "killed")
    return {
        "recipe": recipe,
        "straight_seconds": round(straight, 1),
        "killed_after_seconds": moments,
        "straight": expected,
        "killed": found,
        "equal": expected == found and bool(expected),
        "environment": environment(),
    }


def show(result: dict) -> None:
    killed_after = ", ".join(f"{seconds} s" for seconds in result["killed_after_seconds"])
    print(f"{result['recipe']}: straight in {result['straight_seconds']} s, killed after {killed_after}")
    for name in sorted(result["straight"] | result["killed"]):
        straight, killed = (result[way].get(name, "no weights") for way in ("straight", "killed"))
        print(f"  {'equal ' if straight == killed else 'DIFFER'} {name:24} {straight[:16]}  {killed[:16]}")


if __name__ == "__main__":
    main()
