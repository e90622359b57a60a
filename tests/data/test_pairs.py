"""Pairs of answers: the forms of a row, what is a target in the token files, and what is dropped or shortened."""

import json

import pyarrow
import pyarrow.parquet
import pytest
import tiny
from tiny_releases import tokenizer as plain_tokenizer

from lilliput.base.errors import DataError
from lilliput.data.batch import Cursor
from lilliput.data.chat_rows import first_kept
from lilliput.data.conversations import Conversation
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.hub import HubDataset
from lilliput.data.corpora.pairs import HubPairs, PairFiles, ShuffledAnswers
from lilliput.data.formats import format_of
from lilliput.data.messages import Message
from lilliput.data.pair_data import PairData
from lilliput.data.pair_format import PAIRS
from lilliput.data.pair_rows import PackedPairs, write_pairs
from lilliput.data.pairs import Pair, row_pair
from lilliput.data.split import Split
from lilliput.tokenizer.chatml import add_chatml, encode_messages

USER, BAD, GOOD = (
    {"role": "user", "content": "Name a color."},
    {"role": "assistant", "content": "Seven."},
    {"role": "assistant", "content": "Red."},
)
FORMS = {
    "texts": {"prompt": USER["content"], "chosen": GOOD["content"], "rejected": BAD["content"]},
    "messages": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "answers with the prompt": {"prompt": USER["content"], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "ultrafeedback": {
        "prompt": USER["content"],
        "prompt_id": "x",
        "messages": [USER, GOOD],
        "chosen": [USER, GOOD],
        "rejected": [USER, BAD],
        "score_chosen": 8.0,
        "score_rejected": 2.0,
    },
    "no prompt": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
}


class Listed:
    def __init__(self, *pairs):
        self._pairs = pairs

    def identity(self):
        return len(self._pairs)

    def pairs(self):
        return iter(self._pairs)


def said(messages):
    return [(one.role, one.content) for one in messages]


def message(role, content, weight=1):
    return Message(role, content, weight)


def pair(number, *, prompt=(), chosen="yes it is", rejected="no"):
    return Pair(
        (*prompt, message("user", f"Is {number} odd?", 0)),
        (message("assistant", chosen),),
        (message("assistant", rejected),),
        f"p{number}",
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_common_form_is_the_same_pair(form):
    found = row_pair(FORMS[form], "one", "here")
    assert said(found.prompt) == [("user", "Name a color.")] and [one.weight for one in found.prompt] == [0]
    assert said(found.chosen) == [("assistant", "Red.")] and said(found.rejected) == [("assistant", "Seven.")]
    assert found.chosen[0].weight == found.rejected[0].weight == 1


def test_answers_in_the_prompt_are_read_and_not_learned():
    before = [USER, GOOD, {"role": "user", "content": "Another."}]
    found = row_pair({"chosen": [*before, GOOD], "rejected": [*before, BAD], "system": "Be brief."}, "one", "here")
    assert [one.role for one in found.prompt] == ["system", "user", "assistant", "user"]
    assert not any(one.weight for one in found.prompt)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "'rejected' does not end with an answer"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "no prompt in common"),
        ({"chosen": [USER, GOOD]}, "no column 'rejected'"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}, "names of speakers"),
        ({"prompt": "x", "chosen": "a", "rejected": "b", "tools": ["t"]}, "column 'tools'"),
    ],
)
def test_a_row_that_holds_no_pair_is_refused_with_its_place(row, says):
    with pytest.raises(DataError, match=says) as error:
        row_pair(row, "one", "prefs.jsonl, row 3")
    assert error.value.where == "prefs.jsonl, row 3" and error.value.hint


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_files_of_pairs_are_read_as_conversations_are(tmp_path, suffix):
    rows = [FORMS["no prompt"] | {"id": "a"}, FORMS["no prompt"]]
    path = tmp_path / f"prefs.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    corpus = PairFiles(paths=(str(path),))
    assert [one.id for one in corpus.pairs()] == ["a", f"prefs.{suffix}:2"]
    assert format_of(corpus) is PAIRS and format_of(corpus).from_files(corpus, ("x",), "").paths == ("x",)
    assert issubclass(HubPairs, HubDataset)
    found = list(HubPairs(dataset=str(tmp_path), license="mit").pairs())
    assert [said(one.chosen) for one in found] == 2 * [[("assistant", "Red.")]]


def test_pairs_of_one_prompt_are_held_out_together():
    one, other = pair(1), pair(1, chosen="certainly")
    assert one.group == other.group != pair(2).group


def test_shuffled_answers_reject_the_answer_to_the_question_before(tmp_path):
    _, chats = tiny.write_corpora(tmp_path)
    conversations = list(ChatFiles(paths=(str(chats),)).conversations())
    pairs = list(ShuffledAnswers(source=ChatFiles(paths=(str(chats),))).pairs())
    assert len(pairs) == len(conversations) - 1
    assert pairs[0].rejected == pairs[0].rejected == (conversations[0].messages[1],)
    assert pairs[0].chosen == (conversations[1].messages[1],) and isinstance(conversations[0], Conversation)


def test_targets_are_the_tokens_of_the_answers_with_their_ends(tmp_path):
    tokenizer = add_chatml(plain_tokenizer())
    pairs = [pair(number) for number in range(12)]
    index = write_pairs(Listed(*pairs), tokenizer, Split(share=0.3), tmp_path / "pairs", 400)
    opened = PackedPairs(tmp_path / "pairs")
    end = tokenizer.token_to_id("<|im_end|>")
    seen = {}
    for side in ("train", "heldout"):
        batch = opened.take(side, range(opened.count(side)))
        for tokens, weight, documents in zip(batch.tokens, batch.weight, batch.document_ids, strict=True):
            for number in range(int(documents[weight > 0].max()) // 2 + 1):
                texts = []
                for document in (2 * number, 2 * number + 1):
                    ids = tokens[documents == document]
                    learned = ids[weight[documents == document] > 0].tolist()
                    assert learned[-1] == end and learned.count(end) == 1
                    texts.append((tokenizer.decode(ids.tolist()), tokenizer.decode(learned[:-1])))
                (one, chosen), (other, rejected) = texts
                assert chosen == "yes it is" and rejected == "no"
                question = one[: one.index("?")]
                assert question == other[: other.index("?")]
                seen[question] = side
    assert len(seen) == 12 and set(seen.values()) == {"train", "heldout"}
    counts = {side: counts["pairs"] for side, counts in index["sides"].items()}
    assert sum(counts.values()) == 12 and opened.heldout_size == counts["heldout"]
    assert index["pairs_per_row"] == opened.pairs_per_row > 1
    assert write_pairs(Listed(*pairs), tokenizer, Split(share=0.3), tmp_path / "again", 400) == index


def test_a_long_pair_loses_whole_turns_of_its_prompt_on_both_sides_and_is_counted(tmp_path):
    tokenizer = add_chatml(plain_tokenizer())
    before = (message("system", "Be brief.", 0), message("user", "old " * 20, 0), message("assistant", "older " * 9, 0))
    long = pair(1, prompt=before)
    sizes = [len(ids) for ids, _ in encode_messages(tokenizer, (*long.prompt, *long.chosen, *long.rejected))]
    without = 2 * (sizes[0] + sizes[3]) + sum(sizes[4:])
    assert first_kept(long.prompt, [2 * size for size in sizes[:4]], without - sum(sizes[4:])) == (1, 3)
    tie, strange = pair(2, chosen="no"), Pair(pair(3).prompt, (message("judge", "x"),), pair(3).rejected, "p3")
    hopeless = pair(4, chosen="never " * 200)
    index = write_pairs(
        Listed(long, pair(5), tie, strange, hopeless), tokenizer, Split(share=1e-9), tmp_path / "pairs", without
    )
    train = index["sides"]["train"]
    assert (train["pairs"], train["shortened"]) == (2, 1)
    assert train["dropped"] == {"longer than a row": 1, "with an unknown role": 1, "with the same answer twice": 1}
    batch = PackedPairs(tmp_path / "pairs").take("train", [0, 1])
    texts = [tokenizer.decode(row.tolist(), skip_special_tokens=False) for row in batch.tokens]
    (text,) = (text for text in texts if "Is 1" in text)
    assert text.count("Be brief.") == 2 and "old" not in text and text.count("Is 1 odd?") == 2
    with pytest.raises(DataError, match=r"80\.0% of the pairs of 'prefs'"):
        PAIRS.validate("prefs", index["sides"], length=without, lost=0.05, phases=["dpo"])
    with pytest.raises(DataError, match="no pair is left to train on"):
        write_pairs(Listed(tie), tokenizer, Split(share=1e-9), tmp_path / "none", without)


def test_a_reader_passes_over_the_pairs_in_another_order_each_time(tmp_path):
    tokenizer = add_chatml(plain_tokenizer())
    write_pairs(Listed(*map(pair, range(40))), tokenizer, Split(share=1e-9), tmp_path / "pairs", 128)
    opened = PackedPairs(tmp_path / "pairs")
    reader = PairData(corpus="prefs", reference="r").open({"prefs": opened})
    rows = opened.count("train")
    both, _ = reader.read(Cursor(), 2 * rows, 128)
    first, then = both.tokens[:rows], both.tokens[rows:]
    assert not first.equal(then) and sorted(first.tolist()) == sorted(then.tolist())
