"""Samples of what is dropped: few of each reason, from all over a corpus, beside the token files."""

import json
import pickle

from lilliput.data.chat_rows import PackedChats, write_chats
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered, Length
from lilliput.data.dropped import EXCERPT, Dropped, read_samples
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.growth.add_tokens import AddTokens
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHATML


def test_of_each_reason_there_are_a_few_samples_with_their_texts(tmp_path):
    rows = [{"id": f"d{n}", "text": "short" if n % 3 else f"{n} " + "long " * 200} for n in range(120)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    filters = (Length(at_least=10, at_most=1_004),)  # of the long ones those with two digits and more are too long
    corpus = Filtered(source=TextFiles(paths=(str(tmp_path / "texts.jsonl"),)), filters=filters)
    write_shards(corpus, BPE(vocab=300, at_most=True).train(["short long"]), Split(share=0.0), tmp_path / "shards")
    samples = read_samples(tmp_path / "shards")
    short = [one for one in samples if one.reason == "length: too short"]
    assert [one.number for one in short] == [1, 2, 4, 8, 16, 32, 64] and {one.text for one in short} == {"short"}
    assert short[2].id == "d5"
    assert "dropped.jsonl" not in {file["name"] for file in Shards(tmp_path / "shards").index["files"]}
    (tmp_path / "shards" / "dropped.jsonl").unlink()
    assert read_samples(tmp_path / "shards") == [] and Shards(tmp_path / "shards").heldout_size == 0


def test_conversations_that_are_dropped_are_sampled_too(tmp_path):
    talks = [[{"role": "user", "content": f"Hello {n}"}] for n in range(5)]
    talks += [[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]]
    rows = [{"id": f"c{n}", "messages": messages} for n, messages in enumerate(talks)]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = AddTokens(tokens=CHATML).retokenize(BPE(vocab=300, at_most=True).train(["Hello Good day."]))
    write_chats(ChatFiles(paths=(str(tmp_path / "talks.jsonl"),)), tokenizer, Split(share=0.0), tmp_path / "chats", 64)
    found = [(one.reason, one.number, one.id, one.text) for one in read_samples(tmp_path / "chats")]
    assert found == [("without an answer of an assistant", n, f"c{n - 1}", f"user: Hello {n - 1}") for n in (1, 2, 4)]
    assert PackedChats(tmp_path / "chats").index["sides"]["train"]["conversations"] == 1


def test_a_reason_is_a_string_that_survives_another_process():
    found = Dropped.of("length: too long", "a", "x" * 2 * EXCERPT)
    again = pickle.loads(pickle.dumps(found))
    assert again == found == "length: too long" and (again.id, again.excerpt) == ("a", "x" * EXCERPT)
    assert {found: 1} == {"length: too long": 1} and type(str(found)) is str
