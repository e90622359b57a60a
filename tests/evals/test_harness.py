"""Scores through lm-evaluation-harness equal what the model's own logits give by hand."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from lilliput.base.errors import DataError, RecipeError
from lilliput.evals import harness
from lilliput.evals.evaluation import versions
from lilliput.evals.progress import Progress
from lilliput.evals.question_files import Hub
from lilliput.evals.score import Score
from lilliput.evals.suites import QUICKSTART
from lilliput.tokenizer.bpe import BPE, END_ID, save_tokenizer
from lilliput.tokenizer.chatml import add_chatml

WINDOW = 32
SENTENCE = "The fox and the hen met at the old well, and 12 geese looked on. "
DOCUMENTS = [
    "A hen.",
    SENTENCE * 3,
    "Fünf Gänse — five geese — crossed the brücke.",
    SENTENCE[:40],
    "the old " * 30 + "end",
    "x",
]
ITEMS = [
    {"ctx": "59 + 45 =", "endings": [" 104", " 105", " 14", " -104"], "label": 0},
    {"ctx": "(7 - 9) * 3 =", "endings": [" 6", " -6", " 12", " -12"], "label": 1},
    {"ctx": "81 / 9 =", "endings": [" 8", " 10", " 9", " 90"], "label": 2},
    {"ctx": "2 + 2 =", "endings": [" 22", " 3", " 5", " 4"], "label": 3},
    {"ctx": "6 * 7 =", "endings": [" 41", " 42", " 48", " 36"], "label": 1},
]


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more to waiting for a second core than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose window is shorter than some documents, with an instruct tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = add_chatml(BPE(vocab=280).train([*DOCUMENTS, *(item["ctx"] for item in ITEMS)]))
    save_tokenizer(tokenizer, folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=282,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=WINDOW,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "heldout_bits_per_byte": write_lines(folder / "heldout.jsonl", [{"text": text} for text in DOCUMENTS]),
        "arithmark2_synthetic": write_lines(folder / "arithmark.jsonl", ITEMS),
    }


@pytest.fixture(scope="module")
def scores(folder: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Score, ...]:
    work = tmp_path_factory.mktemp("work")
    return harness.evaluate(folder, QUICKSTART, Hub(), item_files=data, work=work, batch_size=1).scores


class ByHand:
    """Log-likelihoods from the folder's logits, one text at a time, in float64 after the model."""

    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def of(self, context: list[int], continuation: list[int]) -> float:
        with torch.no_grad():
            logits = self.model(torch.tensor([(context + continuation)[:-1]])).logits[0]
        log_probabilities = logits.double().log_softmax(-1)[-len(continuation) :]
        return sum(log_probabilities[place, token].item() for place, token in enumerate(continuation))

    def document(self, text: str) -> float:
        """Windows of 32 predicted tokens; each is led by the token before it, the first by `<|endoftext|>`."""
        ids = [END_ID, *self.ids(text)]
        total = 0.0
        first = 1
        while first < len(ids):
            last = min(first + WINDOW, len(ids))
            # A last, shorter window reaches back for context until it is full.
            reach = first - 1 if first == 1 else last - WINDOW - 1
            context = ids[reach:first]
            total += self.of(context, ids[first:last])
            first = last
        return total


@pytest.fixture(scope="module")
def by_hand(folder: Path) -> ByHand:
    return ByHand(folder)


def bits_per_byte(by_hand: ByHand, documents: list[str]) -> float:
    size = sum(len(text.encode()) for text in documents)
    return -sum(by_hand.document(text) for text in documents) / size / math.log(2)


def test_bits_per_byte_is_what_the_logits_say(scores: tuple[Score, ...], by_hand: ByHand) -> None:
    assert max(len(by_hand.ids(text)) for text in DOCUMENTS) > 2 * WINDOW
    score = scores[0]
    assert (score.task, score.metric, score.items) == ("held-out text, bits per byte", "bits_per_byte", len(DOCUMENTS))
    assert score.value == pytest.approx(bits_per_byte(by_hand, DOCUMENTS), rel=1e-6)
    assert not score.higher_is_better and score.chance is None and score.note == ""


def test_the_standard_error_of_bits_per_byte_is_the_delete_one_jackknife(
    scores: tuple[Score, ...], by_hand: ByHand
) -> None:
    without = [bits_per_byte(by_hand, DOCUMENTS[:place] + DOCUMENTS[place + 1 :]) for place in range(len(DOCUMENTS))]
    mean = sum(without) / len(without)
    expected = math.sqrt((len(without) - 1) / len(without) * sum((value - mean) ** 2 for value in without))
    assert scores[0].stderr == pytest.approx(expected, rel=1e-4)


def test_one_document_has_no_standard_error_and_empty_ones_are_none(
    folder: Path, by_hand: ByHand, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "one.jsonl", [{"text": ""}, {"text": DOCUMENTS[0]}, {"text": ""}])
    made = {"heldout_bits_per_byte": file}
    (score,) = harness.evaluate(folder, QUICKSTART, Hub(), item_files=made, work=tmp_path).scores
    assert (score.items, score.stderr) == (1, None)
    assert score.value == pytest.approx(bits_per_byte(by_hand, DOCUMENTS[:1]), rel=1e-6)


def test_accuracy_is_the_highest_summed_log_likelihood(scores: tuple[Score, ...], by_hand: ByHand) -> None:
    right = []
    for item in ITEMS:
        # Context and ending are encoded apart, as ArithMark-2.0 scores: nothing may merge across the boundary.
        sums = [by_hand.of(by_hand.ids(item["ctx"]), by_hand.ids(ending)) for ending in item["endings"]]
        right.append(sums.index(max(sums)) == item["label"])
    share = sum(right) / len(right)
    score = scores[1]
    assert (score.task, score.metric, score.items) == ("arithmark2-synthetic", "acc", len(ITEMS))
    assert score.value == share
    assert score.stderr == pytest.approx(math.sqrt(share * (1 - share) / (len(ITEMS) - 1)))
    assert score.higher_is_better and score.chance == 0.25
    assert score.note == "within two standard errors of chance"


def test_batches_and_file_order_change_nothing(
    folder: Path, data: dict[str, Path], scores: tuple[Score, ...], tmp_path: Path
) -> None:
    backwards = write_lines(tmp_path / "backwards.jsonl", [{"text": text} for text in reversed(DOCUMENTS)])
    seen: list[Progress] = []
    again = harness.evaluate(
        folder,
        QUICKSTART,
        Hub(),
        item_files=data | {"heldout_bits_per_byte": backwards},
        work=tmp_path,
        batch_size=4,
        watcher=seen.append,
    )
    for one, other in zip(scores, again.scores, strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-6)
        assert other.stderr == pytest.approx(one.stderr, rel=1e-5)
    for score in scores:
        rows = [moment.rows for moment in seen if moment.task == score.task]
        assert rows == sorted(rows) and rows[0] == 4
        assert {moment.total for moment in seen if moment.task == score.task} == {rows[-1]}
    assert max(moment.total for moment in seen) > len(DOCUMENTS)


def test_progress_says_how_long_it_will_take() -> None:
    moment = Progress(task="PIQA", rows=250, total=1000, seconds=5.0)
    assert (moment.rate, moment.seconds_left) == (50.0, 15.0)
    assert str(moment) == "PIQA: 250 of 1,000 rows, 50/s, 15 s left"


REMOTE_MODEL = """
from transformers import Qwen3ForCausalLM
from .configuration_tiny import TinyConfig

class TinyForCausalLM(Qwen3ForCausalLM):
    config_class = TinyConfig
"""
REMOTE_CONFIG = """
from transformers import Qwen3Config

class TinyConfig(Qwen3Config):
    model_type = "tiny"
"""
ALONE = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path

work, scratch = Path(sys.argv[1]), Path(os.environ["TMPDIR"])
outside = []

def is_outside(path):
    path = Path(os.fsdecode(path)).resolve()
    return not path.is_relative_to(work) and not path.is_relative_to(scratch)  # torch makes a folder there

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        outside.append(f"network: {event} {arguments}")  # some libraries swallow what is raised here
        raise OSError(outside[-1])
    path = arguments[0] if arguments else None
    if event == "open" and isinstance(path, str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        if path != os.devnull and is_outside(path):
            outside.append(path)
    if event == "os.mkdir" and is_outside(path):
        outside.append(os.fsdecode(path))

sys.addaudithook(watch)
from transformers import AutoModelForCausalLM

# Another model's code, imported before from another copy, must not stand in the way.
AutoModelForCausalLM.from_pretrained(sys.argv[4], trust_remote_code=True)
from lilliput.evals import harness
from lilliput.evals.question_files import Hub
from lilliput.evals.suites import QUICKSTART

scores = []
for place, folder in enumerate(sys.argv[5:]):
    data = {"heldout_bits_per_byte": Path(sys.argv[2]), "arithmark2_synthetic": Path(sys.argv[3])}
    place = work / str(place)
    how = {"item_files": data, "work": place, "batch_size": 1, "trust_remote_code": True}
    scores += harness.evaluate(Path(folder), QUICKSTART, Hub(), **how).scores
print(json.dumps({"outside": outside, "scores": [asdict(score) for score in scores]}))
"""


@pytest.mark.slow
def test_a_model_with_its_own_code_is_scored_offline_in_silence_and_inside_its_folder(
    folder: Path, data: dict[str, Path], scores: tuple[Score, ...], tmp_path: Path
) -> None:
    remote = tmp_path / "Tiny-0.1"
    remote.mkdir()
    for path in folder.iterdir():
        (remote / path.name).write_bytes(path.read_bytes())
    config = json.loads((remote / "config.json").read_text())
    code = {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModelForCausalLM": "modeling_tiny.TinyForCausalLM"}
    config |= {"model_type": "tiny", "architectures": ["TinyForCausalLM"], "auto_map": code}
    (remote / "config.json").write_text(json.dumps(config))
    # Without a BOS the harness would start documents with the EOS, which is <|im_end|> here.
    tokenizer = json.loads((remote / "tokenizer_config.json").read_text())
    assert tokenizer.pop("bos_token") == "<|endoftext|>" and tokenizer["eos_token"] == "<|im_end|>"
    (remote / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (remote / "modeling_tiny.py").write_text(REMOTE_MODEL)
    (remote / "configuration_tiny.py").write_text(REMOTE_CONFIG)
    home, work, start, scratch = (tmp_path / name for name in ("home", "work", "start", "scratch"))
    for place in (home, start, scratch):
        place.mkdir()
    shutil.copytree(remote, tmp_path / "Earlier")
    folders = [str(tmp_path / "Earlier"), str(remote), str(remote), str(folder)]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-B", "-c", ALONE, str(work), *map(str, data.values()), *folders],
        cwd=start,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(harness.__file__).parents[2]),
            "HOME": str(home),
            "TMPDIR": str(scratch),
            "HF_MODULES_CACHE": str(scratch / "modules"),
            "TQDM_DISABLE": "1",  # for the check before
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    answer = json.loads(ran.stdout)  # nothing else was printed
    assert answer["outside"] == []
    assert list(home.iterdir()) == [] and list(start.iterdir()) == []
    for place in ("0", "1"):
        assert list((work / place).glob("modules/transformers_modules/**/modeling_tiny.py"))
    assert [score["value"] for score in answer["scores"]] == [score.value for score in scores] * 3


def test_what_was_made_must_be_there_and_belong_to_the_suite(
    folder: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    def scored(model: Path, made: dict[str, Path], limit: int | None = None) -> None:
        harness.evaluate(model, QUICKSTART, Hub(), item_files=made, work=tmp_path, limit=limit)

    with pytest.raises(RecipeError, match="items were made for piqa"):
        scored(folder, data | {"piqa": data["arithmark2_synthetic"]})
    no_line = write_lines(tmp_path / "none.jsonl", [])
    with pytest.raises(DataError, match="is empty or not a file"):
        scored(folder, data | {"arithmark2_synthetic": no_line})
    with pytest.raises(DataError, match="not a model folder"):
        scored(tmp_path, data)
    with pytest.raises(RecipeError, match="the limit is 1"):
        scored(folder, data, limit=1)
    with pytest.raises(DataError, match="none of its items can be evaluated"):
        scored(folder, {})


def test_versions_name_what_scores_depend_on() -> None:
    found = versions()
    assert set(found) == {"lm_eval", "transformers", "torch", "datasets", "tokenizers"}
    assert found["torch"] == torch.__version__
