"""Datasets as the hub has them, read from local folders by the real library: configs, budgets, failures, joins."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.spec import from_plain, to_plain
from lilliput.base.units import Tokens
from lilliput.data.corpora import hub
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.concatenated import Concatenated, ConcatenatedChats
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.hub import HubChats, HubText, Share

README = """---
configs:
- config_name: web
  data_files:
  - split: train
    path: web/*.parquet
- config_name: books
  data_files:
  - split: train
    path: books/train.parquet
  - split: test
    path: books/test.parquet
---
"""
PAGES = [{"body": f"Page {number}, été.", "url": f"u{number}", "site": f"s{number % 3}"} for number in range(23)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    folder = tmp_path / "set"
    for part in ("web", "books"):
        (folder / part).mkdir(parents=True)
    (folder / "README.md").write_text(README)
    for number, start in enumerate((0, 7, 15)):
        rows = PAGES[start : (7, 15, 23)[number]]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"web/{number}.parquet", row_group_size=3)
    for name, texts in (("train", [f"book {n}" for n in range(5)]), ("test", ["last", None, "of all"])):
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / f"books/{name}.parquet")
    return str(folder)


def web(dataset: str, **changes) -> HubText:
    fields = {"dataset": dataset, "license": "cc0-1.0", "config": "web", "text": "body", "id": "url"} | changes
    return HubText(**fields)


def test_rows_of_a_config_come_in_the_order_of_its_files(dataset: str) -> None:
    documents = list(web(dataset, group="site").documents())
    assert [document.text for document in documents] == [page["body"] for page in PAGES]
    assert [document.id for document in documents] == [page["url"] for page in PAGES]
    assert [document.group for document in documents] == [page["site"] for page in PAGES]
    assert [document.group for document in web(dataset).documents()] == [page["url"] for page in PAGES]


def test_rows_without_id_are_numbered_and_null_texts_refused_or_dropped(dataset: str) -> None:
    corpus = HubText(dataset=dataset, license="cc0-1.0", config="books", split="test", null="drop")
    found = [(document.id, document.text) for document in corpus.documents()]
    assert found == [(f"{dataset}/books/test:1", "last"), (f"{dataset}/books/test:3", "of all")]
    items = [(item, mark["row"]) for item, mark in corpus.iterate_from() if isinstance(item, str)]
    assert items == [("null text", 2)], "it is counted, and reading goes on behind it"
    _, mark = list(corpus.iterate_from())[1]
    assert [item for item, _ in corpus.iterate_from(mark)] == list(corpus.documents())[1:]
    with pytest.raises(DataError, match=r"(?s)column 'text' is null.*books/test, row 2.*null=\"drop\""):
        list(replace(corpus, null="refuse").documents())
    with pytest.raises(RecipeError, match="null is 'keep'"):
        replace(corpus, null="keep")


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        ({"rows": 9}, 9),
        ({"rows": 99}, 23),
        ({"bytes": 14}, 1),
        ({"bytes": 15}, 2),
        ({"tokens": Tokens(2)}, 1),
        ({"tokens": Tokens(3)}, 2),
        ({"tokens": Tokens(4), "rows": 1}, 1),
    ],
)
def test_a_budget_takes_the_first_so_many(dataset: str, budget: dict, count: int) -> None:
    assert len("Page 0, été.".encode()) == 14
    corpus = web(dataset, **budget)
    assert [document.id for document in corpus.documents()] == [page["url"] for page in PAGES][: max(count, 1)]
    assert list(corpus.documents()) == list(corpus.documents())


def test_a_budget_of_nothing_is_refused() -> None:
    for budget in ({"rows": 0}, {"bytes": -1}, {"tokens": Tokens(0)}):
        with pytest.raises(RecipeError, match="nothing is read"):
            HubText(dataset="a/b", license="mit", **budget)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"config": None}, r"(?s)several configs and none is named.*books, web"),
        ({"config": "wep"}, r"(?s)no config 'wep'.*nearest names: web"),
        ({"split": "tran"}, r"(?s)no split 'tran'.*nearest names: train"),
        ({"text": "bodi"}, r"(?s)no column 'bodi'.*nearest names: body"),
        ({"group": "sit"}, r"(?s)no column 'sit'.*nearest names: site"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(dataset: str, changes: dict, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        list(web(dataset, **changes).documents())
    assert "--source NAME=PATH" in caught.value.hint and dataset in caught.value.where


def test_a_column_of_numbers_is_no_text(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers/train.jsonl").write_text('{"text": 7}\n')
    with pytest.raises(DataError, match="row 1 is 7, not text"):
        list(HubText(dataset=str(tmp_path / "numbers"), license="mit").documents())


def test_a_text_longer_than_a_document_may_be_is_named(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = max(len(page["body"].encode()) for page in PAGES)
    monkeypatch.setenv("LILLIPUT_MAX_DOCUMENT_BYTES", str(longest))
    assert len(list(web(dataset).documents())) == len(PAGES)
    monkeypatch.setenv("LILLIPUT_MAX_DOCUMENT_BYTES", str(longest - 1))
    with pytest.raises(DataError, match=rf"longer than {longest - 1} bytes") as raised:
        list(web(dataset).documents())
    assert raised.value.where == f"{dataset}/web/train, row 11"


def test_the_hub_out_of_reach_says_the_way_out() -> None:
    """No test touches the network, so this is what every name on the hub gives."""
    for read in (lambda spec: list(spec.documents()), lambda spec: spec.identity()):
        with pytest.raises(DataError, match=r"(?s)network is switched off.*HF_HUB_OFFLINE.*--source NAME=PATH"):
            read(HubText(dataset="nobody/nothing", license="mit"))
    pinned = HubText(dataset="nobody/nothing", license="mit", revision=COMMIT)
    assert pinned.identity() == ["nobody/nothing", COMMIT], "a commit says what it is without a look-up"
    with pytest.raises(DataError, match="--source NAME=PATH"):
        list(pinned.documents())
    with pytest.raises(DataError, match="neither a folder nor a name"):
        HubText(dataset="not a name/at all", license="mit").identity()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("GatedRepoError", r"(?s)gated.*datasets/owner/set.*hf auth login.*--source NAME=PATH"),
        ("RepositoryNotFoundError", r"(?s)hub has no dataset 'owner/set'.*hf auth login.*--source NAME=PATH"),
        ("RevisionNotFoundError", r"(?s)no such revision.*--source NAME=PATH"),
    ],
)
def test_what_the_hub_refuses_is_said_in_words(kind: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors are the library's own, with the answers that the hub gives."""
    from huggingface_hub import HfApi, errors

    http = importlib.import_module(errors.HTTPError.__module__)

    def refuse(self: HfApi, name: str, revision: str | None = None) -> None:
        request = http.Request("GET", f"https://huggingface.co/api/datasets/{name}")
        raise getattr(errors, kind)("no", response=http.Response(403, request=request))

    monkeypatch.setattr(HfApi, "dataset_info", refuse)
    hub._newest.cache_clear()
    with pytest.raises(DataError, match=says):
        HubText(dataset="owner/set", license="mit").identity()


class Flaky:
    """A connection that breaks after so many reads, once for each number."""

    def __init__(self, breaks: tuple[int, ...]):
        self.left, self.reads, self.breaks = list(breaks), 0, 0

    def __call__(self, batches):
        for batch in batches:
            self.reads += 1
            if self.left and self.reads >= self.left[0]:
                self.left.pop(0)
                self.breaks += 1
                raise ConnectionError("reset by peer")
            yield batch


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch):
    """Parquet files of the library are read through a connection that breaks."""
    from datasets.packaged_modules.parquet.parquet import Parquet

    whole = Parquet._generate_tables

    def broken(breaks: tuple[int, ...]) -> Flaky:
        flaky = Flaky(breaks)
        monkeypatch.setattr(
            Parquet, "_generate_tables", lambda self, *given, **named: flaky(whole(self, *given, **named))
        )
        return flaky

    monkeypatch.setattr(hub.time, "sleep", lambda seconds: None)
    return broken


@pytest.mark.parametrize("breaks", [(2,), (3, 5, 6, 7), (2, 4, 7, 9, 13)])
def test_broken_connections_lose_and_repeat_no_row(dataset: str, connection, breaks: tuple[int, ...]) -> None:
    flaky = connection(breaks)
    assert [document.text for document in web(dataset).documents()] == [page["body"] for page in PAGES]
    assert flaky.breaks == len(breaks)


@pytest.mark.parametrize("breaks", [(), (2, 4), (3, 5, 6, 7)])
def test_shares_of_the_files_are_the_rows_with_their_numbers(dataset: str, connection, breaks: tuple[int, ...]) -> None:
    rows = web(dataset).file_rows()
    assert rows == [7, 8, 8]
    flaky = connection(breaks)
    shares = [Share(rank=rank, tasks=2, rows=rows) for rank in range(2)]
    found = [list(web(dataset).iterate_from(share=share)) for share in shares]
    assert [document.text for items in found for document, _ in items] == [page["body"] for page in PAGES]
    assert [mark["row"] for items in found for _, mark in items] == list(range(1, 24)) and len(found[0]) == 15
    assert flaky.breaks == len(breaks)


def test_a_connection_that_stays_broken_ends_in_an_error(dataset: str, connection) -> None:
    flaky = connection(tuple(range(3, 99)))
    with pytest.raises(DataError, match=r"(?s)cannot be reached.*after \d+ rows.*--source NAME=PATH"):
        list(web(dataset).documents())
    assert flaky.breaks == len(hub.PAUSES) + 1


def test_identity_follows_the_files_of_a_folder(dataset: str) -> None:
    before = web(dataset).identity()
    assert before == web(dataset).identity() == json.loads(json.dumps(before))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["another"]}), Path(dataset) / "books/train.parquet")
    assert web(dataset).identity() != before


@pytest.mark.parametrize("name", ["a*b", "a?b", "[ab]", "s3::a", "a\nb"])
def test_a_folder_whose_name_is_a_pattern_is_not_taken_for_others(name: str, tmp_path: Path) -> None:
    """The library read the texts of `axb` as well."""
    for each in (name, "axb"):
        (tmp_path / each).mkdir()
        (tmp_path / each / "train.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="has a sign that means something else"):
        list(HubText(dataset=str(tmp_path / name), license="mit").documents())
    assert [each.text for each in TextFiles(paths=(str(tmp_path / name),)).documents()] == ["a"], "the hint works"


def test_a_row_without_group_or_id_is_a_group_of_its_own(tmp_path: Path) -> None:
    rows = [{"text": "a", "id": "", "site": None}, {"text": "b", "id": None, "site": ""}, {"text": "c", "site": "s"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for corpus in (
        HubText(dataset=str(tmp_path), license="mit", group="site"),
        TextFiles(paths=(str(tmp_path),), group="site"),
    ):
        documents = list(corpus.documents())
        assert len({each.id for each in documents}) == len({each.group for each in documents}) == 3
        assert [each.group == each.id for each in documents] == [True, True, False]


@pytest.fixture
def talks(tmp_path: Path) -> str:
    folder = tmp_path / "talks"
    folder.mkdir()
    rows = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(4)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row | {"id": "x"}) + "\n" for row in rows))
    return str(folder)


def test_conversations_of_a_dataset_are_those_of_its_rows(talks: str, dataset: str) -> None:
    here = list(HubChats(dataset=talks, license="mit", rows=3).conversations())
    local = list(ChatFiles(paths=(f"{talks}.jsonl",)).conversations())
    assert [each.messages for each in here] == [each.messages for each in local][:3]
    assert here[0].id == here[0].group == f"{talks}/train:1"
    with pytest.raises(DataError, match="no column 'turns'"):
        list(HubChats(dataset=talks, license="mit", messages="turns").conversations())
    with pytest.raises(DataError, match=r"(?s)not a list of messages.*row 1"):
        list(HubChats(dataset=dataset, license="mit", config="web", messages="body").conversations())


def test_joined_corpora_follow_each_other_under_ids_of_their_own(dataset: str, talks: str) -> None:
    local = TextFiles(paths=(f"{dataset}/books/train.parquet",))
    joined = Concatenated(sources=(web(dataset, rows=2), local, local))
    documents = list(joined.documents())
    assert [document.text for document in documents] == [
        *(page["body"] for page in PAGES[:2]),
        *(f"book {n}" for n in range(5)),
        *(f"book {n}" for n in range(5)),
    ]
    assert len({document.id for document in documents}) == 12 and documents[0].id == "0/u0"
    assert documents[2].group == documents[7].group, "the same text twice lands on one side"
    assert joined.identity() == [web(dataset).identity(), local.identity(), local.identity()]
    chats = ChatFiles(paths=(f"{talks}.jsonl",))
    both = ConcatenatedChats(sources=(HubChats(dataset=talks, license="mit"), chats))
    assert len(list(both.conversations())) == 8 and next(both.conversations()).id == f"0/{talks}/train:1"
    for spec in (joined, both):
        assert from_plain(json.loads(json.dumps(to_plain(spec)))) == spec


def test_corpora_that_cannot_be_joined_are_refused(talks: str) -> None:
    for wrong in ((), (HubChats(dataset=talks, license="mit"),)):
        with pytest.raises(RecipeError, match=r"nothing is joined|HubChats has no documents"):
            Concatenated(sources=wrong)
    with pytest.raises(RecipeError, match="TextFiles has no conversations"):
        ConcatenatedChats(sources=(TextFiles(paths=("x",)),))
