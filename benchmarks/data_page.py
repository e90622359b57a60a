"""How much memory does the page about the data of a run take, by the size of its corpus?

    python benchmarks/data_page.py WORK [--gigabytes 1 2 4] [--characters 2000] [--out FILE.json]

Texts of invented words in the proportions of Zipf's law are written to the folder WORK, documents of so many characters
in the mean; one in fifty is there twice, another one nearly. For each size the recipe own-text makes token files of as
many of them, and `lilliput data RUN --report` its page, both in a process of their own. Peaks are those of the process
that makes the page: of all its memory, in which mapped pages of token files count as long as nothing else needs them,
and of what is its own alone (RssAnon, read ten times a second). A line through them gives bytes a document.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.base.environment import environment
from lilliput.base.files import write_json

FILE = 250_000_000
"""Bytes of a file of texts."""
WORDS = 20_000
"""Words that there are."""
REPEATED = 50
"""Documents of which one is there twice, and another one with every twentieth word another."""
PAUSE = 0.1
TARGET = 20
"""Gigabytes that the line is continued to."""


def vocabulary(draw: np.random.RandomState) -> list[str]:
    """Words of two to ten letters."""
    letters = np.array(list("etaoinshrdlucmfw"))
    return ["".join(letters[draw.randint(0, len(letters), draw.randint(2, 11))]) for _ in range(WORDS)]


def write_texts(path: Path, number: int, characters: int) -> int:
    """Write a file of documents and return how many."""
    draw = np.random.RandomState(number)
    words = np.array(vocabulary(np.random.RandomState(0)), dtype=object)
    ends = np.cumsum(1 / (np.arange(WORDS) + 2.7))
    mean, count, earlier = characters / 6.5, 0, ""
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < FILE:
            sizes = np.maximum(5, draw.lognormal(np.log(mean) - 0.32, 0.8, 4_096)).astype(int)
            drawn = words[np.searchsorted(ends, draw.uniform(0, ends[-1], sizes.sum()))]
            for some in np.split(drawn, np.cumsum(sizes)[:-1]):
                text, place = " ".join(some), count % REPEATED
                if earlier and place == 1:
                    text = earlier
                elif earlier and place == 2:
                    text = " ".join(word if at % 20 else "another" for at, word in enumerate(earlier.split(" ")))
                file.write(json.dumps({"text": text, "id": f"{number}/{count}"}) + "\n")
                earlier, count = (text if place == 0 else earlier), count + 1
    return count


def peaks(command: list[str], log: Path) -> dict[str, float]:
    """Run a command to its end, and return its seconds and its most bytes: in all, and its own."""
    began, own = time.perf_counter(), 0
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            own = max(own, own_bytes(process.pid))
            time.sleep(PAUSE)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-2_000:]}")
    return {"seconds": time.perf_counter() - began, "peak": 1024 * usage.ru_maxrss, "peak_own": own}


def own_bytes(process: int) -> int:
    """Memory of a process that no file holds; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measured(work: Path, gigabytes: float, characters: int) -> dict[str, Any]:
    """Make a run of so much text, and its page."""
    files = range(round(gigabytes * 1e9 / FILE))
    folder, run = work / f"texts-{gigabytes:g}", work / f"run-{gigabytes:g}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in files:
        whole = work / f"{number:03d}.jsonl"
        if not whole.is_file():
            write_texts(whole.with_suffix(".partial"), number, characters)
            os.replace(whole.with_suffix(".partial"), whole)
        if not (folder / whole.name).is_file():
            os.link(whole, folder / whole.name)
    command, log = [sys.executable, "-m", "lilliput", "data"], work / "log.txt"
    made = peaks([*command, "own-text", "--source", f"texts={folder}", "--out", str(run)], log)
    page = peaks([*command, str(run), "--report"], log)
    sides = json.loads((run / "shards" / "texts" / "index.json").read_text())["sides"].values()
    counts = {key: sum(side[key] for side in sides) for key in ("documents", "bytes", "tokens")}
    print(
        f"{counts['bytes'] / 1e9:.2f} GB of text, {counts['documents']:,} documents: page in {page['seconds']:.0f} s, "
        f"peak {page['peak'] / 1e6:,.0f} MB, {page['peak_own'] / 1e6:,.0f} MB its own; "
        f"token files in {made['seconds']:.0f} s",
        flush=True,
    )
    return counts | {"token_files": made, "page": page}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("work", type=Path)
    options.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    options.add_argument("--characters", type=int, default=2_000)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    found = [measured(chosen.work, one, chosen.characters) for one in chosen.gigabytes]
    lines: dict[str, list[float]] = {}
    for key in ("peak", "peak_own") if len(found) > 1 else ():
        each, base = np.polyfit([one["documents"] for one in found], [one["page"][key] for one in found], 1)
        documents = TARGET * 1e9 * found[-1]["documents"] / found[-1]["bytes"]
        lines[key] = [each, base + each * documents]
        print(f"{key}: {each:.0f} bytes a document, {lines[key][1] / 1e9:.2f} GB at {TARGET} GB of text")
    if chosen.out:
        write_json(chosen.out, {"environment": environment(), "sizes": found, "bytes_a_document_and_target": lines})


if __name__ == "__main__":
    main()
