"""The record beside a card makes the same card anywhere, and names no folder of its maker."""

import json

import pytest
from card_records import record_of

from lilliput.base.errors import ExportError
from lilliput.base.files import read_json, write_json
from lilliput.publish.card.card import card
from lilliput.publish.card.travelling import RECORD_FILE, public_record, read_record, write_record


@pytest.mark.parametrize("chat", [False, True])
def test_the_record_makes_the_same_card_without_a_private_path(tmp_path, chat):
    record = record_of(chat)
    command = record["command"]
    command |= {"recipe": "/home/someone/work/garden.py", "machine": "~/machines/mine.py"}
    command["sources"] = ["docs=/home/someone/docs/*.txt", "questions=/home/someone/q/*.jsonl", "poems=poems.txt"]
    write_record(tmp_path, record)
    read = read_record(tmp_path)
    assert card(read) == card(record)
    assert "someone" not in json.dumps(read) and read == public_record(read)
    later = {entry.get("name") for entry in read["recipe"]["timeline"]}
    assert ("sft" in later) == chat and ("questions" in read["corpora"]) == chat and "poems" not in read["corpora"]


def test_a_checkpoint_of_another_machine_is_not_needed_again(tmp_path):
    """The shape that training began with is in the record: the folder that it came from may be anywhere."""
    record = record_of(chat=False)
    record["shape"] = record["recipe"]["model"]
    checkpoint = {"type": "lilliput.publish.pretrained:PretrainedModel", "checkpoint": "/home/someone/models/old"}
    record["recipe"]["model"] = checkpoint | {"revision": None}
    write_record(tmp_path, record)
    assert card(read_record(tmp_path)) == card(record)
    assert '"…/old"' in card(record)


def test_a_record_that_is_missing_or_changed_is_refused(tmp_path):
    with pytest.raises(ExportError, match="no record.json"):
        read_record(tmp_path)
    write_record(tmp_path, record_of(chat=False))
    changed = read_json(tmp_path / RECORD_FILE)
    changed["phases"][0]["tokens"] += 1
    write_json(tmp_path / RECORD_FILE, changed)
    with pytest.raises(ExportError, match="differs from its own hash"):
        read_record(tmp_path)
