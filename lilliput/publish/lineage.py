"""Finds the phase a release was made from, by the records of its run: training may have continued since.

Plain values alone are read, so that a run whose recipe has types of its own can be asked, too.
"""

from pathlib import Path
from typing import Any

from lilliput.base.errors import LilliputError
from lilliput.base.files import hash_of, read_json, verify_checksum
from lilliput.base.run_folder import RunFolder


def outdated(folder: Path, release: str) -> str | None:
    """A sentence on a release that is older than what its run has trained; None where it is of that, or none can tell.

    Args:
        folder: of the run.
        release: its name.
    """
    try:
        found = newer_phase(RunFolder(folder), verify_checksum(read_json(folder / "recipe.json")), release)
    except (LilliputError, OSError, ValueError, LookupError, TypeError):  # damaged, which its readers say
        return None
    if found is None:
        return None
    phase, is_trained = found
    state, verb = ("which is trained", "publish") if is_trained else ("whose training is not finished", "run")
    return f"the release {release} is older than {phase}, {state}; renew it: lilliput {verb} {folder}"


def newer_phase(run: RunFolder, recipe: dict[str, Any], release: str) -> tuple[str, bool] | None:
    """The phase right before a release that is not of it, and whether that one is trained; None where the release is.

    Args:
        run: the run folder.
        recipe: its recipe, plain.
        release: a name in its timeline.

    Raises:
        LilliputError, LookupError, TypeError: the records are damaged, or not there.
    """
    released, provenance, last = run.record(f"releases/{release}")["from"]["lineage"], None, ""
    for index, entry in enumerate(recipe["timeline"]):
        if entry["type"] == "lilliput.train.phase:Phase":
            last = entry["name"]
            phase = run.record(f"phases/{index:02d}-{last}")
            if not phase.get("done"):
                return last, False
            provenance = after_part(phase["from"]["before"], phase["inputs"])
        elif (computed := run.record(f"computed/{index:02d}-{entry.get('name')}")).get("done"):
            provenance = provenance and after_part(provenance, computed["inputs"])
        elif entry["type"] != "lilliput.recipe:Release":
            provenance = provenance and after_growth(provenance, entry, phase_seed(recipe["seed"], index))
        elif entry["name"] == release:
            return None if provenance is None or released == hash_of(provenance) else (last, True)
    raise LookupError(release)


def phase_seed(seed: int, index: int) -> int:
    """The seed of one entry of the timeline, in a recipe of a seed."""
    return (seed << 8) + index


def after_part(provenance: dict[str, Any], inputs: str) -> dict[str, Any]:
    """The provenance of what comes after a phase or a computation: the hash of its own, and that of its inputs."""
    return {"before": hash_of(provenance), "inputs": inputs}


def after_growth(provenance: dict[str, Any], growth: dict[str, Any], seed: int) -> dict[str, Any]:
    """The provenance of what comes after a growth (plain): the hash of its own, the growth, and its seed."""
    return {"before": hash_of(provenance), "growth": growth, "seed": seed}
