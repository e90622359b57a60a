"""A dozen questions of every public task, once as a folder of local files, once as datasets like those on the hub."""

import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = "cat mat fox hen dog lazy quick brown jumps over the old well café “quoted” it’s 12 geese".split()
COUNT = 12
"""Of questions; 12 leave a batch of 16 choices unfilled somewhere."""

Row = dict[str, Any]


def said(draw: random.Random, most: int = 9) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(2, most)))


def listed(draw: random.Random, labels: str) -> dict[str, list[str]]:
    return {"text": [said(draw, 5) for _ in labels], "label": list(labels)}


def hellaswag(draw: random.Random, number: int) -> Row:
    return {
        "ind": number,
        "activity_label": said(draw, 3),
        "ctx_a": said(draw) + ".",
        "ctx_b": said(draw, 3),
        "endings": [f"[header] {said(draw)} [title] {said(draw)}  ." for _ in range(4)],
        "label": str(draw.randrange(4)),
    }


def arc(draw: random.Random, number: int) -> Row:
    labels = ("ABCD", "1234", "ABC", "ABCDE")[number % 4]
    choices = listed(draw, labels)
    return {"id": f"q{number}", "question": said(draw) + "?", "choices": choices, "answerKey": draw.choice(labels)}


def piqa(draw: random.Random, number: int) -> Row:
    return {"goal": said(draw), "sol1": said(draw), "sol2": said(draw), "label": draw.randrange(2)}


def copa(draw: random.Random, number: int) -> Row:
    return {
        "premise": f"The {said(draw)}.",
        "choice1": f"The {said(draw)}.",
        "choice2": f"It {said(draw)}.",
        "question": draw.choice(["cause", "effect"]),
        "idx": number,
        "label": draw.randrange(2),
    }


def boolq(draw: random.Random, number: int) -> Row:
    return {"question": said(draw), "answer": draw.random() < 0.6, "passage": said(draw, 30)}


def boolq_on_hub(row: Row) -> Row:
    return {"question": row["question"], "passage": row["passage"], "idx": 0, "label": int(row["answer"])}


def wsc(draw: random.Random, number: int) -> Row:
    words = said(draw, 6).split()
    return {
        "text": " ".join([*words, "because", "it", "was", "old."]),
        "span1_text": words[0],
        "span2_text": "it",
        "span1_index": 0,
        "span2_index": len(words) + 1,
        "idx": number,
        "label": draw.randrange(2),
    }


def wsc273(draw: random.Random, number: int) -> Row:
    begin = f"{said(draw)} because"
    options = [f"{begin} {said(draw, 3)}" for _ in range(2)]
    return {"context_options": options, "continuation": f"{said(draw, 4)}.", "gold": draw.randrange(2)}


def wsc273_on_hub(row: Row) -> Row:
    """The pronoun is lost in such a row; the harness's requests do not depend on it."""
    begin = row["context_options"][0].rpartition("because")[0] + "because "
    options = [one.removeprefix(begin) for one in row["context_options"]]
    text = f"{begin}they {row['continuation']}"
    return {"text": text, "pronoun": "they", "pronoun_loc": len(begin), "options": options, "label": row["gold"]}


def winogrande(draw: random.Random, number: int) -> Row:
    answer = draw.choice("12")
    return {"sentence": f"{said(draw)} _ {said(draw)}.", "option1": "Ann", "option2": "the fox", "answer": answer}


def aqua_rat(draw: random.Random, number: int) -> Row:
    options = [f"{letter}){draw.randint(1, 99)}√3" for letter in "ABCDE"]
    return {"question": said(draw) + "?", "options": options, "rationale": "So.", "correct": draw.choice("ABCDE")}


def aqua_rat_on_hub(row: Row) -> Row:
    choices = ["(" + option for option in row["options"]]
    query = "Q: " + row["question"] + " Answer Choices: " + " ".join(choices)
    query += "\nA: Among A through E, the answer is"
    return {"query": query, "choices": choices, "gold": ["ABCDE".index(row["correct"])]}


def openbookqa(draw: random.Random, number: int) -> Row:
    choices = listed(draw, "ABCD")
    return {"id": f"{number}", "question_stem": said(draw), "choices": choices, "answerKey": draw.choice("ABCD")}


def commonsense_qa(draw: random.Random, number: int) -> Row:
    choices = listed(draw, "ABCDE")
    return {"id": f"{number}", "question": said(draw), "choices": choices, "answerKey": draw.choice("ABCDE")}


def truthful_qa(draw: random.Random, number: int) -> Row:
    choices = [said(draw, 5) for _ in range(4 + number % 3)]
    one, some = [1] + [0] * (len(choices) - 1), [1, 1] + [0] * (len(choices) - 2)
    targets = {"mc1_targets": {"choices": choices, "labels": one}, "mc2_targets": {"choices": choices, "labels": some}}
    return {"question": said(draw) + "?", **targets}


def same(row: Row) -> Row:
    return row


PUBLIC: dict[str, tuple[str, str | None, Callable[..., Row], Callable[[Row], Row]]] = {
    "hellaswag.validation": ("Rowan/hellaswag", None, hellaswag, same),
    "arc_easy.test": ("allenai/ai2_arc", "ARC-Easy", arc, same),
    "arc_challenge.test": ("allenai/ai2_arc", "ARC-Challenge", arc, same),
    "piqa.validation": ("baber/piqa", None, piqa, same),
    "copa.validation": ("aps/super_glue", "copa", copa, same),
    "boolq.validation": ("aps/super_glue", "boolq", boolq, boolq_on_hub),
    "wsc.validation": ("aps/super_glue", "wsc.fixed", wsc, same),
    "winogrande_xl.validation": ("allenai/winogrande", "winogrande_xl", winogrande, same),
    "aqua_rat.test": ("hails/agieval-aqua-rat", None, aqua_rat, aqua_rat_on_hub),
    "openbookqa.test": ("allenai/openbookqa", "main", openbookqa, same),
    "commonsense_qa.validation": ("tau/commonsense_qa", None, commonsense_qa, same),
    "truthful_qa_mc.validation": ("truthfulqa/truthful_qa", "multiple_choice", truthful_qa, same),
    "wsc273.test": ("lighteval/winograd_wsc", "wsc273", wsc273, wsc273_on_hub),
}
"""Local file -> dataset and configuration on the hub, how a local row is drawn, and what it is on the hub."""


def local_rows(name: str) -> list[Row]:
    draw = random.Random(name)
    return [PUBLIC[name][2](draw, number) for number in range(COUNT)]


def lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_folder(folder: Path) -> Path:
    """The files of `--eval-data`, every other one compressed."""
    folder.mkdir(parents=True)
    for index, name in enumerate(PUBLIC):
        text = lines(local_rows(name)).encode()
        path = folder / f"{name}.jsonl"
        path.write_bytes(text) if index % 2 else path.with_suffix(".jsonl.xz").write_bytes(lzma.compress(text))
    return folder


def write_hub(folder: Path) -> Path:
    """Datasets in folders named as on the hub: in this folder, `datasets` finds them before it asks the network."""
    configurations: dict[str, list[str]] = {}
    for name, (repository, configuration, _, on_hub) in PUBLIC.items():
        rows = lines([on_hub(row) for row in local_rows(name)])
        splits = []
        for split in ("train", "validation", "test"):
            path = Path(configuration or "data") / f"{split}.jsonl"
            (folder / repository / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / repository / path).write_text(rows, encoding="utf-8")
            splits.append(f"  - split: {split}\n    path: {path.as_posix()}\n")
        listing = f"- config_name: {configuration or 'default'}\n  data_files:\n{''.join(splits)}"
        configurations.setdefault(repository, []).append(listing)
    for repository, listings in configurations.items():
        (folder / repository / "README.md").write_text(f"---\nconfigs:\n{''.join(listings)}---\n")
    return folder
