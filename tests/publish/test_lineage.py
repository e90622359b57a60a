"""What a release was made of: training that came after it is told, and nothing is told of a release that is current."""

import pytest

from lilliput.base.files import hash_of, write_json
from lilliput.base.run_folder import RunFolder
from lilliput.publish.lineage import after_part, outdated

PHASE = "lilliput.train.phase:Phase"
PROVENANCE = {"model": "...", "seed": 0}
MORE = "phases/01-pretrain-2"


@pytest.fixture
def run(tmp_path):
    """The records of a run whose release is of its first phase, and which goes on with a second one."""
    timeline = [{"type": PHASE, "name": name} for name in ("pretrain", "pretrain-2")]
    timeline.append({"type": "lilliput.recipe:Release", "name": "own"})
    with RunFolder(tmp_path / "run") as run:
        run.write("recipe.json", {"name": "own", "seed": 0, "timeline": [timeline[0], timeline[2]]})
        _trained(run, "phases/00-pretrain", PROVENANCE)
        provenance = hash_of(after_part(PROVENANCE, "inputs of phases/00-pretrain"))
        run.write_with_checksum(
            "parts/releases.own.json", {"inputs": "", "done": True, "from": {"lineage": provenance}}
        )
        assert outdated(run.path, "own") is None
        run.write("recipe.json", {"name": "own", "seed": 0, "timeline": timeline})
        yield run


def _trained(run, part, provenance, done=True):
    record = {"inputs": f"inputs of {part}", "done": done, "from": {"before": provenance}}
    run.write_with_checksum(f"parts/{part.replace('/', '.')}.json", record)


def test_a_release_is_older_than_training_that_came_after_it(run):
    why = f"the release own is older than pretrain-2, which is trained; renew it: lilliput publish {run.path}"
    _trained(run, MORE, after_part(PROVENANCE, "inputs of phases/00-pretrain"))
    assert outdated(run.path, "own") == why


def test_a_release_is_older_than_training_that_is_on_its_way(run):
    why = f"older than pretrain-2, whose training is not finished; renew it: lilliput run {run.path}"
    assert why in str(outdated(run.path, "own"))
    _trained(run, MORE, after_part(PROVENANCE, "inputs of phases/00-pretrain"), done=False)
    assert why in str(outdated(run.path, "own"))


def test_damaged_records_tell_nothing(run):
    assert outdated(run.path, "another") is None
    write_json(run.path / "parts/releases.own.json", {"damaged": True})
    assert outdated(run.path, "own") is None
    assert outdated(run.path / "nowhere", "own") is None
