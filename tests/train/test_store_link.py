"""The link to torchrun's store: values of any size, and calls that end within a time limit."""

import socket
import time

import pytest
from torch import distributed

from lilliput.base.errors import MachineError
from lilliput.train.block_owners import BlockOwners
from lilliput.train.store_gather import StoreGather
from lilliput.train.store_link import CHUNK, LinkDown, StoreLink


@pytest.fixture
def store(monkeypatch):
    made = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(made.port))
    return made


def test_a_value_of_any_size_is_the_newest_and_old_ones_are_dropped(store):
    writer, reader = StoreLink(10), StoreLink(10)
    assert reader.get("blocks/0") is None and reader.heads(["blocks/0"]) == [None]
    for step in range(1, 5):
        value = bytes([step]) * (2 * CHUNK + step)
        writer.put("blocks/0", value, step=step)
        assert reader.get("blocks/0") == value and reader.heads(["blocks/0"])[0].step == step
    chunks = 3 * 2  # of two values, the newest and the one that a reader may be in the middle of
    assert store.num_keys() <= chunks + 2
    assert writer.sent == reader.received == sum(2 * CHUNK + step for step in range(1, 5))
    again = StoreLink(10)  # the writer was killed and started again
    again.put("blocks/0", b"again", step=5, kept=1)
    assert reader.get("blocks/0") == b"again"


def test_a_store_that_is_silent_costs_the_limit_and_one_that_is_gone_less(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(silent.getsockname()[1]))
        link, begun = StoreLink(1.0), time.monotonic()
        with pytest.raises(LinkDown, match="no answer within 1 s"):
            link.heads(["a"])
        assert time.monotonic() - begun < 5
    begun = time.monotonic()
    with pytest.raises(LinkDown, match="refused"):
        link.heads(["a"])
    assert time.monotonic() - begun < 1


def test_a_link_finds_a_store_that_is_started_again(store, monkeypatch):
    link = StoreLink(5)
    link.put("a", b"1")
    monkeypatch.setattr(link, "_client", None)
    assert link.get("a") == b"1"


def test_a_machine_is_told_that_another_one_has_ended_the_phase(store):
    StoreLink(5).put("final/blocks/1", b"hashes")
    mine = StoreGather(StoreLink(5), 0, 2)
    mine.of_phase("blocks", print)
    with pytest.raises(MachineError, match="rank 1 has ended the phase 'blocks', and this machine has not"):
        mine.gather("blocks/metrics", b"lines")


def test_a_short_value_is_another_one_after_a_restart(store):
    StoreLink(5).put("inputs/0", b"old")
    StoreLink(5).put("inputs/1", b"theirs")
    assert BlockOwners(0, 2, StoreLink(5)).gather("inputs", b"new") == [b"new", b"theirs"]
    assert StoreLink(5).get("inputs/0") == b"new"
