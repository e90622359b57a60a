"""A small corpus with planted faults in several files, curated in processes that may be killed."""

import json
import os
import random
import signal
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from tiny_planted import nearly, prose

from lilliput.base import files
from lilliput.base.files import sha256
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Clean, Exact, Filtered, Length
from lilliput.data.corpora.filters.near_duplicates import NearDuplicates
from lilliput.data.corpora.filters.personal_data import PersonalData
from lilliput.data.corpora.hub import HubText
from lilliput.data.curate.curation import Curate

_forks = get_context("forkserver")
_forks.set_forkserver_preload(["tiny_curating", "datatrove.executor", "rensa"])
FILES = 5


def write_corpus(folder: Path) -> Path:
    """Write five files; many of their texts are, or nearly are, in two of them."""
    draw = random.Random(0)
    folder.mkdir()
    fine = [prose(draw, paragraphs=2) for _ in range(60)]
    for number in range(FILES):
        texts = draw.sample(fine, 20) + [nearly(draw.choice(fine), draw, every=70) for _ in range(5)] + ["short", " "]
        texts += [f"{prose(draw)} Write to jo{number}@a.org.", "\ud800 and what is left of it" * 9]
        rows = [json.dumps({"text": text, "id": f"{number}/{index}", "n": index}) for index, text in enumerate(texts)]
        (folder / f"{number}.jsonl").write_text("\n".join(rows))
    return folder


def write_hub_corpus(texts: Path, folder: Path) -> Path:
    """Write the same rows as Parquet files, as the hub has them; every third row has no id of its own."""
    folder.mkdir()
    for path in sorted(texts.iterdir()):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row | {"id": row["id"] if row["n"] % 3 else None} for row in rows if "\ud800" not in row["text"]]
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows), folder / f"train-{path.stem}.parquet", row_group_size=7
        )
    return folder


def corpus(folder: Path) -> Filtered:
    """Return the corpus with a filter of each kind: of Parquet files as one of the hub, else of local files."""
    is_hub = any(folder.glob("*.parquet"))
    hub = HubText(dataset=str(folder), license="cc0-1.0", columns=("n",))
    return Filtered(
        source=hub if is_hub else TextFiles(paths=(str(folder),), columns=("n",)),
        filters=(PersonalData(), Exact(), Clean(), Length(at_least=50), NearDuplicates()),
    )


def curate(texts: Path, out: Path, tasks: int, executor: str = "local", **settings: str) -> Any:
    """Curate the corpus, by default task after task in this process."""
    settings = settings or ({"workers": "1"} if executor == "local" else {})
    return Curate(corpus=corpus(texts), out=out, name="texts", tasks=tasks, executor=executor, settings=settings).run()


def written(out: Path) -> dict[str, str]:
    """The hash of every file that a curation leaves, but for datatrove's logs."""
    logs = out / ".texts" / "logs"
    paths = (path for path in out.rglob("*") if path.is_file() and logs not in path.parents)
    return {path.relative_to(out).as_posix(): sha256(path) for path in sorted(paths)}


def killed(texts: Path, out: Path, tasks: int, place: int) -> int:
    """Curate in a process that is killed before its n-th write, fsync or rename, from 1; return how many there were."""
    counted, sent = _forks.Pipe(duplex=False)
    process = _forks.Process(target=_curate_until, args=(texts, out, tasks, place, sent))
    process.start()
    process.join()
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)  # datatrove's manager does not notice that nobody is left
    assert process.exitcode in (0, -signal.SIGKILL)
    return counted.recv() if counted.poll() else place


def _curate_until(texts: Path, out: Path, tasks: int, place: int, sent: Any) -> None:
    os.setsid()
    count = 0

    def boundary(what: str, path: Path) -> None:
        nonlocal count
        count += 1
        if count == place:
            os.kill(os.getpid(), signal.SIGKILL)

    files.boundary = boundary
    curate(texts, out, tasks)
    sent.send(count)
