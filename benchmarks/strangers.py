"""Can a folder of a stranger do harm, whatever is in it and whatever command is run on it?

    python benchmarks/strangers.py [--minutes 10] [--seed 0] [--out FILE.json]

Good runs are damaged at random, and three commands are run on each, every one in a process of its own. What is done to
a folder and what must not happen is in `tests/tiny_strangers.py`.
The first line of a failure has the seed that makes it again.
FILE.json, and FILE.md beside it, are written at the end.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lilliput.base.environment import environment
from lilliput.base.files import write_json, write_text

EACH = 3
"""Commands on a folder, one after the other."""
LOOKS = 30.0
"""Seconds between two lines on how far it is."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=0, help="of the first folder; the next ones count up")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with TemporaryDirectory() as work:
        result = harm(Path(work), given.minutes, given.seed)
    if given.out:
        write_json(given.out.with_suffix(".json"), result)
        write_text(given.out.with_suffix(".md"), markdown(result))
    print(markdown(result))
    sys.exit(0 if result["commands"] and not result["wrong"] else 1)


def harm(work: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Try as many folders as there is time for."""
    import tiny_strangers  # in this process alone: those that it forks begin here again

    strangers = tiny_strangers.Strangers(work)
    began = told = time.monotonic()
    commands, refused, memory, wrong, number = Counter[str](), 0, 0, [], seed
    while time.monotonic() < began + 60 * minutes:
        for tried in strangers.tried(Random(number), EACH):
            commands[tried.command.split()[0]] += 1
            refused += tried.finished.code != 0
            memory = max(memory, tried.finished.memory)
            if tried.wrong:
                found = {"seed": number, "command": tried.command, "changes": tried.changes, "wrong": tried.wrong}
                wrong.append(found | {"stderr": tried.finished.err[-2000:]})
                print(f"seed {number}, {tried.command}: {'; '.join(tried.wrong)}\n{tried.changes}", flush=True)
        number += 1
        if time.monotonic() > told + LOOKS:
            told = time.monotonic()
            print(f"{(told - began) / 60:.1f} min: {commands.total():,} commands, {len(wrong)} did harm", flush=True)
    return {
        "folders": number - seed,
        "commands": commands.total(),
        "by_command": dict(commands.most_common()),
        "refused": refused,
        "memory_bytes": memory,
        "wrong": wrong,
        "minutes": minutes,
        "seed": seed,
        "environment": environment(),
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a table."""
    rows = {
        "folders of strangers": f"{result['folders']:,}",
        "commands on them": f"{result['commands']:,}",
        "of these, refused in three parts": f"{result['refused']:,}",
        "of these, that did harm, failed otherwise or hung": f"{len(result['wrong']):,}",
        "memory of a command at most": f"{result['memory_bytes'] / 1e9:.2f} GB",
        "minutes": f"{result['minutes']:g}",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["# Folders of strangers (`benchmarks/strangers.py`)", "", "| | |", "|---|--:|", *lines, ""])


if __name__ == "__main__":
    main()
