"""Comparing what machines have that share no disk: what they train on, and what they have trained."""

import json
import socket
from collections.abc import Mapping
from typing import Any

from lilliput.base.errors import RunError
from lilliput.base.files import hash_of
from lilliput.base.spec import to_plain
from lilliput.run.context import RunContext
from lilliput.train.ranks import FINAL

INPUTS = "inputs"
"""Name under which hashes are gathered."""


def check_same_inputs(context: RunContext, until: str | None) -> None:
    """Refuse to train where a recipe, tokenizer or token file is not the same on every machine.

    Args:
        context: of the run, prepared.
        until: the last phase that is trained; None for all.

    Raises:
        RunError: one differs.
    """
    recipe, run = context.recipe, context.run
    if context.ranks.count == 1:
        return
    files = {"recipe.json": hash_of(to_plain(recipe.until(until) if until else recipe))}
    files["tokenizer"] = run.record("tokenizer")["outputs"]["sha256"]
    for entry in (recipe.until(until).without_releases() if until else recipe).timeline:
        for name in entry.reads():
            files[f"shards/{name}/index.json"] = run.record(f"shards/{name}")["outputs"]["index_sha256"]
    _compare(context, INPUTS, files, "copy that part of the run from one machine to the others, with `rsync -a`")


def check_same_weights(context: RunContext, phase: str, outputs: Mapping[str, Any]) -> None:
    """Compare the weights that a phase ends with; what machines handed each other to get there is dropped.

    Args:
        context: of the run.
        phase: its name.
        outputs: recorded of it.

    Raises:
        RunError: machines have different ones.
    """
    files = {f"{name} of {phase}": outputs[name] for name in ("weights", "average")}
    hint = "report it, with both run folders; to go on, copy the phase from one machine to the others"
    _compare(context, f"{FINAL}/{phase}", files, hint, drops=f"{phase}/")


def _compare(context: RunContext, name: str, files: Mapping[str, str], hint: str, drops: str | None = None) -> None:
    own = {"host": socket.gethostname(), "folder": str(context.run.path.absolute()), "files": dict(files)}
    each = [json.loads(one) for one in context.ranks.gather(name, json.dumps(own).encode(), drops=drops)]
    for rank, other in enumerate(each[1:], 1):
        for file in {**each[0]["files"], **other["files"]}:
            here, there = (one["files"].get(file, "nothing")[:12] for one in (each[0], other))
            if here != there:
                raise RunError(
                    f"{file} differs: {here} on {each[0]['host']} (rank 0), {there} on {other['host']} (rank {rank})",
                    where=f"{each[0]['host']}:{each[0]['folder']} and {other['host']}:{other['folder']}",
                    hint=hint,
                )
