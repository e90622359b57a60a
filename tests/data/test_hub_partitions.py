"""A dataset of parts in folders: which files are read, in which proportions, and how reading resumes."""

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_partitions

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.spec import from_plain, to_plain
from lilliput.base.units import Tokens
from lilliput.data.corpora import hub_files
from lilliput.data.corpora.concatenated import at_revision
from lilliput.data.corpora.fill_in_the_middle import StripFIMMarkers
from lilliput.data.corpora.hub_partitions import HubPartitions, Partition
from lilliput.data.documents import Document
from lilliput.recipes.odinnext_138m import natural

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_partitions.write_folder(tmp_path_factory.mktemp("mix"))


@pytest.fixture
def local(folder: Path) -> HubPartitions:
    return natural.in_folder(str(folder))


def test_what_the_card_leaves_out_is_not_read_and_the_rest_is(local: HubPartitions) -> None:
    documents = list(local.documents())
    assert len(documents) == len({document.id for document in documents}) == 24 * len(tiny_partitions.KEPT)
    assert not any(tiny_partitions.UNWANTED in document.text for document in documents)
    assert {document.group.rpartition("-")[0] for document in documents} == set(tiny_partitions.KEPT)
    assert not any("fim_" in document.text for document in documents)
    assert "def f3():\n    return x\n    x = 3\n" in {document.text for document in documents}
    assert from_plain(json.loads(json.dumps(to_plain(local)))) == local


def test_parts_are_read_side_by_side_in_proportion_to_their_tokens(tmp_path: Path) -> None:
    for name, count in (("a", 400), ("b", 100), ("c", 100)):
        rows = "".join(json.dumps({"text": "word " * 20, "id": f"{name}{n}"}) + "\n" for n in range(count))
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.jsonl").write_text(rows)
    kept = {
        "a": Partition(files=("a/*",), tokens=Tokens(4e9)),
        "b": Partition(files=("b/*",), tokens=Tokens(2e9), bytes_per_token=2.25),
        "c": Partition(files=("c/*",), tokens=Tokens(1e9)),
    }
    corpus = HubPartitions(dataset=str(tmp_path), license="mit", kept=kept)
    parts = [document.id.partition("/")[0] for document in corpus.documents()]
    for end in (6, 60, 300, 600):
        assert Counter(parts[:end]) == {"a": end * 4 // 6, "b": end // 6, "c": end // 6}, end
    fewer = replace(corpus, kept=kept | {"c": replace(kept["c"], tokens=Tokens(4e9))})
    last = [document.id.partition("/")[0] for document in fewer.documents()][-200:]
    assert "c" not in last and Counter(last)["a"] == 4 * Counter(last)["b"], "what ends leaves the others as they were"
    some = replace(corpus, tokens=Tokens(1_000))
    assert sum(len(document.text) for document in some.documents()) == 5_000


def test_files_of_a_part_come_in_an_order_in_which_its_folders_mix(local: HubPartitions) -> None:
    web = [document.group for document in local.documents() if document.id.startswith("common-crawl/")]
    folders = [group.rpartition("-")[0] for group in web]
    assert folders != sorted(folders) and folders != sorted(folders, reverse=True)
    assert web == [document.group for document in local.documents() if document.id.startswith("common-crawl/")]


def test_reading_goes_on_from_any_mark(local: HubPartitions) -> None:
    items = list(local.iterate_from())
    for number in (0, 1, 50, 200, len(items) - 1):
        mark = json.loads(json.dumps(items[number][1]))
        assert [item for item, _ in local.iterate_from(mark)] == [item for item, _ in items[number + 1 :]]
    assert local.is_seekable
    share = local.fraction_read()
    assert 0 < share(items[100][1]) < share(items[300][1]) <= 1


@pytest.fixture
def on_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The same folder as if it were a repository, whose connection breaks once in a file."""
    names = tuple(path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    opened: list[str] = []

    class Broken(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionError("reset by peer")

    def open_file(dataset: str, commit: str, name: str):
        assert (dataset, commit) == (natural.dataset, COMMIT)
        opened.append(name)
        data = (folder / name).read_bytes()
        return Broken(data) if opened.count(name) == 1 and "cranecode" in name else io.BytesIO(data)

    monkeypatch.setattr(hub_files.time, "sleep", lambda seconds: None)
    monkeypatch.setattr("lilliput.data.corpora.hub_partitions.file_names", lambda dataset, commit: names)
    monkeypatch.setattr(hub_files, "open_file", open_file)
    return opened


def test_the_hub_gives_what_a_folder_gives(local: HubPartitions, on_the_hub: list[str]) -> None:
    corpus = replace(natural, revision=COMMIT)
    items = list(corpus.iterate_from())
    assert [item for item, _ in items] == list(local.documents())
    assert corpus.identity() == [natural.dataset, COMMIT] and at_revision(natural, corpus.identity()) == corpus
    assert not any("qwq" in name or "adult" in name or "olmocr" in name for name in on_the_hub)
    on_the_hub.clear()
    assert next(corpus.iterate_from(items[99][1]))[0] == items[100][0]
    assert len(set(on_the_hub)) <= len(natural.kept), "of each part one file is open"


def test_a_connection_that_stays_broken_ends_in_words(on_the_hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(dataset: str, commit: str, name: str):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(hub_files, "open_file", broken)
    with pytest.raises(DataError, match=r"(?s)cannot be reached.*after 0 rows.*--source NAME=PATH"):
        list(replace(natural, revision=COMMIT).documents())


def test_a_folder_that_is_laid_out_otherwise_is_refused(tmp_path: Path) -> None:
    root = tiny_partitions.write_folder(tmp_path / "mix", documents=1)
    assert len(list(natural.in_folder(str(root / "data")).documents())) == 2 * len(tiny_partitions.KEPT)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/0.jsonl").write_text('{"text": "a"}\n')
    assert natural.in_folder(str(tmp_path / "own")) is None and natural.in_folder(str(tmp_path / "own/0.jsonl")) is None
    (root / "data/novels").mkdir()
    (root / "data/novels/0.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"(?s)'novels/0.jsonl' is of no part.*kept, or left out"):
        natural.in_folder(str(root))
    (root / "data/novels/0.jsonl").unlink()
    for path in (root / "data/megamatt").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"(?s)no file of its part 'megamatt', megamatt/\*"):
        natural.in_folder(str(root))
    for wrong in ({"files": ()}, {"bytes_per_token": 0.0}):
        with pytest.raises(RecipeError):
            Partition(**{"files": ("a",), "tokens": Tokens(1.0)} | wrong)
    with pytest.raises(RecipeError, match="no part is kept"):
        HubPartitions(dataset="a/b", license="mit", kept={})


@pytest.mark.parametrize(
    ("text", "stripped", "restored"),
    [
        ("plain < text |>", "plain < text |>", "plain < text |>"),
        ("<|fim_prefix|>a<|fim_suffix|>c<|fim_middle|>b", "acb", "abc"),
        ("x<fim_suffix>c<fim_prefix>a<fim_middle>b", "xcab", "xabc"),
        ("<|fim_prefix|>a<|fim_pad|>", "a", "a"),
    ],
)
def test_markers_of_filling_in_go_and_parts_may_go_back(text: str, stripped: str, restored: str) -> None:
    for restore, wanted in ((False, stripped), (True, restored)):
        judge = StripFIMMarkers(restore=restore).begin()
        assert judge(Document(text, "i", "g")) == Document(wanted, "i", "g")
    assert StripFIMMarkers().begin()(Document("<|fim_prefix|> <|fim_middle|>", "i", "g")) == "nothing but markers"
