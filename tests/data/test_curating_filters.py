"""Filters that curation adds: rules of others, personal data, metadata, decontamination."""

import builtins
import json
from pathlib import Path

import pytest

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.spec import from_plain, to_plain
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import FilterChain, Filtered
from lilliput.data.corpora.filters.c4 import C4Quality
from lilliput.data.corpora.filters.decontaminate import Decontaminate
from lilliput.data.corpora.filters.fineweb import FineWebQuality
from lilliput.data.corpora.filters.gopher import GopherQuality, GopherRepetition
from lilliput.data.corpora.filters.metadata import Metadata
from lilliput.data.corpora.filters.mojibake import RepairMojibake
from lilliput.data.corpora.filters.near_duplicates import NearDuplicates
from lilliput.data.corpora.filters.personal_data import PersonalData
from lilliput.data.documents import Document
from lilliput.data.ngram_index import NgramIndex
from lilliput.data.resumable import is_seekable

ITEM = "how do you clean a window without streaks you wipe it with old newspaper in place of a towel"
RULES = (GopherQuality(), GopherRepetition(), C4Quality(), FineWebQuality())


def counted(texts: list[str], *filters) -> tuple[list[str], dict[str, int]]:
    chain = FilterChain(filters)
    kept = [document.text for document in chain.run(Document(text, text, text) for text in texts)]
    return kept, dict(chain.counts)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rules_of_others_say_why_and_survive_what_is_no_text(rule) -> None:
    pytest.importorskip("datatrove")
    kept, counts = counted(["", " \n ", "…", "#", "-\n-\n-", "a" * 2_000, "。" * 60], rule)
    assert counts.pop("kept", 0) == len(kept) < 7 and sum(counts.values()) == 7 - len(kept)
    assert counts[f"{rule.name}: empty"] == 2 and all("_" not in reason for reason in counts)


def test_c4_takes_out_lines() -> None:
    pytest.importorskip("datatrove")
    good = "The river was high that day. Nobody crossed the bridge."
    text = f"Home\n{good}\nPlease enable javascript now.\n{good[:-1]} [1].\nWe use cookies on this site.\n{good}"
    kept, counts = counted([text], C4Quality())
    assert kept == ["\n".join([good, f"{good[:-1]} .", good])]
    assert counts == {"kept": 1}


@pytest.mark.parametrize("rule", [*RULES, RepairMojibake(), NearDuplicates()], ids=lambda rule: rule.name)
def test_a_library_that_is_not_there_is_named_with_the_extra(rule, monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] in ("datatrove", "ftfy", "rensa"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecipeError, match="is not installed") as caught:
        rule.begin()
    assert caught.value.hint == "pip install 'lilliput[curate]'"


def test_personal_data_is_replaced_once_and_by_what_is_asked_for() -> None:
    text = "Ask jo@a.org or (212) 642-4100, not 10.0.0.1 but 8.8.8.8."
    (once,), _ = counted([text], PersonalData())
    assert once == "Ask email@example.com or +1-202-555-0100, not 10.0.0.1 but 192.0.2.1."
    assert counted([once], PersonalData())[0] == [once]
    assert counted([text], PersonalData(email=None, phone=None, ip="IP"))[0] == [text.replace("8.8.8.8", "IP")]


def test_personal_data_takes_no_longer_for_what_only_begins_like_it() -> None:
    texts = [part * 200_000 for part in ("a.b-", "1.", "+1-", "2a00:", "a@b.", "(2", "212-")]
    assert len(counted(texts, PersonalData())[0]) == len(texts)


def test_rows_are_kept_by_a_column(tmp_path: Path) -> None:
    rows = [{"text": f"t{score}", "score": score, "lang": "en"} for score in (1, 2.5, 3, 4.5, None)]
    rows += [{"text": "nan", "score": float("nan"), "lang": "de"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = TextFiles(paths=(str(tmp_path / "a.jsonl"),), columns=("score", "lang"))
    corpus = Filtered(source=files, filters=(Metadata(column="score", at_least=2.5, at_most=4),))
    assert [document.text for document in corpus.documents()] == ["t2.5", "t3"] and is_seekable(corpus)
    reasons = [item for item, _ in corpus.iterate_from() if isinstance(item, str)]
    assert reasons == [
        f"metadata: {why}" for why in ("score below 2.5", "score above 4", "no score", "score below 2.5")
    ]
    german = Filtered(source=files, filters=(Metadata(column="lang", one_of=("de",)),))
    assert [document.text for document in german.documents()] == ["nan"]
    assert from_plain(to_plain(german)) == german and "columns" not in to_plain(TextFiles(paths=("a",)))


def test_a_column_that_was_not_read_or_is_no_number_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "t", "score": "high"}\n')
    files = TextFiles(paths=(str(tmp_path / "a.jsonl"),))
    by_score = (Metadata(column="score", at_least=3),)
    with pytest.raises(DataError, match="was not read") as caught:
        list(Filtered(source=files, filters=by_score).documents())
    assert 'columns=("score",)' in str(caught.value.hint)
    read = TextFiles(paths=files.paths, columns=("score",))
    with pytest.raises(DataError, match="not a number"):
        list(Filtered(source=read, filters=by_score).documents())
    with pytest.raises(DataError, match="no column 'stars'"):
        list(TextFiles(paths=files.paths, columns=("stars",)).documents())
    with pytest.raises(RecipeError, match="nothing is asked"):
        Metadata(column="score")


def test_an_index_of_evaluation_sets_is_read_back(tmp_path: Path) -> None:
    index = NgramIndex([("piqa", ITEM), ("short", "no more words than these eight are in"), ("none", "a b")])
    index.write(tmp_path / "index")
    again = NgramIndex.read(tmp_path / "index")
    assert again.sha256 == index.sha256 and again.items == index.items
    kept, counts = counted(["fine", f"my tip: {ITEM}!"], Decontaminate(index=str(tmp_path / "index")))
    assert kept == ["fine"] and counts == {"kept": 1, "decontaminate: overlaps piqa": 1}
    (tmp_path / "broken").write_bytes((tmp_path / "index").read_bytes()[:-9])
    for name in ("broken", "missing"):
        with pytest.raises(DataError, match="no index of evaluation sets"):
            Decontaminate(index=str(tmp_path / name)).begin()
