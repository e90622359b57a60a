"""What is held out where there are few documents, and the token files that a run refuses to be made of."""

import json
import random
import re
from pathlib import Path

import pytest
from tiny_commands import lilliput, refused, workshop

from lilliput.base.files import read_json
from lilliput.data.conversations import Conversation
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered, Length
from lilliput.data.documents import Document
from lilliput.data.messages import Message
from lilliput.data.small_corpora import Extent, WithHeldOutEnds, cut, extent, lowest, sides
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import load_tokenizer

SPLIT = Split(share=0.05)


def prose(size: int, *, line: str = "\n", seed: int = 0) -> str:
    """Lines of words, so many characters."""
    rng = random.Random(seed)
    text = ""
    while len(text) < size:
        text += " ".join("".join(rng.choices("abcdefgh", k=rng.randint(1, 9))) for _ in range(12)) + line
    return text[:size]


def way(
    documents: int, *, share: float = 0.05, groups: int | None = None, each: int = 9_000, chat: bool = False
) -> str:
    there = Extent(documents=documents, groups=documents if groups is None else groups, characters=each * documents)
    return there.way(Split(share=share), can_cut=not chat)


def test_few_are_those_of_which_a_hash_is_expected_to_hold_out_less_than_five():
    assert (way(1), way(99), way(100)) == ("ends", "ends", "groups")
    assert (way(12, share=0.4), way(13, share=0.4)) == ("ends", "groups")
    assert way(1_000, share=1e-6) == "groups", "no more are looked at"
    assert (way(3, share=0), way(3, share=1)) == ("groups", "groups"), "then it is meant so"
    assert way(60, each=200) == "lowest", "ends of ten characters measure nothing"
    assert (way(1, each=200), way(60, each=200, groups=1)) == ("ends", "ends")
    assert (way(99, chat=True), way(100, chat=True), way(1, chat=True)) == ("lowest", "groups", "groups")


@pytest.mark.parametrize("line", ["\n", "\r\n", " "])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.3, 0.9])
def test_a_text_is_cut_near_the_share_after_a_line_or_a_word(line, share):
    text = prose(20_000, line=line) + "\n\n"
    boundary = cut(text, share)
    size = share * 20_000
    assert text[:boundary].endswith(line) and abs(len(text) - boundary - size) < size / 2
    assert text[boundary:].strip() and text[:boundary].strip()


def test_no_character_is_cut_apart_and_what_is_short_stays_whole():
    assert cut("字" * 1_000, 0.05) == 950
    for pair in ("\ud83d\ude00", "e\u0301"):
        for odd in ("", "字"):
            text = odd + pair * 1_000 + "字"
            assert (cut(text, 0.05) - len(odd)) % 2 == 0 and 0 < cut(text, 0.05) < len(text)
    for short in ("", "\n" * 900, "word " * 20, " " * 500 + "word" * 4 + " " * 500):
        assert cut(short, 0.05) == len(short), short
    assert cut(" " * 990 + "字" * 30, 0.05) == 1_020, "a side without text is none"


def test_the_parts_of_a_text_are_the_text(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(prose(9_000, seed=ord(name)))
    (tmp_path / "short.txt").write_text("short")
    source = Filtered(source=TextFiles(paths=(str(tmp_path),)), filters=(Length(at_least=1),))
    corpus, split = sides(source, SPLIT, "ends")
    parts = list(corpus.documents())
    assert [part.id for part in parts][:3] == ["a.txt", "a.txt (its end)", "b.txt"] and len(parts) == 7
    whole = {document.id: document.text for document in source.documents()}
    joined: dict[str, str] = {}
    for part in parts:
        name = part.id.removesuffix(" (its end)")
        joined[name] = joined.get(name, "") + part.text
        assert split.is_heldout(part.group) == (part.id != name)
    assert joined == whole and corpus.identity() == source.identity()


def test_what_filters_drop_is_still_counted_of_parted_texts(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    source = Filtered(source=TextFiles(paths=(str(tmp_path),)), filters=(Length(at_least=2),))
    assert [item for item, _ in WithHeldOutEnds(source=source, share=0.1).iterate_from()] == ["length: too short"]


class Listed:
    def __init__(self, *items):
        self.items = items

    def documents(self):
        yield from self.items


class Talk(Listed):
    def conversations(self):
        yield from self.items


def test_whole_groups_are_held_out_at_least_one_and_never_all():
    items = [Document("text", str(index), f"g{index % 40}") for index in range(80)]
    for share, count in ((0.001, 1), (0.05, 2), (0.999, 39)):
        for order in (items, items[::-1]):
            found = lowest(Listed(*order), Split(share=share))
            assert len(found.groups) == count
            rest = {item.group for item in items} - {*found.groups}
            assert max(map(SPLIT.fraction, found.groups)) < min(map(SPLIT.fraction, rest))
    assert lowest(Listed(*items), SPLIT) != lowest(Listed(*items), Split(share=0.05, salt="x"))
    blank = [Document("", "none", group) for group in lowest(Listed(*items), SPLIT).groups]
    assert len(lowest(Listed(*blank, items[0], items[1]), SPLIT).groups) == 1, "of those that have any text"
    two = [Conversation((Message("user", "hi"),), name, name) for name in "ab"]
    assert len(lowest(Talk(*two), SPLIT).groups) == 1
    assert extent(Talk(*two)) == Extent(documents=2, groups=2, characters=4)


# Commands


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return workshop(tmp_path, entries=6)


def texts(shop: Path, **files: str) -> None:
    """Other texts."""
    for path in (shop / "texts").iterdir():
        path.unlink()
    for name, text in files.items():
        (shop / "texts" / f"{name}.txt").write_text(text)


def rows(*each: str, key: str = "text") -> str:
    return "".join(json.dumps({"id": f"r{index}", key: row}) + "\n" for index, row in enumerate(each))


def data(shop: Path, *words: str) -> str:
    return lilliput("data", "mine.py", "--out", "run", *words, folder=shop).out


def outputs(shop: Path, name: str) -> dict:
    return read_json(shop / "run" / "parts" / f"shards.{name}.json")["outputs"]


def suggested(err: str) -> list[str]:
    """The words that a hint says to add."""
    return re.findall(r"--set|\w[\w.-]*=[\w.]+\w", err.rpartition("hint: ")[2].partition("(")[0])


def test_of_a_text_that_is_much_of_all_the_end_is_held_out_and_of_the_others_whole_ones(tmp_path):
    """A hundred and fifty stories and a book, whose name alone would hold out all of it or nothing."""
    for number in range(150):
        (tmp_path / f"{number:03}.txt").write_text(prose(2_000, seed=number))
    (tmp_path / "book.txt").write_text(prose(200_000))
    corpus, split = TextFiles(paths=(str(tmp_path),)), Split(share=0.1)
    assert extent(corpus).way(split, can_cut=True) == "large"
    parted, chosen = sides(corpus, split, "large")
    kept, held = ([], [])
    for document in parted.documents():
        (held if chosen.is_heldout(document.group) else kept).append(document)
    assert [document.id for document in kept if "book" in document.id] == ["book.txt"]
    assert [document.id for document in held if "book" in document.id] == ["book.txt (its end)"]
    others = [document.id for document in held if "book" not in document.id]
    assert others == [f"{n:03}.txt" for n in range(150) if split.is_heldout(f"{n:03}.txt")] and 5 < len(others) < 30
    assert (
        extent(TextFiles(paths=(str(tmp_path / "0*.txt"), str(tmp_path / "1*.txt")))).way(split, can_cut=True)
        == "groups"
    )


def test_the_end_of_one_text_is_held_out_of_tokens_and_tokenizer(shop):
    texts(shop, book=prose(30_000) + "zqzqzq " * 470)
    said = data(shop)
    assert "texts: few texts, so the last 10% of each is held out" in said
    made = outputs(shop, "texts")
    assert made["held_out"] == "ends" and made["sides"]["heldout"]["documents"] == 1
    assert 2_500 < made["sides"]["heldout"]["bytes"] < 4_500
    assert not [token for token in load_tokenizer(shop / "run" / "tokenizer").get_vocab() if "zq" in token]
    record = (shop / "run" / "parts" / "shards.texts.json").read_bytes()
    (shop / "texts" / "book.txt").rename(shop / "away.txt")
    assert "the last 10% of each" in data(shop), "what was read of it is known"
    assert (shop / "run" / "parts" / "shards.texts.json").read_bytes() == record
    (shop / "away.txt").rename(shop / "texts" / "book.txt")
    data(shop, "--set", "split.share=0.2")
    assert outputs(shop, "texts")["sides"]["heldout"]["bytes"] > 5_000


def test_short_rows_and_few_conversations_are_held_out_whole(shop):
    texts(shop)
    (shop / "texts" / "few.jsonl").write_text(rows(*(prose(200, seed=n) for n in range(20))))
    chats = (shop / "chats" / "chats.jsonl").read_text().splitlines(keepends=True)
    (shop / "chats" / "chats.jsonl").write_text("".join(chats[:2]))
    assert data(shop).count(": few, so whole ones are held out, 10% but at least one") == 2
    assert outputs(shop, "texts")["sides"]["heldout"]["documents"] == 2
    assert [outputs(shop, "chats")["sides"][side]["conversations"] for side in ("train", "heldout")] == [1, 1]
    (shop / "chats" / "chats.jsonl").write_text(chats[0])
    refused("data", "mine.py", "--out", "run", folder=shop, says="nothing of 'chats' is held out")


def test_a_hash_that_holds_nothing_out_is_refused_with_a_share_that_does(shop):
    groups = "".join(json.dumps({"id": f"r{n}", "book": f"b{n % 3}", "text": prose(99)}) + "\n" for n in range(300))
    texts(shop)
    (shop / "texts" / "few.jsonl").write_text(groups)
    recipe = (shop / "mine.py").read_text().replace('here / "texts"),)', 'here / "texts"),), group="book"')
    (shop / "mine.py").write_text(recipe)
    low = min(Split().fraction(f"b{n}") for n in range(3))
    words = ["--set", f"split.share={0.9 * low:.6f}"]
    err = refused("data", "mine.py", "--out", "run", *words, folder=shop, says="nothing of 'texts' is held out")
    data(shop, *suggested(err))
    assert outputs(shop, "texts")["sides"]["heldout"]["documents"] == 100


def test_held_out_texts_that_are_all_empty_are_refused_before_training(shop):
    held = [n for n in range(300) if Split(share=0.1).is_heldout(f"r{n}")]
    texts(shop)
    (shop / "texts" / "rows.jsonl").write_text(rows(*("" if n in held else prose(99, seed=n) for n in range(300))))
    err = refused(
        "data", "mine.py", "--out", "run", folder=shop, says=f"the {len(held)} documents of 'texts' to measure"
    )
    data(shop, *suggested(err))
    assert outputs(shop, "texts")["sides"]["heldout"]["bytes"] > 0


def test_conversations_that_rows_lack_are_told_and_more_than_a_few_refused(shop):
    file = shop / "chats" / "chats.jsonl"
    talks = [json.loads(line) for line in file.read_text().splitlines()]
    for talk in talks[:6]:
        talk["messages"][1]["role"] = "critic"
    talks[6]["messages"][0]["content"] = "word " * 200
    talks[7]["messages"] = [*talks[6]["messages"], *talks[7]["messages"]]
    file.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    err = refused("data", "mine.py", "--out", "run", folder=shop, says="6.7% of the conversations of 'chats'")
    for lost in ("longer than a row", "with the unknown role 'critic'", "1 without their oldest turns"):
        assert lost in err
    assert suggested(err) == ["--set", "timeline.sft.data.lost=0.07"]
    before = (shop / "run" / "shards" / "chats" / "index.json").stat().st_mtime_ns
    assert "with the unknown role 'critic'" in data(shop, *suggested(err))
    assert (shop / "run" / "shards" / "chats" / "index.json").stat().st_mtime_ns == before, "encoded once"
    dropped = [outputs(shop, "chats")["sides"][side]["dropped"] for side in ("train", "heldout")]
    assert sum(sum(counts.values()) for counts in dropped) == 7


@pytest.mark.slow
def test_one_held_out_text_and_one_held_out_conversation_are_enough_for_a_release(shop):
    texts(shop, book=prose(30_000))
    chats = (shop / "chats" / "chats.jsonl").read_text().splitlines(keepends=True)
    (shop / "chats" / "chats.jsonl").write_text("".join(chats[:2]))
    lilliput("run", "mine.py", "--machine", "small.py", "--out", "run", folder=shop)
    card = (shop / "run" / "releases" / "tiny-instruct" / "README.md").read_text()
    assert "the last 10% of each text is held out" in card and "held out whole" in card
    scores = {score["task"]: score for score in read_json(shop / "run" / "evals" / "tiny-instruct.json")["scores"]}
    assert scores["held-out text, bits per byte"]["items"] == scores["held-out questions"]["items"] == 1
    assert scores["held-out text, bits per byte"]["stderr"] is scores["held-out questions"]["stderr"] is None


@pytest.mark.slow
def test_conversations_that_no_reply_can_be_judged_by_are_no_reason_to_lose_a_model(shop):
    messages = [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye."}]
    (shop / "chats" / "chats.jsonl").write_text(rows(*[messages] * 9, key="messages"))
    lilliput("run", "mine.py", "--machine", "small.py", "--out", "run", folder=shop)
    card = (shop / "run" / "releases" / "tiny-instruct" / "README.md").read_text()
    assert "Replies to held-out questions were not judged" in card
