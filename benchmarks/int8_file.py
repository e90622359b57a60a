"""How much room and time does a release's file of 8-bit weights save when a model is opened?

    python benchmarks/int8_file.py [RECIPE] [--repeats 3] [--out FILE.json]

The model of a recipe with random weights, `odinnext-138m` unless another is named, is exported in fp16 with its 8-bit
file. `lilliput.load` then opens it in three ways, each in a process of its own with files that the system has cached:
fp16; 8 bits rounded from fp16, as without the file; and the file alone, in a folder without `model.safetensors`.
Seconds are those of opening the model and of its first token, hashes checked. Memory is the most that the process had,
beside what it had after its imports. The median of the repeats.
"""

import argparse
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

import lilliput
from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.publish.export import WEIGHTS_FILE, Generation, export
from lilliput.publish.int8.read import INT8_FILE
from lilliput.publish.int8.release import add_int8
from lilliput.recipe import load_recipe
from lilliput.tokenizer.bpe import BPE

MIB = 2**20
TEXT = "The old house stood at the end of the lane, and nobody had lived in it for years. "


def made(name: str, folder: Path) -> dict[str, Path]:
    """Export the model, and return the folder of each way to open it."""
    recipe = load_recipe(name)
    released = next(iter(recipe.releases.values()))
    tokenizer = BPE(vocab=300).train([TEXT])
    folders = {way: folder / way for way in ("fp16", "rounded", "file")}
    folders["fp16"].mkdir()
    export(
        recipe.model.shape.build(seed=0),
        tokenizer,
        folders["fp16"],
        layout=released.layout,
        dtype="F16",
        generation=Generation(),
        chat_template=None,
    )
    shutil.copytree(folders["fp16"], folders["rounded"])
    shutil.copytree(folders["fp16"], folders["file"])
    add_int8(folders["file"], tokens=torch.arange(128).view(2, 64))
    (folders["file"] / WEIGHTS_FILE).unlink()
    return folders


def opened(folder: Path, dtype: str) -> dict[str, float]:
    """Seconds until a model is open, until its first token, and the most memory until then."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _most_memory(), time.perf_counter()
    model = lilliput.load(folder, device="cpu", dtype=dtype)
    loaded = time.perf_counter()
    model.generate("The", max_new_tokens=1)
    written = time.perf_counter()
    return {"load": loaded - start, "first_token": written - start, "peak_mib": (_most_memory() - before) / MIB}


def _most_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("recipe", nargs="?", default="odinnext-138m")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="lilliput-int8-") as temporary:
        folders = made(given.recipe, Path(temporary))
        files = {WEIGHTS_FILE: folders["fp16"], INT8_FILE: folders["file"]}
        sizes = {name: (folder / name).stat().st_size for name, folder in files.items()}
        for way, folder in folders.items():
            repeats = []
            for _ in range(given.repeats):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    repeats.append(process.submit(opened, folder, "fp16" if way == "fp16" else "int8").result())
            found[way] = {key: round(median(one[key] for one in repeats), 2) for key in repeats[0]}
            print(way, found[way], flush=True)
    print(sizes)
    if given.out:
        about = {"recipe": given.recipe, "repeats": given.repeats, "bytes": sizes, "environment": environment()}
        write_json(given.out, about | {"found": found})


if __name__ == "__main__":
    main()
