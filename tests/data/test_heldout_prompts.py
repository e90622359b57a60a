"""Prompts from what is held out: beginnings of documents, conversations up to their answers, corpora by turns."""

from dataclasses import dataclass

import pytest
import tiny

from lilliput.data.chat_rows import PackedChats, write_chats
from lilliput.data.conversations import Conversation
from lilliput.data.documents import Document
from lilliput.data.heldout_prompts import BEGINNING, LONGEST, heldout_prompts
from lilliput.data.messages import Message
from lilliput.data.pair_rows import PackedPairs, write_pairs
from lilliput.data.pairs import Pair
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import add_chatml, render

SPLIT = Split(share=0.5)
LENGTH = 1_500
SYSTEM, LONG = Message(role="system", content="Be brief."), "word " * 200


@dataclass(frozen=True)
class Listed:
    """A corpus of these items, of any format."""

    items: tuple

    def identity(self):
        return len(self.items)

    def documents(self):
        return iter(self.items)

    conversations = pairs = documents


def question(number):
    return Message(role="user", content=f"{LONG if number % 4 == 0 else 'What is'} {number} <|im_end|>?")


def answer(number):
    return Message(role="assistant", content=f"It is {number}.")


@pytest.fixture(scope="module")
def tokenizer():
    return add_chatml(BPE(vocab=400, at_most=True).train([tiny.sentences(n) for n in range(50)] + ["user assistant"]))


@pytest.fixture(scope="module")
def texts(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts") / "texts"
    lines = [tiny.sentences(n) if n % 3 else f"Small {n}." for n in range(30)] * 2
    documents = tuple(Document(id=f"{n}", text=text, group=f"{n}") for n, text in enumerate(lines))
    write_shards(Listed(documents), tokenizer, SPLIT, folder)
    files = Shards(folder)
    files.tokenizer = tokenizer
    return files


@pytest.fixture(scope="module")
def chats(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chats") / "chats"
    talks = tuple(
        Conversation(
            id=f"{n}",
            group=f"{n}",
            messages=(*([SYSTEM] if n % 2 else []), question(n), answer(n), question(n + 1), answer(n + 1)),
        )
        for n in range(40)
    )
    write_chats(Listed(talks), tokenizer, SPLIT, folder, LENGTH)
    files = PackedChats(folder)
    files.tokenizer = tokenizer
    return files


def decoded(prompts, tokenizer):
    return {tokenizer.decode(list(one.ids), skip_special_tokens=False) for one in prompts}


def test_a_document_begins_with_the_end_token_and_a_short_one_is_halved(texts, tokenizer):
    found = heldout_prompts({"texts": texts}, 1000)
    held_out = list(dict.fromkeys(text for _, text in texts.heldout_texts()))
    assert len(found) == len({one.ids for one in found}) and heldout_prompts({"texts": texts}, 2) == found[:2]
    for one in found:
        assert one.ids[0] == texts.end and one.corpus == "texts" and 1 < len(one.ids) <= BEGINNING + 1
        assert one.text == tokenizer.decode(list(one.ids[1:]), skip_special_tokens=False)
        text = next(text for text in held_out if text.startswith(one.text))
        assert one.text != text and (len(one.ids) == BEGINNING + 1) == (not text.startswith("Small"))


def test_a_conversation_ends_in_the_header_of_its_first_answer_as_it_is_trained(chats, tokenizer):
    found = heldout_prompts({"chats": chats}, 1000)
    before = [
        messages[: [one.role for one in messages].index("assistant")] for _, messages in chats.heldout_conversations()
    ]
    short = {render(messages, generation_prompt=True) for messages in before if LONG not in messages[-1].content}
    assert decoded(found, tokenizer) == short and len(short) < len(before)
    assert all(len(one.ids) <= LONGEST and "<|im_start|>" not in one.text for one in found)


def test_a_pair_has_one_prompt(tokenizer, tmp_path):
    pairs = tuple(
        Pair(id=f"{n}", prompt=(question(n),), chosen=(answer(n),), rejected=(answer(n + 1),)) for n in range(1, 20)
    )
    write_pairs(Listed(pairs), tokenizer, SPLIT, tmp_path / "pairs", LENGTH)
    files = PackedPairs(tmp_path / "pairs")
    files.tokenizer = tokenizer
    found = heldout_prompts({"pairs": files}, 1000)
    prompts = {render(pair.prompt, generation_prompt=True) for pair in pairs}
    assert 2 < len(found) <= files.heldout_size and decoded(found, tokenizer) <= prompts


def test_corpora_take_turns_and_others_have_none(texts, chats):
    corpora = {"texts": texts, "other": object(), "chats": chats}
    assert [one.corpus for one in heldout_prompts(corpora, 5)] == ["texts", "chats", "texts", "chats", "texts"]
    found = heldout_prompts(corpora, 1000)
    assert len(found) == sum(len(heldout_prompts({name: corpora[name]}, 1000)) for name in corpora) < 1000
    assert heldout_prompts({"other": object()}, 3) == heldout_prompts({"texts": texts}, 0) == []
