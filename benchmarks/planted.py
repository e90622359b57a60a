"""Which planted faults do the filters of curation find, and what else do they drop?

    python benchmarks/planted.py [--seed 0] [--out FILE.json]

Texts with duplicates, near-duplicates, items of evaluation sets, mojibake, other languages, personal data and the like
lie among ten times as many without; what is planted is in `tests/tiny_planted.py`.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lilliput.base.environment import environment
from lilliput.base.files import write_json


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    from tiny_planted import found

    with TemporaryDirectory() as work:
        rows = list(found(Path(work), given.seed))
    print("| planted | filter | texts | recall | precision |\n|---|---|--:|--:|--:|")
    for row in rows:
        print(f"| {row.planted} | {row.filter} | {row.count} | {row.recall:.1%} | {row.precision:.1%} |")
    if given.out:
        write_json(
            given.out, {"environment": environment(), "seed": given.seed, "found": [asdict(row) for row in rows]}
        )


if __name__ == "__main__":
    main()
