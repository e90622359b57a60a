"""Which tasks a text overlaps: by 13 words in a row, or by a whole short item, however it is written."""

import random
from pathlib import Path

import pytest
import tiny_questions

from lilliput.data.ngram_index import LEAST, Items, N, NgramIndex
from lilliput.evals.benchmark_index import benchmark_index
from lilliput.evals.question_files import Folder
from lilliput.evals.suites import SUITES

LONG = "the quick brown fox jumps over the lazy dog while nobody on the farm looks at it at all today"
SHORT = "which of these animals can fly at night"


@pytest.fixture(scope="module")
def index() -> NgramIndex:
    return NgramIndex([("long", LONG), ("short", SHORT), ("short", "two plus two"), ("both", LONG), ("none", "yes")])


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_not(index: NgramIndex) -> None:
    words = LONG.split()
    for first in range(len(words) - N + 1):
        assert index.overlaps(" ".join(["so", *words[first : first + N], "end"])) == ("long", "both")
    assert (
        index.overlaps(" ".join(words[: N - 1])) == () == index.overlaps(" ".join([*words[: N - 1], "x", *words[N:]]))
    )


def test_a_short_item_has_to_be_there_whole_and_shorter_ones_are_counted(index: NgramIndex) -> None:
    assert len(SHORT.split()) == LEAST and index.overlaps(f"Say {SHORT}, please") == ("short",)
    assert index.overlaps(SHORT[:-2]) == () == index.overlaps("two plus two")
    assert index.items == {"long": Items(1), "short": Items(1, 1), "both": Items(1), "none": Items(0, 1)}


def test_case_punctuation_and_white_space_do_not_count(index: NgramIndex) -> None:
    for text in (
        LONG.upper(),
        LONG.replace(" ", ",\n\t "),
        "“" + LONG.replace("lazy", "l'az’y").replace(" ", "\u00a0") + "”…",
        LONG.title().replace("Dog", "DOG—"),
    ):
        assert index.overlaps(text) == ("long", "both"), text
    accents = NgramIndex([("a", "Ça été là où il était hier, n’est-ce pas")])
    assert accents.overlaps("ça ÉTÉ là OÙ il était hier n'est-ce pas") == ("a",)


def test_many_texts_are_looked_at_together_and_never_run_into_each_other(index: NgramIndex) -> None:
    words, draw = LONG.split(), random.Random(0)
    texts = [
        "",
        " ".join(words[:9]),
        " ".join(words[9:]),
        LONG,
        "\x01".join(LONG),
        "\ud800",
        LONG.replace(" ", " \x01 "),
    ]
    texts += [
        " ".join(draw.choices([*words, *SHORT.split(), SHORT, LONG], k=draw.randint(0, 99))) for _ in range(3_000)
    ]
    found = list(index.overlaps_of(texts))
    assert found == [index.overlaps(text) for text in texts] and found[:4] == [(), (), (), ("long", "both")]
    for text, tasks in zip(texts[7:], found[7:], strict=True):
        runs = {tuple(text.split()[place : place + size]) for size in (N, LEAST) for place in range(len(text.split()))}
        in_long = any(tuple(words[place : place + N]) in runs for place in range(len(words) - N + 1))
        assert ("long" in tasks, "short" in tasks) == (in_long, tuple(SHORT.split()) in runs)


def test_an_index_of_nothing_finds_nothing_and_equal_ones_have_equal_hashes(index: NgramIndex) -> None:
    assert NgramIndex([]).overlaps(LONG) == () == NgramIndex([("t", "x")]).overlaps(LONG)
    assert NgramIndex([("t", LONG)]).sha256 == NgramIndex([("t", LONG.upper())]).sha256
    assert NgramIndex([("t", LONG)]).sha256 != NgramIndex([("t", SHORT)]).sha256 != index.sha256


def test_questions_of_evaluation_are_indexed_by_task_and_absent_sets_are_named(tmp_path: Path) -> None:
    folder = tiny_questions.write_folder(tmp_path / "eval")
    (folder / "copa.validation.jsonl.xz").unlink()
    found = benchmark_index([SUITES["mtlm"], SUITES["open-slm"]], Folder(folder), tmp_path)
    assert found.absent.keys() == {"copa", "arithmark2", "arithmark3"} and "copa.validation" in found.absent["copa"]
    assert len(found.index.items) == len(tiny_questions.PUBLIC)  # without COPA, with TruthfulQA's other task
    assert all(sum((one.indexed, one.short)) == tiny_questions.COUNT for one in found.index.items.values())
    broken = folder / "piqa.validation.jsonl"
    broken.write_text("{}\n")
    assert "there is no column" in benchmark_index([SUITES["odinnext"]], Folder(folder), tmp_path).absent["piqa"]
