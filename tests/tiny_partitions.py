"""A folder laid out like the dataset that OdinNext was pretrained on: its folders, a few documents in each."""

import json
from pathlib import Path
from random import Random

import pyarrow

SYLLABLES = "ba den fol gur him jas kel mor nip pra quo rus ste tav ul ven wix yor zem che".split()
KEPT = {
    "common_crawl-high-quality_19_health": "web",
    "common_crawl-high-quality_20_literature": "web",
    "common_crawl-high-quality_20_games": "web",
    "common_crawl-high-quality_20_travel_and_tourism": "web",
    "stem-heavy-crawl": "stem",
    "stack_edu-fim_vigintile_15_Python": "code",
    "cranecode": "code",
    "cranemath": "math",
    "megamatt": "math",
    "dolmino-math": "math",
    "tinymath-mind": "math",
    "tinymath-pot": "math",
    "wiki_to_rcqa-part1": "reference",
    "wiki_to_rcqa-part2": "reference",
    "reddit_to_flashcards": "questions",
    "nemotron-synth-qa": "questions",
    "tulu-3-sft": "instructions",
    "dolmino_1-flan": "instructions",
}
LEFT_OUT = (
    "common_crawl-high-quality_19_adult_content",
    "qwq-reasoning-traces",
    "gemini-reasoning-traces",
    "llama_nemotron-reasoning-traces",
    "openthoughts2-reasoning-traces",
    "general_reasoning_mix",
    "math-meta-reasoning",
    "code-meta-reasoning",
    "omr-rewrite-fullthoughts",
    "program_verifiable",
    "verifiable-gpt41",
    "olmocr_science_pdfs-high_quality-health-2e12",
)
UNWANTED = "unwanted"
"""In every text that is to be left out."""


def text_of(folder: str, number: int) -> str:
    """A text that tells where it is from."""
    drawn = Random(f"{folder} {number}")
    words = ["".join(drawn.choices(SYLLABLES, k=drawn.randint(1, 3))) for _ in range(120)]
    if folder.startswith("stack_edu"):
        return f"<|fim_prefix|>def f{number}():\n<|fim_suffix|>    return x\n<|fim_middle|>    x = {number}\n"
    return f"{folder} {number}: {' '.join(words)}."


def write_folder(root: Path, documents: int = 12) -> Path:
    """Write it, with as many documents in each of two files of a folder."""
    for folder in (*KEPT, *LEFT_OUT):
        mark = UNWANTED if folder in LEFT_OUT else ""
        for file in range(2):
            numbers = range(file * documents, (file + 1) * documents)
            _write(root / "data" / folder / f"{file:04d}.jsonl.zst", folder, mark, numbers)
    _write(root / "data/stem-heavy-crawl/adult_content.0000.jsonl.zst", "stem", UNWANTED, range(3))
    (root / "README.md").write_text("The mix.\n")
    return root


def _write(path: Path, folder: str, mark: str, numbers: range) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"{folder}-{number}", "text": f"{mark}{text_of(folder, number)}"} for number in numbers]
    with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
