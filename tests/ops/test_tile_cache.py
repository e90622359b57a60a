"""Cuts of kernels' work that were measured: kept by device, used where a machine asks for them, recorded by runs."""

from dataclasses import replace

import pytest
import tiny
import torch
from run.test_reproducibility import MACHINE, train

from lilliput.base.errors import MachineError, RecipeError, RunError
from lilliput.base.files import read_json
from lilliput.base.run_folder import RunFolder
from lilliput.ops import tile_cache
from lilliput.ops.gla import triton_tiles as scan
from lilliput.ops.sdpa import triton_tiles as attend

CPU = torch.device("cpu")
OTHER = scan.OTHERS._replace(states=scan.Tile(32, 32))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own, and nothing in use after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    tile_cache.activate({})


def test_kernels_take_what_is_in_use_and_keep_their_chunk():
    shipped = scan.tiles_for(torch.float16, CPU), attend.tiles_for(torch.float16, 32)
    middle = attend.tiles_for(torch.float16, 64)
    other = shipped[0]._replace(chunk=32, states=scan.Tile(32, 32, registers=128))
    wide = shipped[1]._replace(outputs=attend.Tile(32, 32, 4, 1, 128))
    tile_cache.save(scan.NAME, other, "cpu")
    tile_cache.save(attend.name_of(32), wide, "cpu")
    tile_cache.activate(tile_cache.load("cpu"))
    assert scan.tiles_for(torch.float16, CPU) == other._replace(chunk=shipped[0].chunk)
    assert attend.tiles_for(torch.float16, 32) == wide
    assert attend.tiles_for(torch.float16, 64) == middle, "each width has its own"
    assert scan.tiles_for(torch.float32, CPU) == scan.SINGLE
    tile_cache.activate({})
    assert (scan.tiles_for(torch.float16, CPU), attend.tiles_for(torch.float16, 32)) == shipped


def test_what_is_kept_is_found_again_by_device(cache):
    tile_cache.save("one", attend.NARROW, "cpu")
    tile_cache.save("other", scan.OTHERS, "cpu")
    tile_cache.save("one", attend.WIDE, "cpu")
    assert tile_cache.load("cpu") == {
        "one": {name: list(getattr(attend.WIDE, name)) for name in ("outputs", "dq", "dkdv")},
        "other": {name: list(getattr(scan.OTHERS, name)) for name in ("states", "outputs", "gradients")},
    }
    (key,) = read_json(cache / "lilliput" / "tiles.json")
    assert key.startswith("cpu, ")
    with pytest.raises(MachineError, match="nothing was measured for mps"):
        tile_cache.load("mps")


@pytest.mark.parametrize("content", ["{", "[]", '{"cpu": 3}', "\xff"])
def test_a_damaged_file_is_named(cache, content):
    (cache / "lilliput").mkdir(parents=True)
    (cache / "lilliput" / "tiles.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(MachineError, match="measured tiles cannot be read") as error:
        tile_cache.load("cpu")
    assert error.value.where.endswith("tiles.json")


def test_a_machine_asks_for_what_was_measured_or_says_that_nothing_was():
    machine = replace(MACHINE, tiles="tuned")
    with pytest.raises(MachineError, match="nothing was measured for cpu") as error:
        machine.resolved()
    assert "scan_grid --keep" in error.value.hint
    tile_cache.save(scan.NAME, OTHER, "cpu")
    machine.resolved().apply()
    assert scan.tiles_for(torch.float16, CPU).states == scan.Tile(32, 32)
    MACHINE.resolved().apply()
    assert scan.tiles_for(torch.float16, CPU) == scan.OTHERS, "another machine of the process takes the shipped ones"
    with pytest.raises(RecipeError, match="tiles cannot be 'fast'"):
        replace(MACHINE, tiles="fast")


def test_a_run_goes_on_with_the_tiles_that_it_began_with(tmp_path):
    recipe = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC)
    recipe = replace(recipe, timeline=recipe.timeline[:1])
    tile_cache.save(scan.NAME, OTHER, "cpu")
    train(recipe, tmp_path / "run", replace(MACHINE, tiles="tuned"))
    made_with = read_json(tmp_path / "run" / "run.json")["made_with"]
    assert made_with["tiles"] == tile_cache.load("cpu") and made_with["tiles"][scan.NAME]["states"] == [
        32,
        32,
        4,
        1,
        None,
    ]
    with RunFolder(tmp_path / "run") as opened:
        opened.remove("phases/00-pretrain")
    tile_cache.save(scan.NAME, scan.OTHERS, "cpu")
    with pytest.raises(RunError, match="tiles.gla.states"):
        train(recipe, tmp_path / "run")
