import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_corpora import encode_chat
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.files import sha256
from lilliput.base.spec import from_plain, to_plain
from lilliput.data.batch import Batch, Cursor
from lilliput.data.chat_rows import ChatData, PackedChats, shorten, write_chats
from lilliput.data.conversations import Conversation
from lilliput.data.messages import Message
from lilliput.data.packing import pack
from lilliput.data.shards import SIDES
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import BPE, END_ID, tokenizer_hash
from lilliput.tokenizer.chatml import add_chatml, encode_messages

LENGTH = 160
SPLIT = Split(share=0.25)


@dataclass(frozen=True, kw_only=True)
class Listed:
    listed: tuple[Conversation, ...]

    def conversations(self):
        yield from self.listed


def chat(*turns: str, number: int, group: str | None = None) -> Conversation:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    messages = tuple(Message(roles[turn[0]], turn[2:]) for turn in turns)
    return Conversation(messages, f"c{number}", group or f"g{number // 2}")


def short_chats(count: int) -> list[Conversation]:
    rng = random.Random(0)

    def words() -> str:
        return " ".join("".join(rng.choices("abcdefgh", k=4)) for _ in range(rng.randint(1, 6)))

    return [
        chat(
            *(["s:be kind"] if rng.random() < 0.3 else []),
            *(turn for _ in range(rng.randint(1, 2)) for turn in (f"u:{words()}?", f"a:{words()} {number}")),
            number=number,
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [message.content for conversation in short_chats(60) for message in conversation.messages]
    return add_chatml(BPE(vocab=400).train([*texts, "assistant user system"] * 2))


@pytest.fixture(scope="module")
def corpus() -> Listed:
    return Listed(listed=tuple(short_chats(60)))


@pytest.fixture
def folder(corpus, tokenizer, tmp_path) -> Path:
    write_chats(corpus, tokenizer, SPLIT, tmp_path / "chats", LENGTH)
    return tmp_path / "chats"


def every_row(rows: PackedChats, side: str) -> Batch:
    return rows.take(side, range(rows.count(side)))


def conversations_in(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """Ids and weights of every segment that is not filler."""
    found = []
    for tokens, weight, document_ids in zip(batch.tokens, batch.weight, batch.document_ids, strict=True):
        assert (
            document_ids[0] == 0 and bool((document_ids.diff() >= 0).all()) and bool((document_ids.diff() <= 1).all())
        )
        for number in range(int(document_ids[-1]) + 1):
            inside = document_ids == number
            if bool((tokens[inside] == END_ID).all()):
                assert number == document_ids[-1] and not weight[inside].any()
            else:
                found.append((tokens[inside].tolist(), weight[inside].int().tolist()))
    return found


def test_an_answer_of_weight_0_is_read_and_not_learned(tokenizer, tmp_path) -> None:
    turns = [
        (Message("user", "abc?"), Message("assistant", "fed", weight), Message("assistant", "gh")) for weight in (0, 1)
    ]
    silent = (Message("user", "abc?"), Message("assistant", "fed", 0))
    groups = {
        side: next(f"g{n}" for n in range(99) if SPLIT.is_heldout(f"g{n}") == (side == "heldout")) for side in SIDES
    }
    listed = [Conversation(each, "c", group) for group in groups.values() for each in (*turns, silent)]
    index = write_chats(Listed(listed=tuple(listed)), tokenizer, SPLIT, tmp_path / "weighted", LENGTH)
    rows = PackedChats(tmp_path / "weighted")
    head, fed, gh = (list(mask) for _, mask in encode_messages(tokenizer, turns[1]))
    for side in SIDES:
        weights = sorted(weight for _, weight in conversations_in(every_row(rows, side)))
        assert weights == sorted([head + [0] * len(fed) + gh, head + fed + gh])
        assert index["sides"][side]["dropped"] == {"without an answer of an assistant": 1}
    assert [messages for _, messages in rows.heldout_conversations()] == turns


def test_every_conversation_is_packed_whole_once_on_its_side(corpus, tokenizer, folder) -> None:
    rows = PackedChats(folder, tokenizer_hash(tokenizer))
    for side in SIDES:
        expected = [
            encode_chat(tokenizer, conversation)
            for conversation in corpus.listed
            if SPLIT.is_heldout(conversation.group) == (side == "heldout")
        ]
        batch = every_row(rows, side)
        assert batch.tokens.shape == batch.weight.shape == batch.document_ids.shape == (rows.count(side), LENGTH)
        assert (batch.tokens.dtype, batch.weight.dtype) == (torch.int64, torch.float32)
        assert batch.document_ids.dtype == torch.int32
        assert sorted(conversations_in(batch)) == sorted(expected)
        counts = rows.index["sides"][side]
        assert counts["conversations"] == len(expected) > 5
        assert counts["tokens"] == sum(len(ids) for ids, _ in expected)
        assert counts["targets"] == sum(sum(mask) for _, mask in expected) == int(batch.weight.sum())
        assert counts["dropped"] == {} and counts["shortened"] == 0


def test_held_out_conversations_are_stored_and_their_groups_are_not_trained_on(corpus, folder) -> None:
    heldout = list(PackedChats(folder).heldout_conversations())
    assert heldout == [
        (conversation.id, conversation.messages)
        for conversation in corpus.listed
        if SPLIT.is_heldout(conversation.group)
    ]
    groups = {conversation.id: conversation.group for conversation in corpus.listed}
    held = {groups[name] for name, _ in heldout}
    assert held and not held & {groups[name] for name in groups if name not in dict(heldout)}


def test_long_conversations_lose_whole_turns_from_the_left(tokenizer) -> None:
    long = chat(
        "s:be kind", "u:first question", "a:first answer", "u:second", "a:yes", "a:and no", "u:third", "a:3", number=0
    )
    encoded = encode_messages(tokenizer, long.messages)
    size = [len(ids) for ids, _ in encoded]
    assert list(shorten(long.messages, encoded, sum(size))) == encoded
    assert list(shorten(long.messages, encoded, sum(size) - 1)) == [encoded[0], *encoded[3:]]
    assert list(shorten(long.messages, encoded, size[0] + sum(size[3:]))) == [encoded[0], *encoded[3:]]
    assert list(shorten(long.messages, encoded, size[0] + sum(size[3:]) - 1)) == [encoded[0], *encoded[6:]]
    assert list(shorten(long.messages, encoded, 1)) == [encoded[0], *encoded[6:]]
    single = chat("u:one", "a:two", number=0)
    encoded = encode_messages(tokenizer, single.messages)
    assert list(shorten(single.messages, encoded, 1)) == encoded


def test_what_cannot_be_trained_on_is_dropped_and_counted(tokenizer, tmp_path) -> None:
    many = " ".join(["word"] * 200)
    listed = (
        chat("u:hi", "a:ho", number=0),
        chat("u:nobody answers", number=1),
        chat(f"u:{many}", "a:too long", number=2),
        chat(f"u:{many}", "a:gone", "u:short", "a:kept", number=3),
        chat("u:again nobody", "s:odd", number=4),
    )
    index = write_chats(Listed(listed=listed), tokenizer, Split(share=0), tmp_path / "odd", LENGTH)
    counts = index["sides"]["train"]
    assert counts["dropped"] == {"longer than a row": 1, "without an answer of an assistant": 2}
    assert (counts["conversations"], counts["shortened"], counts["rows"]) == (2, 1, 1)
    assert index["sides"]["heldout"]["rows"] == 0
    rows = PackedChats(tmp_path / "odd")
    found = conversations_in(every_row(rows, "train"))
    assert sorted(found) == sorted(
        encode_chat(tokenizer, each) for each in (listed[0], chat("u:short", "a:kept", number=9))
    )
    assert list(rows.heldout_conversations()) == []
    with pytest.raises(DataError, match="no conversation is left"):
        write_chats(Listed(listed=listed[1:3]), tokenizer, Split(share=0), tmp_path / "none", LENGTH)
    assert not (tmp_path / "none").exists()


def test_packing_is_tight_and_complete() -> None:
    rng = random.Random(0)
    for _ in range(50):
        length = rng.randint(4, 200)
        sizes = [rng.randint(1, length) for _ in range(rng.randint(0, 120))]
        rows = pack(sizes, length)
        assert sorted(item for row in rows for item in row) == list(range(len(sizes)))
        filled = [sum(sizes[item] for item in row) for row in rows]
        assert all(0 < room <= length for room in filled)
        assert len(rows) <= 11 / 9 * -(-sum(sizes) // length) * 1.5 + 1
        assert sum(room * 2 <= length for room in filled) <= 1
    assert pack([5, 3, 2, 4, 6], 10) == [[4, 3], [0, 1, 2]]
    assert pack([6, 7, 3], 10) == [[1, 2], [0]]


@pytest.mark.parametrize("seed", [0, 7])
def test_reading_in_pieces_is_reading_at_once(folder, seed: int) -> None:
    spec = ChatData(corpus="talk", seed=seed)
    reader = spec.open({"talk": PackedChats(folder)})
    count = PackedChats(folder).count("train")
    total = 3 * count + 2
    straight, last = reader.read(Cursor(), total, LENGTH)
    assert last == Cursor(positions=(("talk", total),))
    rng = random.Random(seed)
    for _ in range(4):
        cursor, left, rows = Cursor(), total, []
        while left:
            size = rng.randint(1, left)
            saved = json.loads(json.dumps(cursor.to_plain()))
            batch, cursor = spec.open({"talk": PackedChats(folder)}).read(Cursor.from_plain(saved), size, LENGTH)
            rows.append(batch)
            left -= size
        assert cursor == last
        for name in ("tokens", "weight", "document_ids"):
            assert torch.equal(torch.cat([getattr(batch, name) for batch in rows]), getattr(straight, name))


def test_every_pass_has_every_row_once_in_an_order_of_its_own(folder) -> None:
    rows = PackedChats(folder)
    count = rows.count("train")
    stored = every_row(rows, "train").tokens.tolist()
    orders = {}
    for seed in (0, 1):
        batch, _ = ChatData(corpus="talk", seed=seed).open({"talk": rows}).read(Cursor(), 3 * count, LENGTH)
        indices = [stored.index(tokens) for tokens in batch.tokens.tolist()]
        for epoch in range(3):
            order = indices[epoch * count : (epoch + 1) * count]
            assert sorted(order) == list(range(count))
            orders[seed, epoch] = tuple(order)
    assert len(set(orders.values())) == 6
    assert ChatData(corpus="talk").open({"talk": rows}).tokens_available == count * LENGTH


def test_a_flipped_byte_in_any_file_is_found(folder) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 8
    for name in names:
        path = folder / name
        good = path.read_bytes()
        for offset in (0, len(good) // 2, len(good) - 2):
            path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
            with pytest.raises(DataError) as raised:
                PackedChats(folder)
            assert name in str(raised.value)
        path.write_bytes(good)
    PackedChats(folder)


def test_the_wrong_tokenizer_length_corpus_cursor_or_folder_is_refused(folder, tokenizer, corpus, tmp_path) -> None:
    other = tokenizer_hash(add_chatml(BPE(vocab=300).train([str(short_chats(20))])))
    with pytest.raises(DataError) as raised:
        PackedChats(folder, other)
    assert other in str(raised.value) and tokenizer_hash(tokenizer) in str(raised.value)
    reader = ChatData(corpus="talk").open({"talk": PackedChats(folder)})
    with pytest.raises(DataError, match=f"{LENGTH} tokens, not of 64"):
        reader.read(Cursor(), 1, 64)
    with pytest.raises(DataError, match="books"):
        reader.read(Cursor(positions=(("books", 3),)), 1, LENGTH)
    with pytest.raises(DataError, match="'speech'"):
        ChatData(corpus="speech").open({"talk": PackedChats(folder)})
    with pytest.raises(DataError, match="im_start"):
        write_chats(corpus, BPE(vocab=300).train([str(short_chats(20))]), SPLIT, tmp_path / "plain", LENGTH)
    with pytest.raises(DataError, match="no tokens"):
        PackedChats(tmp_path / "nowhere")
    assert from_plain(to_plain(ChatData(corpus="talk", seed=3))) == ChatData(corpus="talk", seed=3)


def test_the_same_corpus_gives_the_same_bytes_and_wide_ids_survive(corpus, tokenizer, folder, tmp_path) -> None:
    write_chats(corpus, tokenizer, SPLIT, tmp_path / "again", LENGTH)
    for path in folder.iterdir():
        assert sha256(path) == sha256(tmp_path / "again" / path.name)
    wide = Tokenizer.from_str(tokenizer.to_str())
    wide.add_tokens([f"<extra {number}>" for number in range(70_000)])
    talk = Listed(listed=(chat("u:hi", "a:<extra 69999>", number=0),))
    assert write_chats(talk, wide, Split(share=0), tmp_path / "wide", LENGTH)["dtype"] == "uint32"
    assert int(every_row(PackedChats(tmp_path / "wide"), "train").tokens.max()) == wide.get_vocab_size() - 1
